"""The overview: whether anything needs somebody, and where to look."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from parvis.observe.grid_scans import GridScansUnavailable
from parvis.observe.hop_table import RecipeLine
from parvis.observe.known_stories import staleness
from parvis.observe.records import RecordsError
from parvis.observe.wording import age_text
from parvis.web.live import Part, View
from parvis.web.rendering import part
from parvis.web.sources import Sources
from parvis.web.views.grid_scans import grid_line
from parvis.web.views.queues import OLD, holding
from parvis.web.views.recipes import IN_FLIGHT, TONES, recipe_line
from parvis.web.views.services import Group, service_groups

_DAY: Final = 86_400.0
_MOST_NAMED: Final = 6
_RECENT: Final = 5


def overview_view(sources: Sources) -> View:
    """What needs somebody first, then the figures, then what runs."""
    groups = service_groups(sources.broker.board.cards())
    try:
        lines = list(sources.recipes())
    except RecordsError:
        lines = None
    trouble = [
        *_broker_trouble(sources),
        *_dead_letter_trouble(sources),
        *_recipe_trouble(lines or ()),
        *_records_trouble(sources, lines or ()),
        *_service_trouble(sources, groups),
        *_queue_trouble(sources),
    ]
    words = {0: "All is well.", 1: "One thing needs a look."}
    headline = words.get(len(trouble), f"{len(trouble)} things need a look.")
    return {
        "head": [part("headline", "headline", "ok" if not trouble else "late", headline)],
        "trouble": trouble,
        "tiles": _tiles(sources, groups, lines),
        "recipes": [recipe_line(line) for line in (lines or ())[:_RECENT]],
        "scans": _scans(sources),
    }


def _broker_trouble(sources: Sources) -> list[Part]:
    if sources.broker.is_connected:
        return []
    text = f"Nothing new is known of services and queues: nobody answers at {sources.broker.where}."
    return [
        part("item", "broker", "/services", "bad", "no broker", "There is no connection to the broker", text)
    ]


def _dead_letter_trouble(sources: Sources) -> list[Part]:
    dead = [
        one.figures for one in sources.broker.traffic or () if one.figures.dead_letters and one.figures.held
    ]
    if not dead:
        return []
    count = sum(figures.held or 0 for figures in dead)
    names = ", ".join(f"{figures.held:,} in {figures.name}" for figures in dead[:_MOST_NAMED])
    title = "1 message was set aside" if count == 1 else f"{count:,} messages were set aside"
    return [part("item", "dead letters", "/dead-letters", "bad", "dead letters", title, names)]


def _recipe_trouble(lines: list[RecipeLine] | tuple[RecipeLine, ...]) -> list[Part]:
    since = time.time() - _DAY
    parts: list[Part] = []
    for state in ("stuck", "failed"):
        bad = [line for line in lines if line.story.state == state and (line.story.last or 0) > since]
        if not bad:
            continue
        title = f"1 recipe {state}" if len(bad) == 1 else f"{len(bad)} recipes {state}"
        address = f"/recipes/{bad[0].story.recipe_id}" if len(bad) == 1 else "/recipes"
        parts.append(part("item", state, address, TONES[state], state, title, bad[0].story.summary))
    return parts


def _records_trouble(sources: Sources, lines: Sequence[RecipeLine]) -> list[Part]:
    if not any(line.story.state in IN_FLIGHT for line in lines):
        return []
    try:
        note = staleness(sources.records())
    except RecordsError:
        return []
    title = "Nobody knows how recipes go on"
    return [part("item", "records", "/recipes", "late", "no collector", title, note)] if note else []


def _service_trouble(sources: Sources, groups: list[Group]) -> list[Part]:
    if sources.broker.is_connected and not groups:
        text = "No service has said anything since this page was started."
        return [part("item", "nobody", "/services", "late", "nobody", "Nobody is there", text)]
    parts: list[Part] = []
    for tone, word in (("bad", "error"), ("late", "silent")):
        few = [(group, sum(card.tone == tone for card in group.instances)) for group in groups]
        named = [f"{count} of {group.name}" for group, count in few if count]
        if named:
            title = "Services are in error" if tone == "bad" else "Services have fallen silent"
            text = ", ".join(named[:_MOST_NAMED])
            parts.append(part("item", f"services {tone}", "/services", tone, word, title, text))
    return parts


def _queue_trouble(sources: Sources) -> list[Part]:
    parts: list[Part] = []
    queues = [one.figures for one in sources.broker.traffic or () if one.figures.kind == "queue"]
    waiting = [one for one in queues if one.held and not one.dead_letters]
    alone = [one for one in waiting if one.clients == 0]
    old = [one for one in waiting if one not in alone and (one.oldest or 0) > OLD]
    if alone:
        text = ", ".join(f"{one.held:,} in {one.name}" for one in alone[:_MOST_NAMED])
        title = "Messages wait, and nobody takes them"
        parts.append(part("item", "alone", "/queues", "late", "no service", title, text))
    if old:
        text = ", ".join(f"{age_text(one.oldest or 0)} in {one.name}" for one in old[:_MOST_NAMED])
        parts.append(part("item", "old", "/queues", "late", "slow", "Messages wait for long", text))
    return parts


def _tiles(sources: Sources, groups: list[Group], lines: list[RecipeLine] | None) -> list[Part]:
    instances = sum(len(group.instances) for group in groups)
    working = sum(card.tone == "busy" for group in groups for card in group.instances)
    traffic = sources.broker.traffic
    held, oldest = holding(traffic or ())
    dead = sum(one.figures.held or 0 for one in traffic or () if one.figures.dead_letters)
    flying = None if lines is None else sum(line.story.state in IN_FLIGHT for line in lines)
    return [
        part(
            "tile", "services", "/services", f"{instances:,}", "instances",
            f"of {len(groups)} services, {working} at work",
        ),
        part(
            "tile", "queues", "/queues", "?" if traffic is None else f"{held:,}", "messages wait",
            f"the oldest for {age_text(oldest)}" if held and oldest >= 1 else "",
        ),
        part(
            "tile", "recipes", "/recipes", "?" if flying is None else f"{flying:,}", "recipes in flight",
            "" if lines is not None else "nobody keeps records",
        ),
        part(
            "tile", "dead", "/dead-letters", "?" if traffic is None else f"{dead:,}", "dead letters",
            "", "bad" if dead else "",
        ),
    ]  # fmt: skip


def _scans(sources: Sources) -> list[Part]:
    try:
        return [grid_line(scan) for scan in sources.grid_scans().recent(3)]
    except GridScansUnavailable:
        return []
