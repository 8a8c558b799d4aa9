"""What only those may do who have logged in: each is shown before it is done, and logged with who did it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from litestar import get, post
from litestar.exceptions import HTTPException, NotFoundException, ServiceUnavailableException
from litestar.response import Template

from parvis.recipe.problem import printable
from parvis.service.commands import stop_instance, stop_service
from parvis.transport.base import Send, TransportError
from parvis.web.log_in import signed_in
from parvis.web.rendering import harmless
from parvis.web.site import AnyRequest, Site, SiteDependency
from parvis.web.views.services import service_groups

log = logging.getLogger("parvis.web.actions")

_STOPPING: Final = (
    "It finishes the message that it has in hand, and ends. What keeps services running, such as "
    "`parvis up`, systemd or Kubernetes, may start another one at once."
)
_SERVICES: Final = ("/services", "Services")


@dataclass(frozen=True, slots=True)
class _Stop:
    """Whom to stop: what is asked, for people, and what asks it of them."""

    text: str
    field: str
    value: str
    count: int
    command: Send


@get("/services/stop", guards=[signed_in])
async def show_stop(request: AnyRequest, site: SiteDependency) -> Template:
    """What stopping an instance or a service means, before it is done."""
    stop = _stop(site, request.query_params.get("host", ""), request.query_params.get("service", ""))
    return site.page(
        request,
        "confirm.html",
        heading="Stop a service",
        question=f"Stop {stop.text}?",
        explanation=_STOPPING,
        remarks=(),
        fields=[(stop.field, stop.value)],
        action="/services/stop",
        button="Stop it" if stop.count == 1 else f"Stop all {stop.count}",
        back=_SERVICES,
    )


@post("/services/stop", guards=[signed_in], status_code=200)
async def stop(request: AnyRequest, site: SiteDependency) -> Template:
    """Stop an instance or a service."""
    form = await request.form()
    wanted = _stop(site, str(form.get("host", "")), str(form.get("service", "")))
    try:
        await asyncio.to_thread(lambda: site.sources.broker.transport.send(wanted.command, timeout=10))
    except TransportError as error:
        raise ServiceUnavailableException(f"Nobody was told to stop: {error}") from None
    log.warning("%s has told %s to stop", site.user(request), printable(wanted.text, 200))
    text = f"{wanted.text[0].upper()}{wanted.text[1:]} was told to stop."
    return site.page(request, "done.html", heading="Stop a service", text=text, back=_SERVICES)


def _stop(site: Site, host: str, service: str) -> _Stop:
    """Find out who is meant. Only who is there, and takes commands, can be stopped."""
    if bool(host) == bool(service):
        raise HTTPException("Name an instance or a service.", status_code=400)
    groups = service_groups(site.sources.broker.board.cards())
    for group in groups:
        if service and group.address == service:
            count = len(group.instances)
            text = f"all {count} instances of {group.name}" if count != 1 else f"the instance of {group.name}"
            return _Stop(harmless(text), "service", service, count, stop_service(service))
        for card in group.instances:
            if host and card.host == host and not card.is_task:
                text = f"{group.name} at {card.place}"
                return _Stop(harmless(text), "host", host, 1, stop_instance(host))
    raise NotFoundException("That is not there any more.")
