"""What stands for a service of somebody else's where ours settle their messages."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from parvis.config import Config
from parvis.service.base import AnyService, Reject, Service, Step


class StandIn(Service[Any, Any]):
    """Has the name and the limits of a service; its messages are handled elsewhere."""

    name: ClassVar[str] = ""
    queue: ClassVar[str] = ""

    def process(self, payload: Any, step: Step[Any]) -> None:  # noqa: ARG002
        """Refuse: nothing is to come this way."""
        raise Reject(f"{self.name} is no service of Parvis")


@cache
def stand_in(name: str, class_name: str = "Service") -> AnyService:
    """Return what stands for the service `name`, implemented by `class_name`."""
    return type(class_name, (StandIn,), {"name": name})(Config())
