"""The pages that anybody may look at, and what keeps them up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from litestar import get
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.params import FromPath
from litestar.response import ServerSentEvent, ServerSentEventMessage, Template

from parvis.config import ConfigError
from parvis.observe.log_record import LEVELS
from parvis.observe.log_source import SourceError
from parvis.web.live import MOST_WATCHERS
from parvis.web.rendering import harmless
from parvis.web.site import AnyRequest, SiteDependency
from parvis.web.views.logs import MOST, SINCE, LogAsked, shown_records
from parvis.web.views.services import find_group


@get("/")
async def overview(request: AnyRequest, site: SiteDependency) -> Template:
    """Whether anything needs somebody."""
    sections = [
        ("head", "head", ""),
        ("trouble", "items", ""),
        ("tiles", "tiles", ""),
        ("recipes", "items", "Recipes of late"),
        ("scans", "items", "Newest grid scans"),
    ]
    return await site.live_page(request, "overview", "Overview", sections)


@get("/recipes")
async def recipes(request: AnyRequest, site: SiteDependency) -> Template:
    """What runs, and what ran."""
    sections = [("head", "head", ""), ("flying", "items", "In flight"), ("over", "items", "Of late")]
    return await site.live_page(request, "recipes", "Recipes", sections)


@get("/recipes/{recipe_id:str}")
async def recipe(request: AnyRequest, site: SiteDependency, recipe_id: FromPath[str]) -> Template:
    """One recipe."""
    key = f"recipes/{recipe_id}"
    if site.maker(key) is None:
        raise NotFoundException("That cannot be a recipe ID.")
    sections = [
        ("head", "head", ""),
        ("failures", "letters", ""),
        ("graph", "picture", ""),
        ("links", "links", ""),
        ("times", "times", "Time line"),
        ("hops", "hops", ""),
        ("sections", "sections", "What it began with"),
    ]
    back = ("/recipes", "Recipes")
    return await site.live_page(request, key, f"Recipe {recipe_id[:8]}", sections, back)


@get("/services")
async def services(request: AnyRequest, site: SiteDependency) -> Template:
    """Who is there."""
    sections = [("head", "head", ""), ("services", "cards", "")]
    return await site.live_page(request, "services", "Services", sections)


@get("/services/{key:str}")
async def service(request: AnyRequest, site: SiteDependency, key: FromPath[str]) -> Template:
    """One service with its instances."""
    view = f"services/{key}"
    if site.maker(view) is None:
        raise NotFoundException("There is no such service.")
    group = find_group(site.sources, key)
    sections = [
        ("head", "head", ""),
        ("instances", "items", ""),
        ("actions", "links", ""),
        ("handled", "recent", "Handled last"),
    ]
    heading = harmless(group.name) if group is not None else "A service that is gone"
    return await site.live_page(request, view, heading, sections, back=("/services", "Services"))


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


@get("/dead-letters")
async def dead_letters(request: AnyRequest, site: SiteDependency) -> Template:
    """What nobody could handle."""
    sections = [("head", "head", ""), ("groups", "letters", "")]
    return await site.live_page(request, "dead-letters", "Dead letters", sections)


@get("/logs")
async def logs(request: AnyRequest, site: SiteDependency) -> Template:
    """Log records that answer to a question."""
    asked = LogAsked.of(request.query_params)
    problem, records = "", None
    if request.query_params:
        try:
            records = shown_records(await asyncio.to_thread(site.sources.search_logs, asked.query()))
        except (ValueError, ConfigError, *SourceError) as error:
            problem = f"The log cannot be searched: {error}"
    spans = [(name, words) for name, (words, _) in SINCE.items()]
    choices = {"levels": LEVELS, "spans": spans, "most": MOST}
    return site.page(request, "logs.html", asked=asked, records=records, problem=problem, choices=choices)


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
