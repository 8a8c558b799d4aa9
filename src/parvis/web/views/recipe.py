"""One recipe: how it stands, its picture with live counts, its time line, what failed, how it began."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from markupsafe import Markup

from parvis.observe import hop_table, known_stories
from parvis.observe.cards import short_host
from parvis.observe.hops import REQUEST, Hop, Started
from parvis.observe.records import RecordsError
from parvis.observe.story import Story
from parvis.observe.story_notes import notes_of
from parvis.observe.wording import clock_text, duration_text
from parvis.recipe.draw import to_svg
from parvis.recipe.graph import Recipe
from parvis.recipe.problem import RecipeError
from parvis.recipe.watch import without_watchers
from parvis.web.live import Part, View
from parvis.web.rendering import part
from parvis.web.sources import Sources
from parvis.web.views.recipes import TONES, without_state

_MOST_HOPS: Final = 150
_MOST_FAILURES: Final = 20
_LONGEST_SECTION: Final = 20_000
_SCALE: Final = 1000.0


@dataclass(frozen=True, slots=True)
class ShownNode:
    """A node in the time line; `left` and `width` in thousandths of the whole time."""

    name: str
    state: str
    left: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class ShownHop:
    """A handling in the list; times in seconds since 1970, `queued` and `took` as text."""

    begun: float
    node: str
    service: str
    host: str
    queued: str
    took: str
    result: str
    tone: str
    reason: str


def recipe_view(sources: Sources, recipe_id: str) -> View:
    """One recipe, by its ID."""
    try:
        story, hops = story_and_hops(sources, recipe_id)
    except RecordsError as error:
        return _nothing(part("said", "problem", "late", f"What recipes do is not known: {error}"))
    if not hops and story.started is None:
        text = f"Nobody has reported anything of recipe {recipe_id}, or it is no longer kept."
        return _nothing(part("said", "unknown", "late", text))
    return {
        "head": [_head(story), *(part("said", note, "late", note) for note in story.notes)],
        "graph": [_graph(story)],
        "links": [part("recipe_links", recipe_id, recipe_id, _grid_scan(story.started))],
        "failures": [_failure(hop) for hop in story.failures[:_MOST_FAILURES]],
        "times": [part("time_line", "nodes", _time_line(story), _span(story))],
        "hops": [part("hop_table", "hops", [_shown(hop) for hop in hops], story.hops)],
        "sections": _sections(story.started),
    }


def story_and_hops(sources: Sources, recipe_id: str) -> tuple[Story, list[Hop]]:
    """Return the story of a recipe, and its hops: if there are many, some of them.

    Raises:
        RecordsError: There are no records, or none that can be read.
    """
    records = sources.records()
    with records.reading() as database:
        story = known_stories.story(records, database, recipe_id, sources.stuck_after)
        return story, hop_table.timeline(database, recipe_id, most=_MOST_HOPS)


def _nothing(said: Part) -> View:
    names = ("graph", "links", "failures", "times", "hops", "sections")
    return {"head": [said], **dict.fromkeys(names, ())}


def _head(story: Story) -> Part:
    since = None if story.since is None else float(int(story.since))
    return part("state", story.recipe_id, story.state, TONES[story.state], without_state(story), since)


def _graph(story: Story) -> Part:
    if story.started is None:
        return part("said", "no graph", "", "The recipe itself is not known, so there is no picture of it.")
    try:
        recipe = Recipe.from_dict(without_watchers(story.started.recipe))
        picture = to_svg(recipe, notes_of(story))
    except RecipeError as error:
        return part("said", "no graph", "late", f"The recipe cannot be drawn: {error}")
    return part("graph", story.recipe_id, Markup(picture))  # noqa: S704 - drawn by us, with all texts escaped


def _time_line(story: Story) -> list[ShownNode]:
    begun, end = _span(story)
    length = max(end - begun, 1e-3)
    shown: list[ShownNode] = []
    for node in sorted(story.nodes.values(), key=lambda node: (node.first or end, node.node)):
        if node.first is None or node.last is None:
            continue
        left = _SCALE * (node.first - begun) / length
        width = max(_SCALE * (node.last - node.first) / length, 4.0)
        name = "the dispatcher" if node.node == REQUEST else f"{node.node} {node.service or node.queue}"
        took, longest = duration_text(node.seconds), duration_text(node.longest)
        text = f"{node.hops:,} handled in {took}, the longest in {longest}"
        if node.again:
            text += f", {node.again:,} tried again"
        shown.append(ShownNode(name, node.state, min(left, _SCALE - 4.0), width, text))
    return shown


def _span(story: Story) -> tuple[float, float]:
    """From the beginning to the end; to now, in whole seconds, if there is more to come."""
    last = story.last or story.begun or 0.0
    begun = story.begun if story.begun is not None else last
    return begun, last if story.is_over else max(last, float(int(time.time()) + 1))


def _shown(hop: Hop) -> ShownHop:
    node = "dispatcher" if hop.node == REQUEST else str(hop.node)
    tone = {"done": "ok", "duplicate": "ok", "retry": "late"}.get(hop.result, "bad")
    return ShownHop(
        begun=hop.begun,
        node=node,
        service=hop.service,
        host=short_host(hop.host),
        queued=duration_text(max(0.0, hop.begun - hop.sent_at)),
        took=duration_text(hop.seconds),
        result=hop.result if hop.tries <= 1 else f"{hop.result}, try {hop.tries}",
        tone=tone,
        reason=hop.reason,
    )


def _failure(hop: Hop) -> Part:
    where = "the dispatcher" if hop.node == REQUEST else f"node {hop.node}"
    title = f"{hop.result} at {where} by {hop.service}, {clock_text(hop.ended)}"
    return part(
        "failure", f"{hop.node} {hop.identity}", title, hop.reason or "No reason was given.", hop.trace
    )


def _grid_scan(started: Started | None) -> str:
    """The data collection of a recipe with a grid; nothing for any other."""
    if started is None:
        return ""
    nodes = [cast("dict[str, Any]", node) for node in started.recipe.values() if isinstance(node, dict)]
    for node in nodes:
        parameters: Any = node.get("parameters")
        if node.get("gridinfo") and isinstance(parameters, dict):
            dcid = str(cast("dict[str, Any]", parameters).get("dcid", ""))
            return dcid if dcid.isascii() and dcid.isdecimal() and len(dcid) <= 10 else ""
    return ""


def _sections(started: Started | None) -> Sequence[Part]:
    """What it was started with: the request as it came in, and what the dispatcher made of it."""
    if started is None:
        return ()
    contents: Mapping[str, Any] = {
        "Incoming header": dict(started.header),
        "Incoming message": started.message,
        "Parsed parameters": started.parameters,
        "Filled recipe": dict(started.recipe),
    }
    return [part("section", name, name, _pretty(content)) for name, content in contents.items()]


def _pretty(content: Any) -> str:
    text = orjson.dumps(content, option=orjson.OPT_INDENT_2, default=str).decode()
    return (
        text if len(text) <= _LONGEST_SECTION else f"{text[:_LONGEST_SECTION]}\n… ({len(text):,} characters)"
    )
