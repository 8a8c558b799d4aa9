"""What opens over the overview: all of one instance, a question, and help."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from parvis.monitor.drawing import Scene, busy_parts, flow_parts, state_parts, version_parts
from parvis.monitor.log_view import line_segments
from parvis.monitor.look import BAD, DIM, GOOD, NOTE, PLAIN, STRONG, WARN, fitted
from parvis.observe.cards import Card
from parvis.observe.log_broadcast import LoggedLine
from parvis.observe.recent_messages import RecentMessage

_LABEL: Final = 14
_AROUND: Final = 4  # lines of a box that are not its text
_LINES_OF_LOG: Final = 12


class Dialogue(ModalScreen[bool]):
    """A box over everything else."""

    DEFAULT_CSS = """
    Dialogue { align: center middle; background: $background 60%; }
    Dialogue > Vertical {
        width: auto; height: auto; max-width: 100%; max-height: 100%;
        border: round $primary; padding: 0 1; background: $surface;
        border-title-color: $foreground; border-title-style: bold;
    }
    Dialogue VerticalScroll { height: auto; scrollbar-size-vertical: 1; }
    Dialogue Static { width: 100%; background: $surface; text-wrap: nowrap; text-overflow: ellipsis; }
    Dialogue Horizontal { height: 1; width: 100%; align-horizontal: right; margin-top: 1; }
    Dialogue Button { min-width: 8; margin-left: 2; background: $panel; color: $foreground; }
    Dialogue Button:focus { background-tint: $foreground 0%; text-style: reverse; }
    Dialogue Button.danger { color: $error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(False)", "Close")]

    def on_resize(self, event: Resize) -> None:
        """Leave room for what stands below."""
        self.query_one(VerticalScroll).styles.max_height = max(1, event.size.height - _AROUND)


class Question(Dialogue):
    """Asks whether to do something that cannot be taken back. Says no unless it is told otherwise."""

    DEFAULT_CSS = """
    Question > Vertical { width: 64; }
    Question Static { text-wrap: wrap; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,q", "dismiss(False)", "No"),
        Binding("left,right", "app.focus_next", show=False),
    ]

    def __init__(self, title: str, text: str, yes: str) -> None:
        super().__init__()
        self._title, self._text, self._yes = title, text, yes

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            with VerticalScroll(can_focus=False):
                yield Static(Text(self._text))
            with Horizontal():
                yield Button(f"{self._yes} (y)", id="yes", classes="danger", compact=True)
                yield Button("Cancel (n)", id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class Help(Dialogue):
    """Shows the keys."""

    DEFAULT_CSS = """
    Help > Vertical { width: 78; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,q,enter", "dismiss(False)", show=False)]

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Help"
            with VerticalScroll():
                yield Static(self._text)
            with Horizontal():
                yield Button("Close (Esc)", compact=True)

    def on_button_pressed(self) -> None:
        self.dismiss(False)


class Details(Dialogue):
    """Shows all that is known of one instance, as it changes.

    Args:
        card: The instance.
        stop: Asks whether to stop this instance, or, if told so, all of its service.
    """

    DEFAULT_CSS = """
    Details > Vertical { width: 96; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,enter", "dismiss(False)", show=False),
        Binding("x", "stop(False)", "Stop"),
        Binding("X", "stop(True)", "Stop service"),
    ]

    def __init__(self, card: Card, stop: Callable[[Card, bool], None]) -> None:
        super().__init__()
        self.card = card
        self._stop = stop
        self._text = Text()

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(fitted(self.card.service or self.card.place, 60).strip())
            with VerticalScroll():
                yield Static(self._text)
            with Horizontal():
                yield Button("Stop (x)", id="stop", classes="danger", compact=True)
                yield Button("Stop service (X)", id="stop-all", classes="danger", compact=True)
                yield Button("Close (Esc)", id="close", compact=True)

    def on_mount(self) -> None:
        self.query_one("#close").focus()

    def show_card(self, card: Card | None, lines: Sequence[LoggedLine], scene: Scene) -> None:
        """Show the present state of the instance; None when it is gone."""
        self.card = card or self.card
        text = details(self.card, lines, scene, is_gone=card is None)
        if text != self._text or text.spans != self._text.spans:
            self._text = text
            self.query_one(Static).update(text)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "close":
            self.dismiss(False)
        else:
            self.action_stop(event.button.id == "stop-all")

    def action_stop(self, whole_service: bool) -> None:
        """Ask whether to stop it."""
        self._stop(self.card, whole_service)


def details(card: Card, lines: Sequence[LoggedLine], scene: Scene, *, is_gone: bool) -> Text:
    """Return all that is known of an instance."""
    text = Text(no_wrap=True, overflow="ellipsis")
    state = (
        [("gone: it left, or was not heard of for too long", BAD)] if is_gone else state_parts(card, scene)
    )
    _fact(text, "state", *state)
    _fact(text, "task" if card.is_task else "service", (card.service or "none", PLAIN))
    _fact(text, "class", (card.service_class, PLAIN))
    _fact(text, "host", (card.host, PLAIN))
    _fact(text, "node", (card.node, PLAIN))
    _fact(text, "job", (card.job, PLAIN))
    _fact(text, "tag", (card.tag, NOTE))
    _fact(text, "version", *version_parts(card, scene))
    _fact(text, "utilisation", *busy_parts(card.utilisation))
    _fact(text, "memory", (f"{card.memory:.1f} MB" if card.memory is not None else "", PLAIN))
    _fact(text, "flow", *flow_parts([card]))
    _fact(text, "recipe", (card.recipe, NOTE))
    _fact(text, "doing", (card.doing, PLAIN))
    figures = [f"{name.replace('_', ' ')} {value:,.6g}" for name, value in card.figures.items()]
    _fact(text, "figures", (", ".join(figures), PLAIN))
    _messages(text, card)
    if lines:
        text.append("\nIts log\n", STRONG)
        for line in lines[-_LINES_OF_LOG:]:
            for segment in line_segments(line, 90):
                _append(text, segment)
            text.append("\n")
    text.rstrip()
    return text


def _fact(text: Text, label: str, *parts: tuple[str, Style]) -> None:
    if any(part.strip() for part, _ in parts):
        text.append(f"{label:<{_LABEL}}", DIM)
        for part, style in parts:
            text.append(part, style)
        text.append("\n")


def _append(text: Text, segment: Segment) -> None:
    text.append(segment.text, segment.style)


def _messages(text: Text, card: Card) -> None:
    doings = card.doings
    if not doings.handled:
        return
    text.append("\nMessages\n", STRONG)
    _fact(text, "handled", (f"{doings.handled:,}", PLAIN))
    errors = [(f"{name} {count:,}  ", BAD) for name, count in doings.errors.items() if count]
    _fact(text, "errors", *(errors or [("none", DIM)]))
    for message in doings.last:
        _message(text, message)


def _message(text: Text, message: RecentMessage) -> None:
    clock = time.strftime("%H:%M:%S", time.localtime(message.time))
    good = message.result in {"done", "duplicate"}
    style = GOOD if good else WARN if message.result == "retry" else BAD
    text.append(f"{clock}  ", DIM)
    text.append(f"{message.result:<9.9} ", style)
    text.append(f"{message.recipe or '-':<36.36} ", NOTE)
    text.append(f"{'node ' + message.node if message.node else '':<7.7}", DIM)
    text.append(f"{message.seconds:6.3g} s\n", DIM)
    if message.reason:
        text.append(f"          {message.reason}\n", PLAIN)


def key_help(rows: Sequence[tuple[str, str]]) -> Text:
    """Return a table of keys and what they do."""
    text = Text()
    width = max(cell_len(key) for key, _ in rows) + 3
    for key, meaning in rows:
        text.append(f"{key:<{width}}", NOTE)
        text.append(f"{meaning}\n", PLAIN)
    text.rstrip()
    return text
