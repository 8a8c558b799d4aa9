"""What `parvis trace` prints: how a recipe stands, its time line, its picture with counts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from parvis.observe.harmless import harmless
from parvis.observe.hop_table import RecipeLine
from parvis.observe.hops import REQUEST, Hop, Sent
from parvis.observe.logbook import Entry
from parvis.observe.logs import terminal_line
from parvis.observe.story import NodeCount, Story
from parvis.observe.story_notes import notes_of
from parvis.observe.wording import age_text, duration_text, moment_text, short_duration
from parvis.recipe.draw import to_text
from parvis.recipe.graph import Recipe
from parvis.recipe.problem import RecipeError
from parvis.recipe.watch import is_watch_topic, without_watchers

STYLES: Final = {
    "finished": "green",
    "done": "green",
    "failed": "bold red",
    "stuck": "bold yellow",
    "running": "cyan",
    "waiting": "blue",
    "unknown": "magenta",
    "silent": "magenta",
    "idle": "dim",
}
"""How a state looks; it is said in words, too."""

_MOST_LINES: Final = 40
_LONGEST_REASON: Final = 300
_SHORTEST_ID: Final = 8
_MOST_WAYS: Final = 4
_WIDEST: Final = 28


def headline(story: Story) -> Text:
    """How a recipe stands, in a line."""
    first, _, rest = terminal_line(story.summary).partition(" ")
    text = Text(first, style=STYLES[story.state])
    return text.append(f" {rest}", style="default not bold")


def head(story: Story) -> Group:
    """How a recipe stands, since when, and what is not known."""
    begun = f", started {moment_text(story.begun)}" if story.begun is not None else ""
    user = f" for {harmless(story.started.user)}" if story.started and story.started.user else ""
    lines = [Text(f"Recipe {terminal_line(story.recipe_id)}{begun}{user}", style="bold"), headline(story)]
    if story.since is not None and story.state not in ("finished", "failed"):
        lines.append(Text(f"since {moment_text(story.since)}, {age_text(time.time() - story.since)} ago"))
    lines += [Text(terminal_line(note), style="magenta") for note in story.notes]
    return Group(*lines)


def sections(entry: Entry, *, only_incoming: bool = False, most: int | None = None) -> list[Text]:
    """The sections of a logbook entry, each with its heading; of a long one the first `most` lines."""
    shown: list[Text] = []
    for heading, content in entry.sections[: 2 if only_incoming else None]:
        lines = [terminal_line(line) for line in content.splitlines()]
        left = lines if most is None else lines[:most]
        text = Text(heading, style="bold yellow")
        text.append("\n" + "\n".join(left), style="default not bold")
        if len(left) < len(lines):
            text.append(
                f"\n... {len(lines) - len(left):,} more lines: --all shows them", style="dim not bold"
            )
        shown.append(text)
    return shown


def time_line(story: Story, hops: Sequence[Hop]) -> Group:
    """Hops in the order of time; if they are not all, with a table of all nodes before."""
    names = {number: _name(node) for number, node in story.nodes.items()}
    parts: list[RenderableType] = []
    if len(hops) < story.hops:
        text = (
            f"{story.hops:,} handlings. Below, of each node: the first, the last, the slowest, and what was "
            "not done; --all shows all."
        )
        parts += [node_table(story.nodes.values()), Text(text, style="dim")]
    parts += [hop_line(hop, names) for hop in hops]
    return Group(*parts)


def hop_line(hop: Hop, names: dict[int, str] | None = None) -> Text:
    """A handling: when, where, how long the message was queued and handled, and what came of it."""
    name = (names or {}).get(hop.node) or f"{hop.node} {harmless(hop.queue)}"
    line = Text(f"{_clock(hop.begun)}  ")
    line.append(f"{name[:_WIDEST]:<{_WIDEST}} ", style="bold")
    line.append(
        f"{short_duration(max(0.0, hop.begun - hop.sent_at)):>7} {short_duration(hop.seconds):>7}  ",
        style="dim",
    )
    tried = f"try {hop.tries}: " if hop.tries > 1 else ""
    again = "sent in again: " if hop.reinjected else ""
    line.append(f"{again}{tried}")
    line.append(_result(hop), style="" if hop.result in ("done", "duplicate") else "red")
    if hop.sent:
        line.append(_sent(hop.sent))
    return line


def node_table(nodes: Iterable[NodeCount]) -> Table:
    """A line for each node with its counts, but for those of whoever waits for the recipe."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("node", no_wrap=True, overflow="ellipsis")
    table.add_column("state")
    for name in ("sent", "done", "to do", "held", "again", "given up", "mean", "longest"):
        table.add_column(name, justify="right", no_wrap=True)
    for node in nodes:
        if is_watch_topic(node.queue):
            continue
        counts = (
            node.sent,
            node.handled - node.given_up,
            node.outstanding - node.waiting,
            node.waiting,
            node.again,
            node.given_up,
        )
        mean = short_duration(node.seconds / node.hops) if node.hops else ""
        table.add_row(
            _name(node)[:_WIDEST],
            Text(node.state, style=STYLES[node.state]),
            *(f"{count:,}" if count else "" for count in counts),
            mean,
            short_duration(node.longest) if node.hops else "",
        )
    return table


