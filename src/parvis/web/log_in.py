"""Logging in and out, and who may do more than look."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import quote

from litestar import get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.response import Redirect, Template

from parvis.recipe.problem import printable
from parvis.web.site import AnyRequest, Site, SiteDependency

log = logging.getLogger("parvis.web")

ATTEMPTS = 10
"""So many attempts to log in are let through a minute from one address."""

_limit = RateLimitConfig(rate_limit=("minute", ATTEMPTS), set_rate_limit_headers=False)


def signed_in(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard of what only those may do who have logged in.

    Raises:
        NotAuthorizedException: The request comes from nobody.
    """
    site: Site = connection.app.state.site
    if site.user(connection) is None:
        raise NotAuthorizedException("Log in first.")


def log_in_address(wanted: str) -> str:
    """Return the address of the page for logging in, from where one gets to `wanted`."""
    return f"/log-in?next={quote(wanted)}"


@get("/log-in")
async def show_log_in(request: AnyRequest, site: SiteDependency) -> Template:
    """The page for logging in."""
    wanted = _own_path(request.query_params.get("next", "/"))
    return site.page(request, "log_in.html", next=wanted, name="", problem="")


@post("/log-in", middleware=[_limit.middleware], status_code=200)
async def log_in(request: AnyRequest, site: SiteDependency) -> Template | Redirect:
    """Take a name and a password."""
    form = await request.form()
    name, password, wanted = (str(form.get(key, "")) for key in ("name", "password", "next"))
    if await asyncio.to_thread(site.users.are_right, name, password):
        request.set_session(site.users.new_session(name))  # pyright: ignore[reportUnknownMemberType]
        log.info("%s has logged in from %s", name, _address(request))
        return Redirect(_own_path(wanted), status_code=303)
    log.warning("refused to let %r log in from %s", printable(name), _address(request))
    problem = "That is not the name and password of anybody who may log in here."
    return site.page(
        request, "log_in.html", status_code=401, next=_own_path(wanted), name=name[:64], problem=problem
    )


@post("/log-out", status_code=303)
async def log_out(request: AnyRequest, site: SiteDependency) -> Redirect:
    """Forget who it was."""
    user = site.user(request)
    site.users.end(request.session)
    request.clear_session()
    if user is not None:
        log.info("%s has logged out", user)
    return Redirect("/", status_code=303)


def _own_path(wanted: str) -> str:
    """A path of this site, and the front page for anything else: anybody may make an address with it."""
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_ours and "\\" not in wanted and wanted.isascii() else "/"


def _address(request: AnyRequest) -> str:
    return request.client.host if request.client else "?"
