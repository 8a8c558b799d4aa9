"""The queue monitor: every queue and topic with its figures, and a look into one without taking anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Input, Static

from parvis.config import Config
from parvis.monitor.app import MonitorApp
from parvis.monitor.dialogues import Help, key_help
from parvis.monitor.line_list import LineList
from parvis.monitor.look import BAD, DIM, NOTE, STRONG
from parvis.monitor.looker import Failed, Looked, Looker, Trouble
from parvis.monitor.queue_drawing import Row, heading, queue_line
from parvis.monitor.queue_screens import QueueScreen
from parvis.observe.harmless import harmless
from parvis.observe.queue_figures import QueueSource, QueueTraffic
from parvis.observe.wording import counted

_KEYS: Final = (
    ("arrows, mouse", "choose a queue"),
    ("Enter, click again", "open it: its messages, which stay there; again: one message"),
    ("Esc", "back; no filter"),
    ("/", "filter by words"),
    ("s", "sort by messages held, name, rate, age of the oldest"),
    ("a", "hide what is idle, or show it again"),
    ("r", "look now"),
    ("T  †", "a topic; a queue of dead letters"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
)


class Order(StrEnum):
    """What queues are sorted by."""

    HELD = "messages held"
    NAME = "name"
    RATE = "rate"
    OLDEST = "oldest"


class QueueMonitor(MonitorApp):
    """Shows the figures of a source.

    Args:
        source: Who tells them; the monitor is the only one to ask it while it runs.
        config: The configuration, to say which broker it is.
        interval: Seconds between two looks.
    """

    CSS = """
    Screen { background: $background; layout: vertical; }
    #headline, #heading { height: 1; width: 100%; background: $surface; }
    #heading { background: $background; }
    #filter { height: 1; border: none; padding: 0 1; display: none; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("a", "active", "Active"),
        Binding("r", "look", "Look now"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("escape", "no_filter", show=False),
    ]

    def __init__(self, source: QueueSource, config: Config, interval: float = 5) -> None:
        super().__init__()
        self._source, self._interval = source, interval
        namespace = str(getattr(config.broker, "prefix", "") or getattr(config.broker, "vhost", ""))
        self._where = f"{config.broker_hosts} {namespace}".strip()
        self._looker = Looker(source, interval, self.post_message)
        self._traffic: Sequence[QueueTraffic] = ()
        self._ages: Mapping[str, float] = {}
        self._order = Order.HELD
        self._active_only = False
        self._words = ""
        self._trouble = ""
        self._looked = False

    def compose(self) -> ComposeResult:
        yield Static(id="headline")
        yield Static(id="heading")
        yield LineList(queue_line, lambda row: row.key, id="queues")
        yield Input(id="filter", placeholder="words to look for", compact=True)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.title = "parvis queue monitor"
        self._queues.focus()
        self._update()
        self._looker.start()

    def on_unmount(self) -> None:
        self._looker.stop()

    def on_resize(self) -> None:
        """The columns depend on the width."""
        self.call_after_refresh(self._update)

    @property
    def _queues(self) -> LineList:
        return self.screen_stack[0].query_one("#queues", LineList)

    # What the looker finds

    def on_looked(self, message: Looked) -> None:
        """Show new figures."""
        self._traffic, self._ages = message.traffic, message.ages
        self._trouble, self._looked = "", True
        self._update()
        rows = {row.key: row for row in map(self._row, self._traffic)}
        for screen in self.screen_stack:
            if isinstance(screen, QueueScreen) and screen.row.key in rows:
                screen.show_row(rows[screen.row.key])

    def on_trouble(self, message: Trouble) -> None:
        """Say why there are no new figures."""
        self._trouble = message.reason
        self._update()
        for screen in self.screen_stack:
            if isinstance(screen, QueueScreen):
                screen.show_row(screen.row, message.reason)

    def on_failed(self, message: Failed) -> None:
        """End, and say why."""
        self.failure = message.error
        self.exit()

    # Showing

    def _row(self, traffic: QueueTraffic) -> Row:
        return Row(traffic, self._ages.get(traffic.figures.absolute))

    def _rows(self) -> list[Row]:
        words = self._words.lower().split()
        rows = [
            self._row(one)
            for one in self._traffic
            if (one.relevance > 0 or not self._active_only)
            and all(word in f"{one.figures.absolute} {one.figures.kind}".lower() for word in words)
        ]
        match self._order:
            case Order.NAME:
                rows.sort(key=lambda row: row.traffic.figures.name)
            case Order.RATE:
                rows.sort(key=lambda row: -(row.traffic.rate_in or 0) - (row.traffic.rate_out or 0))
            case Order.OLDEST:
                rows.sort(key=lambda row: -(row.oldest or 0) if row.traffic.figures.held else 0)
            case Order.HELD:
                pass  # as they come
        return rows

    def _update(self) -> None:
        if not (self.screen_stack and self.screen_stack[0].query("#queues")):
            return  # not there yet, or gone already
        rows = self._rows()
        queues = self._queues
        queues.show(rows)
        screen = self.screen_stack[0]
        screen.query_one("#headline", Static).update(self._headline(len(rows)))
        screen.query_one("#heading", Static).update(heading(queues.line_width))
        self._focus_chosen()

    def _headline(self, shown: int) -> Text:
        text = Text(" ", no_wrap=True, overflow="ellipsis")
        if self._trouble:
            text.append(f"✖ trying again: {harmless(self._trouble, 300)}  ", BAD)
        if not self._looked:
            text.append(f"{self._source.product}: looking …", STRONG)
            return text
        queues = [one.figures for one in self._traffic if one.figures.kind == "queue"]
        of = "" if shown == len(self._traffic) else f"{shown} shown of "
        held, dead = (
            sum(one.held or 0 for one in queues),
            sum(one.held or 0 for one in queues if one.dead_letters),
        )
        topics = len(self._traffic) - len(queues)
        text.append(f"{self._source.product}: {of}{counted(len(queues), 'queue')}", STRONG)
        text.append(f", {counted(topics, 'topic')}, {counted(held, 'message')}", STRONG)
        if self._words:
            text.append(f"  filter: {harmless(self._words)}", NOTE)
        if dead:
            text.append(f"  † {dead} dead", BAD)
        text.append(f"  by {self._order}, every {self._interval:g} s  {self._where}", DIM)
        return text

    def _focus_chosen(self) -> None:
        top = self.screen_stack[-1]
        row = top.row if isinstance(top, QueueScreen) else self._queues.chosen
        self._looker.focus = row.traffic.figures.absolute if isinstance(row, Row) else None

    # What the user wants

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is about the list is not offered where another screen is in front."""
        if action in {"filter", "sort", "active"} and len(self.screen_stack) > 1:
            return False
        return super().check_action(action, parameters)

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Show one queue."""
        self.push_screen(QueueScreen(event.item, self._looker.wish, self._source.peek_cost))

    def on_line_list_chosen(self) -> None:
        """The age of the oldest message is wanted of the chosen queue."""
        self._focus_chosen()

    def action_look(self) -> None:
        """Look now."""
        self._looker.look_now()

    def action_sort(self) -> None:
        """Sort by the next thing."""
        orders = list(Order)
        self._order = orders[(orders.index(self._order) + 1) % len(orders)]
        self._update()

    def action_active(self) -> None:
        """Hide what is idle, or show it again."""
        self._active_only = not self._active_only
        self._update()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help(key_help(_KEYS)))

    def action_filter(self) -> None:
        """Let the user type words to filter by."""
        entry = self.query_one("#filter", Input)
        entry.display = True
        entry.focus()

    def action_no_filter(self) -> None:
        """Show all again."""
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the user types."""
        self._words = event.value
        self._update()

    def on_input_submitted(self) -> None:
        """Keep the filter, and go back."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).display = False
        self._queues.focus()
