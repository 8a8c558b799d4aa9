"""The web page as one thing: what it is made of, and how a page becomes HTML."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.response import Template

from parvis import __version__
from parvis.web.live import Live, View
from parvis.web.settings import WebSettings
from parvis.web.sources import Sources
from parvis.web.users import Users
from parvis.web.views.dead_letters import dead_letters_view
from parvis.web.views.grid_scans import grid_scan_view, grid_scans_view
from parvis.web.views.overview import overview_view
from parvis.web.views.queues import queues_view
from parvis.web.views.recipe import recipe_view
from parvis.web.views.recipes import recipes_view
from parvis.web.views.services import service_view, services_view

AnyRequest: TypeAlias = Request[Any, Any, Any]

PAGES: Final = (
    ("/", "Overview"),
    ("/services", "Services"),
    ("/queues", "Queues"),
    ("/recipes", "Recipes"),
    ("/grid-scans", "Grid scans"),
    ("/dead-letters", "Dead letters"),
    ("/logs", "Logs"),
)
"""What is in the menu: address and name."""

_VIEWS: Final[Mapping[str, Callable[[Sources], View]]] = {
    "overview": overview_view,
    "services": services_view,
    "recipes": recipes_view,
    "queues": queues_view,
    "grid-scans": grid_scans_view,
    "dead-letters": dead_letters_view,
}
# Anything may be a recipe ID; ours are UUIDs.
_SERVICE = re.compile(r"service-[0-9a-f]{16}")
_RECIPE_ID = re.compile(r"[\w.:+@-]{1,200}", re.ASCII)


class Site:
    """Everything that handlers of requests need.

    Attributes:
        sources: What pages are made of.
        live: Who watches what.
        users: Who may do more than look.
        acting: Held while dead letters are moved: one who does that at a time.
    """

    def __init__(self, sources: Sources, settings: WebSettings) -> None:
        self.sources = sources
        self.live = Live()
        self.users = Users(settings.users)
        self.acting = asyncio.Lock()

    def user(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
        """Return who has logged in where a request comes from, or None."""
        session: Any = cast("dict[str, Any]", connection.scope).get("session")
        return self.users.user_of(session) if isinstance(session, dict) else None  # pyright: ignore[reportUnknownArgumentType]

    def maker(self, key: str) -> Callable[[], View] | None:
        """Return what makes the view of this name, such as `grid-scans/4077358`; None if there is none."""
        if key in _VIEWS:
            return lambda: _VIEWS[key](self.sources)
        kind, _, rest = key.partition("/")
        if kind == "grid-scans" and rest.isascii() and rest.isdecimal() and len(rest) <= 10:
            return lambda: grid_scan_view(self.sources, int(rest))
        if kind == "services" and _SERVICE.fullmatch(rest):
            return lambda: service_view(self.sources, rest)
        if kind == "recipes" and _RECIPE_ID.fullmatch(rest):
            return lambda: recipe_view(self.sources, rest)
        return None

    async def live_page(
        self,
        request: AnyRequest,
        key: str,
        heading: str,
        sections: Sequence[tuple[str, str, str]],
        back: tuple[str, str] | None = None,
    ) -> Template:
        """Return a page that is kept up to date.

        Args:
            request: Who asks.
            key: Name of the view.
            heading: Of the page.
            sections: For each list of parts its name in the view, its class, and its heading or nothing.
            back: Address and name of the page above.
        """
        make = self.maker(key)
        assert make is not None  # noqa: S101 - handlers name views that there are
        view = self.live.latest(key) or await asyncio.to_thread(make)
        return self.page(
            request, "view.html", live=key, heading=heading, sections=sections, view=view, back=back
        )

    def page(
        self,
        request: AnyRequest,
        template: str,
        *,
        live: str = "",
        status_code: int = 200,
        **context: Any,
    ) -> Template:
        """Return a page: a template with what all of them need."""
        path = request.url.path
        here = "/" + path.strip("/").partition("/")[0]
        common = {
            "user": self.user(request),
            "has_users": bool(self.users),
            "pages": PAGES,
            "here": here,
            "here_path": f"{path}?{request.url.query}" if request.url.query else path,
            "now": round(time.time(), 3),
            "broker": self.sources.broker.where,
            "version": __version__,
            "live": live,
        }
        return Template(template, context=common | context, status_code=status_code)


SiteDependency: TypeAlias = NamedDependency[Site]
"""What a handler of requests declares so that it is given the site."""
