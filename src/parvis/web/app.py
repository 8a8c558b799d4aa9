"""The application that a server runs: routes, sessions, protection against forged requests, errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from litestar import Litestar, MediaType, Response
from litestar.config.allowed_hosts import AllowedHostsConfig
from litestar.config.csrf import CSRFConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Redirect
from litestar.static_files import create_static_files_router  # pyright: ignore[reportUnknownVariableType] - no types for headers
from litestar.stores.memory import MemoryStore
from litestar.template import TemplateConfig
from litestar.types import ASGIApp

from parvis.web import actions, api, dead_letter_actions, log_in, pages
from parvis.web.headers import StrictHeaders
from parvis.web.rendering import environment
from parvis.web.sessions import SessionCookies
from parvis.web.settings import WebSettings
from parvis.web.site import AnyRequest, Site
from parvis.web.users import SESSION_SECONDS

log = logging.getLogger("parvis.web")

_STATIC: Final = Path(__file__).parent / "static"
_LARGEST_BODY: Final = 64 * 1024
_TIDY_EVERY: Final = 300.0


def make_app(site: Site, settings: WebSettings, hosts: Sequence[str], *, secure: bool) -> ASGIApp:
    """Return the application.

    Args:
        site: What it shows.
        settings: Its secret.
        hosts: What a browser may call this server (`Host`): name or name and port.
        secure: Browsers reach it by HTTPS, so that cookies are to travel in no other way.
    """
    session = SessionCookies(
        secret=settings.key(b"session"),
        key="parvis-session",
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=secure,
        exclude=["^/static/", "^/live/"],
    )
    csrf = CSRFConfig(
        secret=settings.key(b"forms").hex(),
        cookie_name="parvis-form",
        cookie_httponly=True,
        cookie_samesite="strict",
        cookie_secure=secure,
        exclude=["^/static/", "^/live/", "^/api/"],
    )
    app = Litestar(
        route_handlers=[
            pages.overview,
            pages.recipes,
            pages.recipe,
            pages.services,
            pages.service,
            pages.queues,
            pages.grid_scans,
            pages.grid_scan,
            pages.dead_letters,
            pages.logs,
            pages.live,
            actions.show_stop,
            actions.stop,
            dead_letter_actions.show_reinject,
            dead_letter_actions.send_in_again,
            dead_letter_actions.show_purge,
            dead_letter_actions.remove,
            api.services,
            api.queues,
            api.recipes,
            api.recipe,
            api.grid_scans,
            api.grid_scan,
            api.dead_letters,
            api.logs,
            log_in.show_log_in,
            log_in.log_in,
            log_in.log_out,
            create_static_files_router("/static", [_STATIC]),
        ],
        middleware=[session.middleware],
        csrf_config=csrf,
        allowed_hosts=AllowedHostsConfig(allowed_hosts=list(hosts)),
        template_config=TemplateConfig(instance=JinjaTemplateEngine.from_environment(environment())),
        dependencies={"site": Provide(lambda: site, sync_to_thread=False)},
        exception_handlers={HTTPException: _say, Exception: _say},
        state=State({"site": site}),
        lifespan=[_running],
        request_max_body_size=_LARGEST_BODY,
        openapi_config=None,
        logging_config=None,
    )
    return StrictHeaders(app)


@asynccontextmanager
async def _running(app: Litestar) -> AsyncGenerator[None]:
    """Hear of what goes on while the server runs."""
    site: Site = app.state.site
    site.sources.start()
    tidying = asyncio.create_task(_tidy(app))
    try:
        yield
    finally:
        tidying.cancel()
        await asyncio.to_thread(site.sources.stop)


async def _tidy(app: Litestar) -> None:
    """Forget attempts to log in that count no more."""
    attempts = MemoryStore()
    app.stores.register("rate_limit", attempts)
    while True:
        await asyncio.sleep(_TIDY_EVERY)
        await attempts.delete_expired()


def _say(request: AnyRequest, error: Exception) -> Response[Any]:
    """Say what went wrong: as a page, or as JSON to a program."""
    code = error.status_code if isinstance(error, HTTPException) else 500
    if code == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("cannot answer %s", request.url.path, exc_info=error)
    # Why something is away just now is said by us, and what failed unforeseen by anybody.
    is_foreseen = code != HTTPStatus.INTERNAL_SERVER_ERROR
    text = error.detail if isinstance(error, HTTPException) and is_foreseen else ""
    text = text or {404: "There is no such page."}.get(code, "The log of the web page says more.")
    if request.url.path.startswith("/api/"):
        return Response({"error": text}, status_code=code, media_type=MediaType.JSON)
    if isinstance(error, NotAuthorizedException) and request.method == "GET":
        return Redirect(log_in.log_in_address(request.url.path), status_code=303)
    site: Site = request.app.state.site
    heading = HTTPStatus(code).phrase if code in HTTPStatus.__members__.values() else "That did not work"
    return site.page(request, "problem.html", status_code=code, heading=heading, text=text)
