"""Find services written for `workflows`: those that packages announce, or any class by its place."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeAlias

from parvis.service.registry import BrokenService, UnknownService

if TYPE_CHECKING:
    from workflows.services.common_service import CommonService

    ForeignService: TypeAlias = type[CommonService]

GROUP = "workflows.services"
OURS = "parvis.compat.services"


@cache
def find_foreign() -> dict[str, EntryPoint]:
    """Return the known foreign services by name, such as `zocalo:Mailer`, none of them loaded.

    A name is that of the distribution that brings the service, and that of its entry point.
    """
    points = [point for point in entry_points(group=GROUP) if point.module != OURS]
    return dict(sorted((f"{point.dist.name if point.dist else '?'}:{point.name}", point) for point in points))


def foreign_name(name: str) -> str:
    """Return the full name of the foreign service whose name is, or begins with, `name` in any case.

    What no package announces is taken as the place of a class, `module:Class`, and returned as it is.

    Raises:
        UnknownService: Several services begin so.
    """
    wanted = name.casefold()
    known = find_foreign()
    exact = [key for key in known if key.casefold() == wanted]
    matches = exact or [key for key in known if key.casefold().startswith(wanted)]
    if len(matches) > 1:
        raise UnknownService(f"several services begin with {name!r}: {', '.join(matches)}")
    return matches[0] if matches else name


def load_foreign(name: str) -> ForeignService:
    """Return the foreign service that `name` stands for (`foreign_name`).

    Raises:
        UnknownService: There is no such service, or there are several.
        BrokenService: It cannot be loaded, or is no service.
    """
    full_name = foreign_name(name)
    point = find_foreign().get(full_name)
    try:
        found = point.load() if point else _at(full_name)
    except (LookupError, ModuleNotFoundError) as error:
        if point is None:
            known = ", ".join(find_foreign()) or "none"
            raise UnknownService(f"there is no service {name!r} ({error}); known are: {known}") from None
        raise BrokenService(f"service {full_name} cannot be loaded: {error}") from None
    except Exception as error:
        raise BrokenService(
            f"service {full_name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return _checked(full_name, found)


def _at(place: str) -> Any:
    module, _, name = place.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise LookupError("it is not of the form module:Class")
    found: Any = import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise LookupError(f"{module} has no {name}")
        found = getattr(found, part)
    return found


def _checked(name: str, found: Any) -> ForeignService:
    from workflows.services.common_service import CommonService

    if isinstance(found, type) and issubclass(found, CommonService):
        return found
    raise BrokenService(f"{name} is not a class derived from workflows' CommonService")
