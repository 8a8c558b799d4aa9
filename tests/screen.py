"""What a terminal program made with textual shows, and using it as a person does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.pilot import Pilot

Script = Callable[[Pilot[None]], Awaitable[None]]


def use(app: App[None], script: Script, size: tuple[int, int] = (80, 24)) -> None:
    """Run an app without a terminal, and do with it what `script` does."""

    async def run() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await script(pilot)

    asyncio.run(run())


def screen(app: App[Any]) -> str:
    """Return what is on the screen, each sign in its place."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def until(pilot: Pilot[Any], condition: Callable[[], object], what: str, timeout: float = 20) -> None:
    """Return as soon as a condition holds, while the app goes on."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout:g} s for {what}; there is:\n{screen(pilot.app)}"
        await pilot.pause(0.05)


async def shows(pilot: Pilot[Any], *texts: str, timeout: float = 20) -> None:
    """Return as soon as the screen shows all of these."""
    what = ", ".join(texts)
    await until(pilot, lambda: all(text in screen(pilot.app) for text in texts), what, timeout)
