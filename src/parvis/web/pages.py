"""The pages that anybody may look at, and what keeps them up to date."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from litestar import get
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.params import FromPath
from litestar.response import ServerSentEvent, ServerSentEventMessage, Template

from parvis.web.live import MOST_WATCHERS
from parvis.web.site import AnyRequest, SiteDependency


@get("/services")
async def services(request: AnyRequest, site: SiteDependency) -> Template:
    """Who is there."""
    sections = [("head", "head", ""), ("services", "cards", "")]
    return await site.live_page(request, "services", "Services", sections)


@get("/queues")
async def queues(request: AnyRequest, site: SiteDependency) -> Template:
    """What waits where."""
    sections = [("head", "head", ""), ("queues", "queues", "")]
    return await site.live_page(request, "queues", "Queues", sections)


@get("/grid-scans")
async def grid_scans(request: AnyRequest, site: SiteDependency) -> Template:
    """The newest grid scans."""
    return await site.live_page(request, "grid-scans", "Grid scans", [("scans", "items", "")])


@get("/grid-scans/{dcid:int}")
async def grid_scan(request: AnyRequest, site: SiteDependency, dcid: FromPath[int]) -> Template:
    """The heat map of a grid scan."""
    key = f"grid-scans/{dcid}"
    if site.maker(key) is None:
        raise NotFoundException(f"There is no data collection {dcid}.")
    sections = [("head", "head", ""), ("map", "map", "")]
    back = ("/grid-scans", "Grid scans")
    return await site.live_page(request, key, f"Grid scan {dcid}", sections, back)


@get("/live/{key:path}")
async def live(site: SiteDependency, key: FromPath[str]) -> ServerSentEvent:
    """What changes on a page, as it changes: server-sent events `view`."""
    name = key.strip("/")
    make = site.maker(name)
    if make is None:
        raise NotFoundException("There is no such view.")
    if site.live.watchers >= MOST_WATCHERS:
        raise ServiceUnavailableException("Too many browsers watch already.")

    async def events() -> AsyncGenerator[ServerSentEventMessage]:
        yield ServerSentEventMessage(data=None, retry=3000)
        async for news in site.live.watch(name, make):
            if news is None:
                yield ServerSentEventMessage(data=None, comment="still here")
            else:
                yield ServerSentEventMessage(data=news, event="view")

    return ServerSentEvent(events())
