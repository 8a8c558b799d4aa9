"""The widget that shows who is there: as cards, as a line each, or as a line for each service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from parvis.monitor.arrange import Density, Group, Item, Order, grouped, key_of, matching, newest, ordered
from parvis.monitor.drawing import (
    CARD_HEIGHT,
    LEAST_CARD,
    Column,
    Scene,
    card_lines,
    columns_for,
    empty_columns,
    group_line,
    row_line,
)
from parvis.monitor.look import CHOSEN_ROW
from parvis.observe.cards import LATE, Card

Key = tuple[str, str]


class Overview(ScrollView, can_focus=True):
    """Shows cards, and draws again only what has changed.

    Attributes:
        order: What is sorted by.
        words: Only cards in which each of these words occurs are shown.
        wanted: The density that the user chose; None for the one that fits.
    """

    DEFAULT_CSS = """
    Overview {
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        overflow-x: hidden;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        *(
            Binding(f"{key},{letter}" if letter else key, f"move('{key}')", show=False)
            for key, letter in (
                ("up", "k"),
                ("down", "j"),
                ("left", "h"),
                ("right", ""),
                ("pageup", ""),
                ("pagedown", ""),
                ("home", "g"),
                ("end", "G"),
            )
        ),
    ]

    class Opened(Message):
        """Somebody wants to see all of an instance."""

        def __init__(self, card: Card) -> None:
            super().__init__()
            self.card = card

    class Arranged(Message):
        """The user, or another size of the terminal, has changed what is shown, or how."""

    def __init__(self) -> None:
        super().__init__()
        self.order = Order.SERVICE
        self.words = ""
        self.wanted: Density | None = None
        self.density = Density.CARDS
        self._cards: Sequence[Card] = ()
        self._matched: Sequence[Card] = ()
        self._items: list[Item] = []
        self._empty: frozenset[str] = frozenset()
        self._opened: set[str] = set()
        self._chosen: Key | None = None  # what the user chose, as long as it is there
        self._index = 0
        self._drawn: dict[int, Strip] = {}
        self._boxes: dict[int, tuple[object, list[list[Segment]]]] = {}
        self._lines: dict[int, tuple[object, list[Segment]]] = {}
        self._scene = Scene(0.0, {})

    @property
    def matched(self) -> int:
        """How many instances are shown, in whichever form."""
        return len(self._matched)

    @property
    def chosen(self) -> Item | None:
        """What the cursor is on."""
        return self._items[self._index] if self._index < len(self._items) else None

    @property
    def line_width(self) -> int:
        """Cells of a line."""
        return max(1, self.scrollable_content_region.width)

    @property
    def columns(self) -> Sequence[tuple[Column, int]]:
        """The columns of lines, and how wide each is."""
        services = self.density is Density.SERVICES
        return columns_for(self.line_width, services=services, empty=self._empty)

    def show_cards(self, cards: Sequence[Card], now: float) -> None:
        """Show these cards, which were there at `now`."""
        self._cards = cards
        self._scene = Scene(now, newest(cards))
        self._arrange()

    def rearrange(self) -> None:
        """Show the same cards after `order`, `words` or `wanted` have changed."""
        for drawn in (self._drawn, self._boxes, self._lines):
            drawn.clear()
        self._arrange()
        self.refresh()
        self.post_message(self.Arranged())

    def _arrange(self) -> None:
        self._matched = matching(self._cards, self.words)
        if not self.size:
            return
        now = self._scene.now
        density = self.wanted or self._fitting(len(self._matched))
        changed = density is not self.density
        self.density = density
        self._empty = empty_columns(self._matched)
        if density is Density.SERVICES:
            self._items = list(self._with_opened(grouped(self._matched, self.order, now)))
        else:
            self._items = list(ordered(self._matched, self.order, now))
        self._keep_chosen()
        self.virtual_size = Size(self.line_width, self._height())
        if changed:
            self._drawn.clear()
            self.refresh()
        self._draw_changes()

    def _with_opened(self, groups: Sequence[Group]) -> Sequence[Item]:
        items: list[Item] = []
        for group in groups:
            items.append(group)
            if group.service in self._opened:
                items += group.cards
        return items

    def _fitting(self, count: int) -> Density:
        rows = -(-count // self._across)
        if rows * CARD_HEIGHT <= self.size.height and self.line_width >= LEAST_CARD:
            return Density.CARDS
        return Density.ROWS if count <= self.size.height else Density.SERVICES

    @property
    def _across(self) -> int:
        """How many cards stand side by side."""
        return max(1, self.line_width // LEAST_CARD)

    def _height(self) -> int:
        if self.density is Density.CARDS:
            return -(-len(self._items) // self._across) * CARD_HEIGHT
        return len(self._items)

    def _keep_chosen(self) -> None:
        keys = [key_of(item) for item in self._items]
        if self._chosen in keys:
            self._index = keys.index(self._chosen)
        else:
            self._chosen = None
            self._index = max(0, min(self._index, len(keys) - 1))

    # Drawing

    def _visible(self) -> range:
        top = self.scroll_offset.y
        return range(top, top + self.size.height)

    def _draw_changes(self) -> None:
        visible = self._visible()
        for y in [y for y in self._drawn if y not in visible]:
            del self._drawn[y]
        style = self.rich_style
        for y in visible:
            strip = self._draw(y, style)
            if strip != self._drawn.get(y):
                self._drawn[y] = strip
                self.refresh_line(y)

    def render_line(self, y: int) -> Strip:
        """Return a line of what is seen."""
        line = y + self.scroll_offset.y
        strip = self._drawn.get(line)
        if strip is None:
            strip = self._drawn[line] = self._draw(line)
        return strip

    def _draw(self, y: int, style: Style | None = None) -> Strip:
        style = self.rich_style if style is None else style
        width = self.line_width
        segments, row = self._line_of_cards(y, width) if self.density is Density.CARDS else self._line(y)
        strip = Strip(segments).adjust_cell_length(width)
        return strip.apply_style(style + CHOSEN_ROW if row else style)

    def _line_of_cards(self, y: int, width: int) -> tuple[list[Segment], bool]:
        row, line = divmod(y, CARD_HEIGHT)
        across = self._across
        segments: list[Segment] = []
        first = row * across
        for index, item in enumerate(self._items[first : first + across], first):
            if isinstance(item, Card):
                segments += self._box(index, item, width // across)[line]
        return segments, False

    def _box(self, index: int, card: Card, width: int) -> list[list[Segment]]:
        """The lines of a card, drawn again only if that could make a difference."""
        chosen = index == self._index
        depends = (self._depends(card), chosen, width)
        known = self._boxes.get(index)
        if known is None or known[0] != depends:
            known = self._boxes[index] = (depends, card_lines(card, width, self._scene, chosen=chosen))
        return known[1]

    def _line(self, y: int) -> tuple[list[Segment], bool]:
        if y >= len(self._items):
            return [], False
        item, chosen = self._items[y], y == self._index
        columns = self.columns
        if isinstance(item, Group):
            opened = item.service in self._opened
            return group_line(item, columns, self._scene, chosen=chosen, opened=opened), chosen
        repeats = (
            y > 0 and self.order is Order.SERVICE and self._items[y - 1].service == item.service
        ) or self.density is Density.SERVICES
        depends = (self._depends(item), chosen, repeats, self.line_width, self._empty)
        known = self._lines.get(y)
        if known is None or known[0] != depends:
            line = row_line(item, columns, self._scene, chosen=chosen, repeats=repeats)
            known = self._lines[y] = (depends, line)
        return known[1], chosen

    def _depends(self, card: Card) -> object:
        """What the drawing of a card depends on: what was heard of it, since when nothing, who is newest."""
        age = card.age(self._scene.now)
        return card.host, card.seen, int(age) if age > LATE else None, self._scene.newest

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002
        self.rearrange()

    # The cursor

    def choose(self, index: int) -> None:
        """Put the cursor on an item, and the item where it is seen."""
        if not self._items:
            return
        self._index = max(0, min(index, len(self._items) - 1))
        self._chosen = key_of(self._items[self._index])
        height = CARD_HEIGHT if self.density is Density.CARDS else 1
        row = self._index // self._across if self.density is Density.CARDS else self._index
        self.scroll_to_region(Region(0, row * height, 1, height), animate=False)
        self._draw_changes()

    def action_move(self, key: str) -> None:
        """Move the cursor."""
        cards = self.density is Density.CARDS
        across = self._across if cards else 1
        page = max(1, self.size.height // (CARD_HEIGHT if cards else 1)) * across
        if key in {"left", "right"} and not cards:
            self._turn(opened=key == "right")
            return
        steps = {"up": -across, "down": across, "left": -1, "right": 1, "pageup": -page, "pagedown": page}
        ends = {"home": 0, "end": len(self._items) - 1}
        self.choose(ends[key] if key in ends else self._index + steps[key])

    def action_open(self) -> None:
        """Open what the cursor is on: an instance to see all of it, a service to see its instances."""
        item = self.chosen
        if isinstance(item, Group):
            self._turn(opened=item.service not in self._opened)
        elif item is not None:
            self.post_message(self.Opened(item))

    def _turn(self, *, opened: bool) -> None:
        """Open or close the service that the cursor is on or below."""
        item = self.chosen
        if item is None or self.density is not Density.SERVICES:
            return
        if opened:
            self._opened.add(item.service)
        else:
            self._opened.discard(item.service)
        self._chosen = ("service", item.service)
        self.rearrange()

    def on_click(self, event: Click) -> None:
        """A click chooses, a second one opens."""
        index = self._index_at(event.x, event.y + self.scroll_offset.y)
        if index is None:
            return
        was_chosen = index == self._index
        self.choose(index)
        if was_chosen or event.chain > 1:
            self.action_open()

    def _index_at(self, x: int, y: int) -> int | None:
        if self.density is Density.CARDS:
            across = self._across
            column = x // (self.line_width // across)
            index = y // CARD_HEIGHT * across + column if column < across else len(self._items)
        else:
            index = y
        return index if index < len(self._items) else None
