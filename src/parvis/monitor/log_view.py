"""The running log: what all services say, as they say it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from rich.segment import Segment
from textual.events import MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from parvis.monitor.look import BAD, DIM, NOTE, PLAIN, WARN, fitted
from parvis.observe.harmless import harmless
from parvis.observe.log_broadcast import LoggedLine, read_line
from parvis.transport.base import Message

_KEPT: Final = 1000
_AT_ONCE: Final = 100
_STYLES: Final = {"DEBUG": DIM, "INFO": PLAIN, "WARNING": WARN, "ERROR": BAD, "CRITICAL": BAD}
_WORDS: Final = {"WARNING": "warning", "ERROR": "ERROR", "CRITICAL": "CRITICAL"}
_WIDE: Final = 100
_A_SCROLL: Final = 3  # lines that a wheel may move at once


class LogLines:
    """Log records that came and were not shown yet. Any thread may put some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: list[LoggedLine] = []
        self._left_out = 0

    def take(self, message: Message) -> None:
        """Take a broadcast: the callback for topic `transient.log`."""
        with self._lock:
            # What cannot be read as fast as it comes is not even looked at.
            if len(self._new) >= _AT_ONCE:
                self._left_out += 1
                return
        line = read_line(message.body)
        if line is not None:
            self.put(line)

    def say(self, text: str) -> None:
        """Take what this program has to say itself."""
        self.put(LoggedLine(time.time(), "WARNING", "monitor", "", "", harmless(text, 500)))

    def put(self, line: LoggedLine) -> None:
        """Take a record."""
        with self._lock:
            self._new.append(line)

    def drain(self) -> list[LoggedLine]:
        """Return what came since the last call."""
        with self._lock:
            new, self._new = self._new, []
            left_out, self._left_out = self._left_out, 0
        if left_out:
            text = f"{left_out} more came at once and are not shown"
            new.append(LoggedLine(time.time(), "WARNING", "monitor", "", "", text))
        return new


class LogView(ScrollView):
    """Shows the last records, the latest below; stays where it is while somebody looks at earlier ones.

    Attributes:
        words: Only records in which each of these words occurs are shown.
    """

    DEFAULT_CSS = """
    LogView {
        scrollbar-size-vertical: 0;
        overflow-x: hidden;
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = ""
        self._all: deque[LoggedLine] = deque(maxlen=_KEPT)
        self._shown: Sequence[LoggedLine] = ()
        self._follows = True

    def of_host(self, host: str) -> list[LoggedLine]:
        """Return the records of one process, the latest last."""
        return [line for line in self._all if line.host == host]

    def add(self, lines: Sequence[LoggedLine]) -> None:
        """Show further records."""
        if lines:
            self._all.extend(lines)
            self.rearrange()

    def rearrange(self) -> None:
        """Show the records again after `words` has changed."""
        wanted = self.words.casefold().split()
        self._shown = [line for line in self._all if not wanted or _has_all(line, wanted)]
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._shown))
        if self._follows:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)
        self.refresh()

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002
        self.rearrange()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:  # noqa: ARG002
        """Somebody looks at earlier records."""
        self._follows = False

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:  # noqa: ARG002
        """Who is back at the last record sees the next ones, too."""
        self._follows = self.scroll_offset.y + _A_SCROLL >= self.max_scroll_y

    def render_line(self, y: int) -> Strip:
        """Return a line of what is seen."""
        width = max(1, self.scrollable_content_region.width)
        number = y + self.scroll_offset.y
        segments = line_segments(self._shown[number], width) if number < len(self._shown) else []
        return Strip(segments).adjust_cell_length(width).apply_style(self.rich_style)


def _has_all(line: LoggedLine, words: Sequence[str]) -> bool:
    text = " ".join((line.level, line.service, line.host, line.recipe, line.message)).casefold()
    return all(word in text for word in words)


def line_segments(line: LoggedLine, width: int) -> list[Segment]:
    """Return a record as a line: time, who, about which recipe, how bad, and what."""
    clock = time.strftime("%H:%M:%S", time.localtime(line.time))
    style = _STYLES[line.level]
    who = 18 if width >= _WIDE else 12
    recipe = [Segment(f"{line.recipe[:8]:<8} ", NOTE)] if width >= _WIDE else []
    level = f"{_WORDS[line.level]}: " if line.level in _WORDS else ""
    head = [Segment(f" {clock} ", DIM), Segment(fitted(line.service, who) + " ", DIM), *recipe]
    left = width - sum(segment.cell_length for segment in head)
    return [*head, Segment(fitted(level + line.message, max(0, left)), style)]
