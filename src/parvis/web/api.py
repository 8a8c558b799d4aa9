"""The same for programs: JSON under `/api`."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import get
from litestar.exceptions import NotFoundException, ServiceUnavailableException, ValidationException
from litestar.params import FromPath

from parvis.observe.grid_scans import GridScansUnavailable
from parvis.observe.log_record import LEVELS
from parvis.observe.log_source import SourceError
from parvis.observe.records import RecordsError
from parvis.transport.base import TransportError
from parvis.web.site import AnyRequest, SiteDependency
from parvis.web.views.logs import SINCE, LogAsked
from parvis.web.views.recipe import story_and_hops


@get("/api/services")
async def services(site: SiteDependency) -> dict[str, Any]:
    """Who is there."""
    board = site.sources.broker.board
    return {"services": [card.to_json() for card in board.cards()], "ignored": board.ignored}


@get("/api/queues")
async def queues(site: SiteDependency) -> dict[str, Any]:
    """What waits where."""
    broker = site.sources.broker
    if broker.traffic is None:
        raise ServiceUnavailableException(broker.problem or "The queues were not looked at yet.")
    return {"queues": [one.to_json() for one in broker.traffic], "problem": broker.problem}


@get("/api/recipes")
async def recipes(site: SiteDependency) -> dict[str, Any]:
    """What runs, and what ran."""
    try:
        lines = await asyncio.to_thread(site.sources.recipes)
    except RecordsError as error:
        raise ServiceUnavailableException(str(error)) from None
    return {
        "recipes": [
            line.story.to_json() | {"recipes": line.recipes, "dcid": line.dcid, "user": line.user}
            for line in lines
        ]
    }


@get("/api/recipes/{recipe_id:str}")
async def recipe(site: SiteDependency, recipe_id: FromPath[str]) -> dict[str, Any]:
    """One recipe."""
    try:
        story, _ = await asyncio.to_thread(story_and_hops, site.sources, recipe_id)
    except RecordsError as error:
        raise ServiceUnavailableException(str(error)) from None
    if not story.hops and story.started is None:
        raise NotFoundException("Nobody has reported anything of this recipe.")
    return story.to_json()


@get("/api/grid-scans")
async def grid_scans(site: SiteDependency) -> dict[str, Any]:
    """The newest grid scans."""
    try:
        scans = await asyncio.to_thread(lambda: site.sources.grid_scans().recent(30))
    except GridScansUnavailable as error:
        raise ServiceUnavailableException(str(error)) from None
    return {"grid_scans": [scan.to_json() for scan in scans]}


@get("/api/grid-scans/{dcid:int}")
async def grid_scan(site: SiteDependency, dcid: FromPath[int]) -> dict[str, Any]:
    """One grid scan with its counts."""
    if site.maker(f"grid-scans/{dcid}") is None:
        raise NotFoundException("That cannot be a data collection.")
    try:
        scan = await asyncio.to_thread(lambda: site.sources.grid_scans().scan(dcid))
    except GridScansUnavailable as error:
        raise ServiceUnavailableException(str(error)) from None
    if scan is None:
        raise NotFoundException(f"Data collection {dcid} is no grid scan that could be shown.")
    return scan.to_json()


@get("/api/dead-letters")
async def dead_letters(site: SiteDependency) -> dict[str, Any]:
    """What nobody could handle."""
    try:
        listing = await asyncio.to_thread(site.sources.broker.dead_letters)
    except TransportError as error:
        raise ServiceUnavailableException(str(error)) from None
    return {
        "letters": [letter.to_json() for letter in listing.letters],
        "held": dict(listing.held),
        "problems": dict(listing.problems),
    }


@get("/api/logs")
async def logs(request: AnyRequest, site: SiteDependency) -> dict[str, Any]:
    """Log records; parameters as on the page, but for what is none."""
    for name, known in (("level", LEVELS), ("since", SINCE)):
        if request.query_params.get(name, "").strip() not in ("", *known):
            raise ValidationException(f"{name} is one of {', '.join(known)}.")
    try:
        query = LogAsked.of(request.query_params).query()
        found = await asyncio.to_thread(site.sources.search_logs, query)
    except ValueError as error:
        raise ValidationException(str(error)) from None
    except SourceError as error:
        raise ServiceUnavailableException(str(error)) from None
    return {"records": [record.to_json() for record in found]}
