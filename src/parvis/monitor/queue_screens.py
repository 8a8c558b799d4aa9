"""One queue: its figures and the messages at its head; and one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, cast

from rich.cells import chop_cells
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Footer, Static

from parvis.monitor.line_list import LineList
from parvis.monitor.look import BAD, DIM, NOTE, PLAIN, STRONG, WARN, trend
from parvis.monitor.looker import Wish
from parvis.monitor.queue_drawing import Row, count_text, message_heading, message_line, rate_text
from parvis.observe.harmless import harmless
from parvis.observe.message_text import heading, sections
from parvis.observe.queue_figures import LONGEST_PEEK, PeekedMessage
from parvis.observe.wording import age_text, size_text

_PAGE: Final = 50
_NAME: Final = 200
_TROUBLE: Final = 300
_MOST_LINES: Final = 50_000

Ask = Callable[[Wish], None]


class QueueScreen(Screen[None]):
    """A queue, and messages of it, which are not taken.

    Args:
        row: The queue.
        ask: Has messages looked at.
        cost: What a look costs, in words; empty for nothing.
    """

    DEFAULT_CSS = """
    QueueScreen { background: $background; layout: vertical; }
    QueueScreen Static { width: 100%; height: auto; background: $background; }
    QueueScreen #queue-name { height: 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,left", "app.pop_screen", "Back", key_display="Esc"),
        Binding("r", "look", "Look again"),
        Binding("n", "page(1)", "Next 50"),
        Binding("p", "page(-1)", "Previous"),
    ]

    def __init__(self, row: Row, ask: Ask, cost: str) -> None:
        super().__init__()
        self.row = row
        self._ask, self._cost = ask, cost
        self._skip = 0

    def compose(self) -> ComposeResult:
        yield Static(id="queue-name")
        yield Static(id="queue-figures")
        yield Static(message_heading(), id="queue-heading")
        yield LineList(message_line, lambda message: message.place, id="messages")
        yield Static(id="queue-said")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#messages").focus()
        self.show_row(self.row)
        if self.row.traffic.figures.kind == "topic":
            self._say("A topic keeps no messages: there are none to look at.", DIM)
        elif self._cost:
            self._say(f"{self._cost}. Press r to look all the same.", WARN)
        else:
            self.action_look()

    def show_row(self, row: Row, trouble: str = "") -> None:
        """Show new figures, or why there are none."""
        self.row = row
        figures, traffic = row.traffic.figures, row.traffic
        name = Text(" ", no_wrap=True, overflow="ellipsis")
        if trouble:
            name.append(f"✖ trying again: {harmless(trouble, _TROUBLE)}  ", BAD)
        name.append(harmless(figures.absolute, _NAME), STRONG)
        name.append(f"  {figures.kind}" + (" of dead letters" if figures.dead_letters else ""), DIM)
        self._update("queue-name", name)
        text = Text(" ")
        for label, value in (
            ("held", count_text(figures.held)),
            ("in flight", count_text(figures.in_flight)),
            ("clients", count_text(figures.clients)),
            ("in", f"{count_text(figures.enqueued)} ({rate_text(traffic.rate_in) or '0'}/s)"),
            ("out", f"{count_text(figures.dequeued)} ({rate_text(traffic.rate_out) or '0'}/s)"),
            ("oldest", "" if row.oldest is None or not figures.held else age_text(row.oldest)),
            ("size", size_text(figures.size) if figures.size else ""),
        ):
            if value:
                text.append(f"{label} ", DIM)
                text.append(f"{value}   ", PLAIN)
        if any(traffic.trend):
            text.append("\n " + trend([float(one) for one in traffic.trend], 60).strip(), NOTE)
        self._update("queue-figures", text)

    def action_look(self) -> None:
        """Look at the messages."""
        if self.row.traffic.figures.kind == "topic":
            return
        self._say("Looking …", DIM)
        app = self._own_app  # this screen may have been left when the answer comes

        def found(messages: Sequence[PeekedMessage] | str) -> None:
            app.call_later(self._show_messages, messages)

        self._ask(Wish(self.row.traffic.figures.absolute, _PAGE, self._skip, found))

    def action_page(self, step: int) -> None:
        """Look at those behind, or before."""
        skip = max(0, min(LONGEST_PEEK - _PAGE, self._skip + step * _PAGE))
        shown = len(self.query_one("#messages", LineList).items)
        if skip != self._skip and (step < 0 or shown == _PAGE):
            self._skip = skip
            self.action_look()

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Show all of a message."""
        event.stop()
        self._own_app.push_screen(MessageScreen(event.item))

    @property
    def _own_app(self) -> App[None]:
        return cast("App[None]", self.app)  # pyright: ignore[reportUnknownMemberType] - textual does not say

    def _show_messages(self, found: Sequence[PeekedMessage] | str) -> None:
        if isinstance(found, str):
            self._say(found, BAD)
            return
        for messages in self.query("#messages").results(LineList):
            messages.show(found)
        held = self.row.traffic.figures.held
        if found:
            of = "" if held is None else f" of {held}"
            self._say(f"{found[0].place} to {found[-1].place}{of}, as they were when looked at", DIM)
        else:
            self._say("No messages." if not self._skip else "The broker shows no more.", DIM)

    def _say(self, text: str, style: Style) -> None:
        self._update("queue-said", Text(f" {text}", style))

    def _update(self, name: str, text: Text) -> None:
        """Change a text, if it is there: figures may come when the screen is being made, or left."""
        for widget in self.query(f"#{name}").results(Static):
            widget.update(text)


class MessageScreen(Screen[None]):
    """All of a message, in lines that are broken where the terminal ends."""

    DEFAULT_CSS = """
    MessageScreen { background: $background; layout: vertical; }
    MessageScreen #message-heading { height: 1; width: 100%; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,left", "app.pop_screen", "Back", key_display="Esc"),
        Binding("f", "full", "Full"),
    ]

    def __init__(self, message: PeekedMessage) -> None:
        super().__init__()
        self._message = message
        self._full = False

    def compose(self) -> ComposeResult:
        text = Text(f" {heading(self._message)}", STRONG, no_wrap=True, overflow="ellipsis")
        yield Static(text, id="message-heading")
        yield LineList(_text_line, lambda line: line[0], id="message")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#message").focus()
        self.call_after_refresh(self._show)

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002
        """Break the lines anew."""
        self.call_after_refresh(self._show)

    def action_full(self) -> None:
        """Show all of it, or what matters most."""
        self._full = not self._full
        self._show()

    def _show(self) -> None:
        lines = self.query_one("#message", LineList)
        width = max(10, lines.line_width - 4)
        broken: list[tuple[int, str, Style]] = []
        for section in sections(self._message, full=self._full):
            broken.append((len(broken), f" {section.title}", NOTE))
            for line in section.lines:
                # Measuring each sign takes long, and a line of letters needs none.
                pieces = (
                    [line[i : i + width] for i in range(0, len(line), width)]
                    if line.isascii()
                    else chop_cells(line, width)
                )
                broken += [(len(broken) + i, f"   {piece}", PLAIN) for i, piece in enumerate(pieces or [""])]
            if len(broken) > _MOST_LINES:
                broken = [*broken[:_MOST_LINES], (_MOST_LINES, "   … and more", DIM)]
                break
        lines.show(broken)


def _text_line(line: tuple[int, str, Style], _width: int, _chosen: bool) -> list[Segment]:
    return [Segment(line[1], line[2])]
