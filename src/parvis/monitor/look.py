"""How the monitors look: one palette, one sign and one word for each state.

Colour never carries a meaning alone: whoever sees none still has the sign and the word.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.theme import Theme

GREEN: Final = "#8fc98b"
YELLOW: Final = "#e0bf6c"
RED: Final = "#ee8277"
BLUE: Final = "#84b0dd"
FAINT: Final = "#7b8794"
TEXT: Final = "#d5dae0"
EDGE: Final = "#3c4652"
SELECTED: Final = "#26384a"
_BACKGROUND: Final = "#15191e"
_PANEL: Final = "#1e242b"

#: The colours of all that textual draws itself.
THEME: Final = Theme(
    name="parvis",
    primary=BLUE,
    secondary=FAINT,
    accent=BLUE,
    foreground=TEXT,
    background=_BACKGROUND,
    surface=_PANEL,
    panel=_PANEL,
    success=GREEN,
    warning=YELLOW,
    error=RED,
    dark=True,
    variables={
        "footer-background": _PANEL,
        "footer-key-foreground": BLUE,
        "footer-description-foreground": FAINT,
        "scrollbar": EDGE,
        "scrollbar-background": _BACKGROUND,
        "scrollbar-hover": FAINT,
        "scrollbar-active": BLUE,
        "border": EDGE,
    },
)

PLAIN: Final = Style(color=TEXT)
DIM: Final = Style(color=FAINT)
STRONG: Final = Style(color=TEXT, bold=True)
GOOD: Final = Style(color=GREEN)
WARN: Final = Style(color=YELLOW)
BAD: Final = Style(color=RED, bold=True)
NOTE: Final = Style(color=BLUE)
FRAME: Final = Style(color=EDGE, dim=True)
CHOSEN: Final = Style(color=BLUE, bold=True)
CHOSEN_ROW: Final = Style(bgcolor=SELECTED, bold=True)

#: Sign and style of a state in words.
STATES: Final = {
    "processing": ("●", GOOD),
    "timer event": ("●", GOOD),
    "idle": ("○", DIM),
    "constructing": ("◌", WARN),
    "starting": ("◐", WARN),
    "shutting down": ("◑", WARN),
    "shutdown": ("◌", DIM),
    "error": ("✖", BAD),
    "no service loaded": ("◌", DIM),
}
_OTHER_STATE: Final = ("◇", PLAIN)
SILENT: Final = ("?", BAD)
_STEPS: Final = "▁▂▃▄▅▆▇█"


def state_look(state: str) -> tuple[str, Style]:
    """Return the sign and the style of a state."""
    return STATES.get(state, _OTHER_STATE)


def bar(share: float, width: int, style: Style) -> list[tuple[str, Style]]:
    """Return a thin bar, `width` cells wide, for a share from 0 to 1."""
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    full, half = divmod(halves, 2)
    done = "━" * full + "╸" * half
    return [(done, style), ("─" * (width - len(done)), FRAME)]


def load_style(share: float) -> Style:
    """Return the style of a utilisation: faint where there is hardly any, yellow near its limit."""
    if share < 0.1:
        return DIM
    return WARN if share > 0.9 else GOOD


def trend(values: list[float], width: int) -> str:
    """Return the last `width` values as a small graph, from none to the greatest of them."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return ("▁" * len(shown)).rjust(width)
    steps = len(_STEPS) - 1
    return "".join(_STEPS[round(max(0.0, value) / top * steps)] for value in shown).rjust(width)


@lru_cache(maxsize=4096)
def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` cut, with an ellipsis, or filled to `width` cells."""
    if width <= 0:
        return ""
    length = cell_len(text)
    if length <= width:
        space = " " * (width - length)
        return space + text if right else text + space
    return set_cell_size(text, width - 1) + "…"


def cell(text: str, width: int, style: Style = PLAIN, *, right: bool = False) -> Segment:
    """Return a piece of a line, `width` cells wide."""
    return Segment(fitted(text, width, right=right), style)
