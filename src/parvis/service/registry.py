"""Find services by name: those that installed packages announce as entry points `parvis.services`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from parvis.service.base import AnyService, Service
from parvis.service.contract import Contract

GROUP = "parvis.services"


class UnknownService(LookupError):
    """No service, or more than one, goes by that name."""

    exit_code = 2


@cache
def find_services() -> dict[str, EntryPoint]:
    """Return the known services by name, none of them loaded."""
    return dict(sorted((point.name, point) for point in entry_points(group=GROUP)))


def is_foreign(name: str) -> bool:
    """Whether `name` has the form in which services of `workflows` are named: `package:Service`."""
    return ":" in name


def resolve_name(name: str) -> str:
    """Return the full name of the one service whose name is, or begins with, `name` in any case.

    Raises:
        UnknownService: There is none, or there are several.
    """
    if is_foreign(name):
        from parvis.compat.foreign import foreign_name

        return foreign_name(name)
    known = find_services()
    wanted = name.casefold()
    exact = [key for key in known if key.casefold() == wanted]
    matches = exact or [key for key in known if key.casefold().startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    problem = f"several services begin with {name!r}" if matches else f"there is no service {name!r}"
    raise UnknownService(f"{problem}; known are: {', '.join(matches or known) or 'none'}")


class BrokenService(Exception):
    """A service is announced, and cannot be loaded."""


def load_service(name: str) -> type[AnyService]:
    """Return the service that `name` stands for.

    Raises:
        UnknownService: As `resolve_name`.
        BrokenService: It cannot be loaded, or is no service.
    """
    full_name = resolve_name(name)
    service = _load(full_name)
    if isinstance(service, str):
        raise BrokenService(f"service {full_name} cannot be loaded: {service}")
    return service


def contracts() -> dict[str, Contract]:
    """Return the contract of each service that can be loaded, by queue."""
    services = [_load(name) for name in find_services()]
    found = [Contract.of(service) for service in services if not isinstance(service, str)]
    return {contract.queue: contract for contract in found}


def service_of(queue: str) -> type[AnyService] | None:
    """Return the service that listens to a queue, by its name without namespace, if one is known here."""
    services = (_load(name) for name in find_services())
    return next((one for one in services if not isinstance(one, str) and one.queue == queue), None)


def broken_services() -> dict[str, str]:
    """Return the services that cannot be loaded, and why."""
    services = {name: _load(name) for name in find_services()}
    return {name: service for name, service in services.items() if isinstance(service, str)}


@cache
def _load(name: str) -> type[AnyService] | str:
    """Return a service, or why there is none."""
    point = find_services()[name]
    try:
        service = point.load()
    except Exception as error:  # noqa: BLE001 - somebody else's mistake must not cost our services
        return f"{type(error).__name__}: {error}"
    if isinstance(service, type) and issubclass(service, Service):
        return cast("type[AnyService]", service)
    return f"{point.value} is not a class derived from parvis.service.base.Service"
