"""The status monitor: who is there, what they do, what they say; and stopping them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.widgets import Footer, Input, Static

from parvis.monitor.app import MonitorApp
from parvis.monitor.arrange import Density, Group, Order, newest
from parvis.monitor.dialogues import Details, Help, Question, key_help
from parvis.monitor.drawing import Scene, heading_line
from parvis.monitor.log_view import LogLines, LogView
from parvis.monitor.look import BAD, DIM, NOTE, SILENT, STRONG, state_look
from parvis.monitor.overview import Overview
from parvis.observe.cards import LATE, Card, CardBoard
from parvis.observe.wording import counted
from parvis.service.commands import stop_instance, stop_service
from parvis.transport.base import Send, Transport, TransportError

_PERIOD: Final = 0.25
_SEND_LIMIT: Final = 3.0
_LOW, _HIGH = 20, 40  # lines of a terminal from which a log, and a long log, has room

_KEYS: Final = (
    ("arrows, click", "choose an instance, or a service"),
    ("Enter, click again", "open it"),
    ("/", "filter by words, the log, too; Esc ends it"),
    ("s", "sort by service, host, state, utilisation, last seen"),
    ("v", "view: as fits, cards, instances, services"),
    ("x", "stop what is chosen"),
    ("X", "stop all instances of that service"),
    ("l", "hide or show the log"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("● ○ ✖", "at work, idle, error"),
    ("?", "not heard of for 10 s; taken away after 90 s"),
    ("ERRORS", "messages that were not done, since it started"),
    ("outdated", "somebody runs a newer version"),
)
_TOLD: Final = ("error", "processing", "idle", "starting", "shutting down")  # of all, in the headline


class StatusApp(MonitorApp):
    """Shows the cards of a board and the lines of a log.

    Args:
        board: The cards.
        lines: The log.
        transport: Sends commands, and tells whether there is a connection.
        where: Which broker and namespace, for the headline.
        clock: The time of the cards.
    """

    CSS = """
    #headline, #heading {
        height: 1; width: 100%; background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
    }
    #heading { background: $background; }
    Overview { height: 1fr; background: $background; }
    LogView { background: $background; border-top: solid $border; border-title-color: $secondary; }
    #filter { height: 1; border: none; padding: 0 1; display: none; background: $surface; }
    Toast { max-width: 60; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # With priority: who types fast has typed the next letter before another widget could see this one.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("enter", "leave_filter", show=False, priority=True),
        Binding("escape", "no_filter", show=False, priority=True),
        Binding("s", "sort", "Sort"),
        Binding("v", "view", "View"),
        Binding("x", "stop(False)", "Stop"),
        Binding("X", "stop(True)", "Stop service", show=False),
        Binding("l", "log", "Log"),
        Binding("question_mark", "help", "Help", key_display="?"),
    ]

    def __init__(
        self,
        board: CardBoard,
        lines: LogLines,
        transport: Transport,
        where: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._board, self._lines, self._transport, self._where = board, lines, transport, where
        self._clock = clock
        self._wants_log = True
        self._overview = Overview()
        self._log_view = LogView()
        self._headline = Static(id="headline")
        self._heading = Static(id="heading")
        self._entry = Input(id="filter", placeholder="words to look for", compact=True)
        self._heads: tuple[Text, Text] | None = None
        self._cards: Sequence[Card] = ()

    def compose(self) -> ComposeResult:
        yield self._headline
        yield self._heading
        yield self._overview
        yield self._log_view
        yield self._entry
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.title = "parvis monitor"
        self._log_view.can_focus = False
        self._log_view.border_title = "log"
        self._overview.focus()
        self._place_log(self.size.height)
        self.set_interval(_PERIOD, self.update_now)
        self.update_now()

    def update_now(self) -> None:
        """Show what is known now."""
        if not self._overview.is_attached:
            return  # not yet, or not any more
        now = self._clock()
        self._cards = self._board.cards(now)
        self._overview.show_cards(self._cards, now)
        self._log_view.add(self._lines.drain())
        self._update_heads()
        self._update_details(now)

    # The two lines above

    def _update_heads(self) -> None:
        heads = self._headline_text(), self._heading_text()
        if heads != self._heads:
            self._heads = heads
            self._headline.update(heads[0], layout=False)
            self._heading.update(heads[1], layout=False)

    def _headline_text(self) -> Text:
        text = Text(" ", no_wrap=True, overflow="ellipsis")
        if not self._transport.is_connected:
            text.append("connection lost, trying again  ", BAD)
        text.append(self._counts(), STRONG)
        now = self._clock()
        silent = sum(card.age(now) > LATE for card in self._cards)
        states = Counter(card.state for card in self._cards if card.age(now) <= LATE)
        if silent:
            text.append(f"  {SILENT[0]} {silent} silent", SILENT[1])
        for state in _TOLD:
            if states[state]:
                sign, style = state_look(state)
                text.append(f"  {sign} {states[state]} {state}", style)
        text.append(f"   {self._where}", DIM)
        return text

    def _counts(self) -> str:
        services = len({card.service for card in self._cards})
        shown, total = self._overview.matched, len(self._cards)
        of = f"{shown} of " if shown != total else ""
        return f"{of}{counted(total, 'instance')} of {counted(services, 'service')}"

    def _heading_text(self) -> Text:
        overview = self._overview
        if overview.density is Density.CARDS:
            text = Text(f"  sorted by {overview.order}", DIM, no_wrap=True)
        else:
            text = Text(no_wrap=True)
            for part, style in heading_line(overview.columns, overview.order):
                text.append(part, style)
        if overview.words:
            text.append(f"  filter: {overview.words}", NOTE)
        return text

    def on_overview_arranged(self) -> None:
        """The user changed what is shown."""
        self._update_heads()

    def on_click(self, event: Click) -> None:
        """A click on the head of a column sorts by it."""
        if event.widget is not self._heading or self._overview.density is Density.CARDS:
            return
        x = event.x - 2
        for column, width in self._overview.columns:
            if x < width + 1:
                if column.order is not None:
                    self._sort_by(column.order)
                return
            x -= width + 1

    # Sorting and filtering

    def action_sort(self) -> None:
        """Sort by the next thing."""
        orders = list(Order)
        self._sort_by(orders[(orders.index(self._overview.order) + 1) % len(orders)])

    def _sort_by(self, order: Order) -> None:
        self._overview.order = order
        self._overview.rearrange()

    def action_view(self) -> None:
        """Show more or less of each instance."""
        views = [None, *Density]
        overview = self._overview
        overview.wanted = views[(views.index(overview.wanted) + 1) % len(views)]
        overview.rearrange()
        self.notify(f"view: {overview.wanted or 'as fits'}", timeout=2)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Whether a key means this now."""
        types = isinstance(self.focused, Input)
        is_alone = len(self.screen_stack) == 1
        meant = {"filter": is_alone and not types, "leave_filter": types, "no_filter": is_alone}
        return meant.get(action, True)

    def action_filter(self) -> None:
        """Let the user type words to filter by."""
        self._entry.display = True
        self.screen.set_focus(self._entry)

    def action_no_filter(self) -> None:
        """Show all again."""
        self._entry.value = ""
        self.action_leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the user types."""
        self._overview.words = self._log_view.words = event.value
        self._overview.rearrange()
        self._log_view.rearrange()

    def action_leave_filter(self) -> None:
        """Keep the filter, and go back to what it left."""
        self._entry.display = False
        self.screen.set_focus(self._overview)

    # The log

    def on_resize(self, event: Resize) -> None:
        """Give the log as much room as there is."""
        self._place_log(event.size.height)

    def action_log(self) -> None:
        """Hide or show the log."""
        self._wants_log = not self._wants_log
        self._place_log(self.size.height)

    def _place_log(self, height: int) -> None:
        self._log_view.display = self._wants_log and height >= _LOW
        self._log_view.styles.height = 13 if height >= _HIGH else 6

    # One instance, help, stopping

    def on_overview_opened(self, event: Overview.Opened) -> None:
        """Show all of an instance."""
        self.push_screen(Details(event.card, self._ask_to_stop))
        self.call_after_refresh(self.update_now)

    def _update_details(self, now: float) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, Details) and screen.is_mounted:
                card = next((one for one in self._cards if one.host == screen.card.host), None)
                lines = self._log_view.of_host(screen.card.host)
                screen.show_card(card, lines, Scene(now, newest(self._cards)))

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help(key_help(_KEYS)))

    def action_stop(self, whole_service: bool) -> None:
        """Ask whether to stop what is chosen."""
        chosen = self._overview.chosen
        if isinstance(chosen, Group):
            self._ask_to_stop(chosen.cards[0], True)
        elif chosen is not None:
            self._ask_to_stop(chosen, whole_service)

    def _ask_to_stop(self, card: Card, whole_service: bool) -> None:
        if card.is_task:
            where = f"cancel job {card.job} at the scheduler" if card.job else "end its process"
            self.notify(f"A task takes no commands: to stop it, {where}.", severity="warning", markup=False)
            return
        if whole_service and card.service_class:
            count = sum(one.service_class == card.service_class for one in self._cards)
            what = f"all {counted(count, 'instance')} of {card.service or card.service_class}"
            # A process may run several services, and any of their names stops it.
            sends = [stop_service(name) for name in card.service_class.split(", ")]
        else:
            what, sends = f"{card.service or 'the instance'} at {card.host}", [stop_instance(card.host)]
        question = f"Stop {what}?\n\nMessages in hand are finished; what waits stays in its queue."

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(lambda: self._send(sends, what), thread=True)

        self.push_screen(Question("Stop", question, "Stop"), answered)

    def _send(self, sends: Sequence[Send], what: str) -> None:
        try:
            self._transport.send(*sends, timeout=_SEND_LIMIT)
        except TransportError as error:
            self._tell(f"Not stopped: {error}", "error")
        else:
            self._tell(f"Told to stop: {what}", "information")

    def _tell(self, text: str, severity: str) -> None:
        level = "error" if severity == "error" else "information"
        self.call_from_thread(lambda: self.notify(text, severity=level, markup=False))
