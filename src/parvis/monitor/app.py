"""What all monitors have in common: colours, and ending in good order whatever happens."""

from __future__ import annotations

import os
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from parvis.monitor.look import THEME


class MonitorApp(App[None]):
    """A live view. `parvis.monitor.terminal.show` shows it.

    Attributes:
        failure: What ended it, if it could not go on.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
    ]

    def __init__(self) -> None:
        colourless = bool(os.environ.get("NO_COLOR"))
        if not colourless:
            os.environ.pop("NO_COLOR", None)  # empty, it asks for nothing
        super().__init__(ansi_color=True if colourless else None)
        self.failure: Exception | None = None
        self.animation_level = "none"
        if colourless:
            self.theme = "ansi-dark"
        else:
            self.register_theme(THEME)
            self.theme = THEME.name

    def _handle_exception(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """End without printing a traceback: whoever started the view says what went wrong."""
        self._close_messages_no_wait()
