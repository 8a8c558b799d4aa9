"""A widget of lines, one for each item, with a cursor; only those that are seen are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from parvis.monitor.look import CHOSEN_ROW

Draw = Callable[[Any, int, bool], list[Segment]]
"""Makes a line of an item, so many cells wide, chosen or not."""


class LineList(ScrollView, can_focus=True):
    """Shows items.

    Args:
        draw: Makes a line of an item.
        key: What tells an item from all others, also when it has changed.
        id: As of any widget.
    """

    DEFAULT_CSS = """
    LineList {
        height: 1fr; background: $background; overflow-x: hidden;
        scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        *(
            Binding(f"{key},{letter}" if letter else key, f"move('{key}')", show=False)
            for key, letter in (
                ("up", "k"),
                ("down", "j"),
                ("pageup", ""),
                ("pagedown", ""),
                ("home", "g"),
                ("end", "G"),
            )
        ),
    ]

    class Opened(Message):
        """Somebody wants to see more of an item."""

        def __init__(self, item: Any) -> None:
            super().__init__()
            self.item = item

    class Chosen(Message):
        """The user has moved the cursor."""

    def __init__(self, draw: Draw, key: Callable[[Any], object], id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._draw_item, self._key = draw, key
        self._items: Sequence[Any] = ()
        self._index = 0
        self._chosen: object = None

    @property
    def items(self) -> Sequence[Any]:
        """What is shown."""
        return self._items

    @property
    def chosen(self) -> Any:
        """The item that the cursor is on; None if there is none."""
        return self._items[self._index] if self._index < len(self._items) else None

    @property
    def line_width(self) -> int:
        """Cells of a line."""
        return max(1, self.scrollable_content_region.width)

    def show(self, items: Sequence[Any]) -> None:
        """Show these items; the cursor stays on the item that the user has chosen, as long as it is there."""
        self._items = items
        keys = [self._key(item) for item in items]
        if self._chosen is not None and self._chosen in keys:
            self._index = keys.index(self._chosen)
        else:
            self._index = max(0, min(self._index, len(items) - 1))
        self.virtual_size = Size(self.line_width, len(items))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return a line of what is seen."""
        index = y + self.scroll_offset.y
        if index >= len(self._items):
            return Strip.blank(self.line_width, self.rich_style)
        chosen = index == self._index and self.has_focus
        strip = Strip(self._draw_item(self._items[index], self.line_width, chosen))
        strip = strip.adjust_cell_length(self.line_width)
        return strip.apply_style(self.rich_style + CHOSEN_ROW if chosen else self.rich_style)

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002
        """Draw for another width."""
        self.virtual_size = Size(self.line_width, len(self._items))

    def choose(self, index: int) -> None:
        """Put the cursor on an item, and the item where it is seen."""
        if not self._items:
            return
        self._index = max(0, min(index, len(self._items) - 1))
        self._chosen = self._key(self._items[self._index])
        self.scroll_to_region(Region(0, self._index, 1, 1), animate=False)
        self.refresh()
        self.post_message(self.Chosen())

    def action_move(self, key: str) -> None:
        """Move the cursor."""
        page = max(1, self.size.height - 1)
        steps = {"up": -1, "down": 1, "pageup": -page, "pagedown": page}
        ends = {"home": 0, "end": len(self._items) - 1}
        self.choose(ends[key] if key in ends else self._index + steps[key])

    def action_open(self) -> None:
        """Open what the cursor is on."""
        if self.chosen is not None:
            self.post_message(self.Opened(self.chosen))

    def on_click(self, event: Click) -> None:
        """A click chooses, a second one opens."""
        index = event.y + self.scroll_offset.y
        if index >= len(self._items):
            return
        was_chosen = index == self._index and self._chosen is not None
        self.choose(index)
        if was_chosen or event.chain > 1:
            self.action_open()
