"""Sending dead letters in again, and removing them once they are in files, for those who have logged in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from litestar import get, post
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.response import Template

from parvis.observe.dead_letter_search import grouped
from parvis.observe.dead_letters import DeadLetter
from parvis.recipe.problem import printable
from parvis.steer.dead_letters import Done, purge, reinject
from parvis.steer.preview import Prospect, preview, summary
from parvis.transport.base import TransportError
from parvis.web.log_in import signed_in
from parvis.web.site import AnyRequest, Site, SiteDependency
from parvis.web.views.dead_letters import group_key

log = logging.getLogger("parvis.web.actions")

LOCATION: Final = "zocalo.dlq.purge_location"
"""Key of the storage: the directory for dead letters that are removed."""

_PAGE: Final = ("/dead-letters", "Dead letters")
_PREVIEWED: Final = 50


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The dead letters that somebody means, and the form fields that name them."""

    letters: Sequence[DeadLetter]
    fields: Sequence[tuple[str, str]]

    @property
    def text(self) -> str:
        """How many, for people."""
        return "1 dead letter" if len(self.letters) == 1 else f"{len(self.letters):,} dead letters"


@get("/dead-letters/reinject", guards=[signed_in])
async def show_reinject(request: AnyRequest, site: SiteDependency) -> Template:
    """What sending dead letters in again will do."""
    chosen = await asyncio.to_thread(_chosen, site, dict(request.query_params))
    prospects = await asyncio.to_thread(_prospects, site, chosen.letters[:_PREVIEWED])
    targets = [f"{count:,} to {queue or 'nowhere'}" for queue, count in summary(prospects).items()]
    more = len(chosen.letters) - len(prospects)
    return site.page(
        request,
        "confirm.html",
        heading="Send in again",
        question=f"Send {chosen.text} in again?",
        explanation=f"They go {', '.join(targets)}{f', and {more:,} more' if more else ''}: each in one "
        "transaction with leaving its queue, so that none is lost.",
        remarks=_remarks(prospects),
        fields=chosen.fields,
        action="/dead-letters/reinject",
        button="Send in again",
        back=_PAGE,
    )


@post("/dead-letters/reinject", guards=[signed_in], status_code=200)
async def send_in_again(request: AnyRequest, site: SiteDependency) -> Template:
    """Send dead letters in again."""
    chosen = await _chosen_in_form(request, site)

    def told(done: Done) -> None:
        log.warning("%s has sent dead letter %s to %s", site.user(request), _named(done), done.queue)

    missing = await _do(site, lambda: reinject(site.sources.broker.transport, chosen.letters, told))
    return _done(request, site, chosen, missing, "sent in again")


@get("/dead-letters/purge", guards=[signed_in])
async def show_purge(request: AnyRequest, site: SiteDependency) -> Template:
    """What removing dead letters means."""
    chosen = await asyncio.to_thread(_chosen, site, dict(request.query_params))
    return site.page(
        request,
        "confirm.html",
        heading="Remove",
        question=f"Keep {chosen.text} in files, and remove from the broker?",
        explanation=f"Each is written to a file in {_directory(site)} first. `parvis dlq reinject` sends "
        "such files in again.",
        remarks=(),
        fields=chosen.fields,
        action="/dead-letters/purge",
        button="Keep and remove",
        back=_PAGE,
    )


@post("/dead-letters/purge", guards=[signed_in], status_code=200)
async def remove(request: AnyRequest, site: SiteDependency) -> Template:
    """Write dead letters to files and remove them."""
    chosen = await _chosen_in_form(request, site)
    directory = _directory(site)

    def told(done: Done) -> None:
        log.warning("%s has removed dead letter %s, kept in %s", site.user(request), _named(done), done.file)

    missing = await _do(
        site,
        lambda: purge(site.sources.broker.transport, chosen.letters, directory, told),
    )
    return _done(request, site, chosen, missing, f"kept in {directory} and removed")


async def _do(site: Site, act: Callable[[], Sequence[DeadLetter]]) -> Sequence[DeadLetter]:
    async with site.acting:
        try:
            return await asyncio.to_thread(act)
        except (TransportError, OSError) as error:
            raise ServiceUnavailableException(f"Not all of it was done: {error}") from None
        finally:
            await asyncio.to_thread(site.sources.broker.look_again)


def _done(
    request: AnyRequest, site: Site, chosen: _Chosen, missing: Sequence[DeadLetter], what: str
) -> Template:
    count = len(chosen.letters) - len(missing)
    text = f"{count:,} dead {'letter was' if count == 1 else 'letters were'} {what}."
    if missing:
        text += f" {len(missing):,} had gone meanwhile."
    return site.page(request, "done.html", heading="Dead letters", text=text, back=_PAGE)


def _chosen(site: Site, asked: dict[str, str]) -> _Chosen:
    try:
        letters = site.sources.broker.dead_letters().letters
    except TransportError as error:
        raise ServiceUnavailableException(f"Dead letters cannot be looked at: {error}") from None
    if asked.get("group"):
        found = [group for group in grouped(letters) if group_key(group) == asked["group"]]
        members: Sequence[DeadLetter] = found[0].letters if found else ()
        fields = [("group", asked["group"])]
    else:
        key = (asked.get("queue", ""), asked.get("letter", ""))
        members = [letter for letter in letters if letter.key == key]
        fields = [("queue", key[0]), ("letter", key[1])]
    if not members:
        raise NotFoundException("These dead letters are not there any more.")
    return _Chosen(members, fields)


async def _chosen_in_form(request: AnyRequest, site: Site) -> _Chosen:
    form = await request.form()
    return await asyncio.to_thread(_chosen, site, {name: str(value) for name, value in form.items()})


def _prospects(site: Site, letters: Sequence[DeadLetter]) -> list[Prospect]:
    broker = site.sources.broker
    figures = None if broker.traffic is None else [one.figures for one in broker.traffic]
    try:
        namespace = broker.transport.namespace
    except TransportError as error:
        raise ServiceUnavailableException(str(error)) from None
    return [preview(letter, site.sources.config, namespace, figures) for letter in letters]


def _remarks(prospects: Sequence[Prospect]) -> list[tuple[str, str]]:
    """What stands in the way or should be known, each once, with its tone."""
    remarks: dict[tuple[str, str], int] = {}
    for one in prospects:
        for tone, texts in (("bad", one.obstacles), ("late", one.warnings)):
            for text in texts:
                remarks[tone, text] = remarks.get((tone, text), 0) + 1
    return [(tone, f"{count} x {text}" if count > 1 else text) for (tone, text), count in remarks.items()]


def _directory(site: Site) -> Path:
    config = site.sources.config
    configured = config.storage.get(LOCATION)
    place = Path(str(configured)).expanduser() if configured else config.state_directory / "dead-letters"
    return place.absolute()


def _named(done: Done) -> str:
    return printable(f"{done.letter.identity} of {done.letter.queue}", 300)
