"""NotifyGDA: tells the data acquisition of each analysed image by UDP."""

from __future__ import annotations

import socket
from typing import ClassVar

from pydantic import BaseModel, Field

from parvis.service.base import Reject, Retry, Service, Step
from parvis.service.contract import Model
from parvis_services.messages import ImageResult

_TIMEOUT = 2.0
_SKIPPED_HOST = "mx-control"  # a placeholder that beamlines without a listener put into their recipes


class NotifyParameters(Model):
    """Whom to tell.

    Attributes:
        dcid: Data collection.
        host: Host that GDA listens on.
        port: Its UDP port.
    """

    dcid: int
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)


class NotifyGDA(Service[ImageResult, NotifyParameters]):
    """Tells GDA of each analysed image: one datagram an image.

    UDP promises nothing, so delivery is best effort: a datagram may be lost, and one may come twice if this
    process is killed between sending it and acknowledging its message. GDA goes by the image number.
    """

    name: ClassVar[str] = "NotifyGDA"
    queue: ClassVar[str] = "notify_gda"
    prefetch: ClassVar[int] = 20  # a datagram takes no time
    Payload: ClassVar[type[BaseModel]] = ImageResult
    Parameters: ClassVar[type[BaseModel]] = NotifyParameters

    def process(self, payload: ImageResult, step: Step[NotifyParameters]) -> None:
        """Send the datagram."""
        parameters = step.parameters
        if "{" in parameters.host:
            raise Reject(f"host {parameters.host!r} is a placeholder that nobody filled")
        if parameters.host == _SKIPPED_HOST:
            return
        if payload.image_number is None:
            raise Reject("payload: neither file-pattern-index nor file-number says which image this is")
        text = datagram(parameters.dcid, payload)
        try:
            _send(text.encode("latin-1"), parameters.host, parameters.port)
        except socket.gaierror as error:
            raise Retry(f"host {parameters.host!r}: {error.strerror}") from error
        except OSError as error:
            raise Retry(f"{parameters.host}:{parameters.port}: {error}") from error


def datagram(dcid: int, image: ImageResult) -> str:
    """Return what GDA is told: data collection, image, spots, spots off ice rings, resolution, intensity."""
    fields = (
        dcid,
        image.image_number,
        image.n_spots_total,
        image.n_spots_no_ice,
        image.estimated_d_min,
        image.total_intensity,
    )
    return "PIA:" + ":".join(str(field) for field in fields)


def _send(data: bytes, host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as udp:
        udp.settimeout(_TIMEOUT)
        udp.sendto(data, address)
