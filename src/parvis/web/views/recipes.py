"""Recipes: those in flight and those of late, how each stands and since when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parvis.observe.hop_table import RecipeLine
from parvis.observe.known_stories import staleness
from parvis.observe.records import RecordsError
from parvis.observe.story import Story
from parvis.web.live import Part, View
from parvis.web.rendering import part, short
from parvis.web.sources import Sources

TONES: Final = {
    "running": "busy",
    "waiting": "idle",
    "stuck": "late",
    "finished": "ok",
    "failed": "bad",
    "unknown": "off",
}
"""How a state looks."""
IN_FLIGHT: Final = frozenset({"running", "waiting", "stuck"})


@dataclass(frozen=True, slots=True)
class ShownRecipe:
    """A recipe in a list; `since` in seconds since 1970."""

    recipe_id: str
    state: str
    tone: str
    title: str
    text: str
    since: float | None


def recipes_view(sources: Sources) -> View:
    """The recipes that were heard of last."""
    try:
        lines = sources.recipes()
        note = staleness(sources.records())
    except RecordsError as error:
        text = f"What recipes do is not known: {error}"
        return {"head": [part("said", "problem", "late", text)], "flying": [], "over": []}
    flying = [recipe_line(line) for line in lines if line.story.state in IN_FLIGHT]
    over = [recipe_line(line) for line in lines if line.story.state not in IN_FLIGHT]
    return {
        "head": [part("said", "note", "late", note)] if note and flying else [],
        "flying": flying or [part("said", "none flying", "", "No recipe is in flight.")],
        "over": over or [part("said", "none over", "", "None yet.")],
    }


def without_state(story: Story) -> str:
    """Return how a recipe stands, in a sentence that is to follow the word for its state."""
    begun, mark, rest = story.summary.partition(": ")
    return rest if mark and begun.casefold() == story.state else story.summary


def recipe_line(line: RecipeLine) -> Part:
    """A recipe in a list."""
    story = line.story
    whom = f", {line.user}" if line.user else ""
    subject = f" of {line.dcid}" if line.dcid else ""
    shown = ShownRecipe(
        recipe_id=story.recipe_id,
        state=story.state,
        tone=TONES[story.state],
        title=f"{line.recipes or 'recipe'}{subject}",
        text=f"{without_state(story)} ({short(story.recipe_id)}{whom})",
        since=None if story.since is None else float(int(story.since)),
    )
    return part("recipe_line", story.recipe_id, shown)