def picture(story: Story, width: int) -> Text:
    """The recipe as a tree, with counts on nodes and on the ways between them."""
    if story.started is None:
        return Text("The recipe itself is not known, so there is no picture of it.", style="dim")
    notes = notes_of(story)
    try:
        drawn = to_text(Recipe.from_dict(without_watchers(story.started.recipe)), width, notes)
    except RecipeError as error:
        return Text(f"The recipe cannot be drawn: {terminal_line(str(error))}", style="magenta")
    states = {f"({note.text})": note.state for note in notes.nodes.values()}
    text = Text(drawn.rstrip("\n"))
    for said, state in states.items():
        text.highlight_words([said], STYLES[state])
    return text


def recipe_table(lines: Sequence[RecipeLine]) -> Table:
    """A list of recipes."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("recipe ID", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("last", no_wrap=True)
    table.add_column("what")
    ids = [line.story.recipe_id for line in lines]
    for line in lines:
        story = line.story
        subject = f" of {harmless(line.dcid)}" if line.dcid else ""
        whom = f" for {harmless(line.user)}" if line.user else ""
        what = Text(f"{harmless(line.recipes) or '?'}{subject}{whom}")
        if story.state != "finished":
            what.append(f"\n{terminal_line(story.summary)}", style="dim")
        last = "" if story.last is None else _clock(story.last)[:8]
        table.add_row(_short(story.recipe_id, ids), Text(story.state, style=STYLES[story.state]), last, what)
    return table


def live_view(story: Story, hops: Sequence[Hop], width: int, height: int) -> Group:
    """What is shown as long as a recipe is followed: how it stands, its picture, what happened last."""
    drawn = picture(story, width)
    room = height - len(drawn.plain.splitlines()) - 6 - len(story.notes)
    if room < 0:  # the picture would push everything else out
        drawn, room = Text("\n").join(drawn.split("\n")[: max(3, height - 8 - len(story.notes))]), 1
    names = {number: _name(node) for number, node in story.nodes.items()}
    last: list[Text] = []
    for hop in hops[-max(1, room) :]:
        line = hop_line(hop, names)
        line.no_wrap, line.overflow = True, "ellipsis"
        last.append(line)
    return Group(head(story), Text(), drawn, Text(), *last)


def print_story(
    console: Console, story: Story, hops: Sequence[Hop], entry: Entry | None, *, all_: bool
) -> None:
    """Print everything that is known of a recipe."""
    console.print(head(story))
    for text in sections(entry, most=None if all_ else _MOST_LINES) if entry else ():
        console.print(Text("\n").append_text(text), soft_wrap=True)
    console.print(Text("\nTime line:", style="bold yellow"), Text("(queued, handled)", style="dim"))
    console.print(time_line(story, hops), soft_wrap=True)
    console.print(Text("\nRecipe:", style="bold yellow"))
    console.print(picture(story, console.width), soft_wrap=True)
    console.print()
    console.print(headline(story), soft_wrap=True)


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%H:%M:%S.%f}"[:-3]


def _name(node: NodeCount) -> str:
    if node.node == REQUEST:
        return "  dispatcher"
    return f"{node.node} {harmless(node.queue or node.service, 40)}"


def _result(hop: Hop) -> str:
    words = {
        "done": "done",
        "retry": "not now",
        "reject": "rejected",
        "fail": "failed",
        "timeout": "took too long",
        "crash": "its process died",
        "duplicate": "a copy, only acknowledged",
    }
    if any(sent.kind == "dead_letter" for sent in hop.sent):
        word = f"DEAD LETTER, {words[hop.result]}"
    else:
        word = words[hop.result]
    reason = terminal_line(hop.reason)[:_LONGEST_REASON]
    return f"{word}: {reason}" if reason and hop.result != "done" else word


def _sent(sent: Iterable[Sent]) -> str:
    """What left, in words."""
    said: list[str] = []
    for one in sent:
        after = f" in {duration_text(one.delay)}" if one.delay else ""
        times = f" ({one.count:,})" if one.count > 1 else ""
        match one.kind:
            case "again":
                said.append(f"again{after}")
            case "checkpoint" | "reminder":
                said.append(f"{one.kind}{after}{times}")
            case "error":
                said.append(f"error to {one.node}{times}")
            case "message" | "broadcast":
                said.append(f"to {harmless(one.queue) if one.node is None else one.node}{times}{after}")
            case "dead_letter":
                pass
    more = f" and {len(said) - _MOST_WAYS} more" if len(said) > _MOST_WAYS else ""
    return f" → {', '.join(said[:_MOST_WAYS])}{more}" if said else ""


def _short(recipe_id: str, others: Sequence[str]) -> str:
    """As much of a recipe ID as tells it from the others, eight characters at least."""
    length = _SHORTEST_ID
    while length < len(recipe_id) and sum(other.startswith(recipe_id[:length]) for other in others) > 1:
        length += 1
    return terminal_line(recipe_id[:length])
