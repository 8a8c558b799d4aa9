"""Find services by name: those that installed packages announce as entry points `parvis.services`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from parvis.service.base import AnyService
from parvis.service.contract import Contract

GROUP = "parvis.services"


class UnknownService(LookupError):
    """No service, or more than one, goes by that name."""


@cache
def find_services() -> dict[str, EntryPoint]:
    """Return the known services by name, none of them loaded."""
    return dict(sorted((point.name, point) for point in entry_points(group=GROUP)))


def resolve_name(name: str) -> str:
    """Return the full name of the one service whose name is, or begins with, `name` in any case.

    Raises:
        UnknownService: There is none, or there are several.
    """
    known = find_services()
    wanted = name.casefold()
    exact = [key for key in known if key.casefold() == wanted]
    matches = exact or [key for key in known if key.casefold().startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    problem = f"several services begin with {name!r}" if matches else f"there is no service {name!r}"
    raise UnknownService(f"{problem}; known are: {', '.join(matches or known) or 'none'}")


def load_service(name: str) -> type[AnyService]:
    """Return the service that `name` stands for. Raises as `resolve_name`, and ImportError."""
    return find_services()[resolve_name(name)].load()


def contracts() -> dict[str, Contract]:
    """Return the contract of each known service, by queue."""
    loaded = [Contract.of(point.load()) for point in find_services().values()]
    return {contract.queue: contract for contract in loaded}
