"""What changes is told to those who watch: all of it at first, then what is new, and nothing piles up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from parvis.web import live as live_module
from parvis.web.live import Live, Part, TooManyWatchers, View, difference


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "INTERVAL", 0.001)


class Page:
    """A view that a test changes."""

    def __init__(self) -> None:
        self.view: View = _view(a="one", b="two")
        self.made = 0

    def make(self) -> View:
        self.made += 1
        return self.view


def _view(**parts: str) -> View:
    return {"list": [Part(name, html) for name, html in parts.items()]}


async def _next(watching: AsyncGenerator[bytes | None]) -> dict[str, dict[str, object]]:
    while True:
        news = await asyncio.wait_for(anext(watching), 10)
        if news is not None:
            return json.loads(news)


def test_who_watches_is_told_all_and_then_what_is_new() -> None:
    async def watch() -> None:
        page, live = Page(), Live()
        watching = live.watch("page", page.make)
        assert await _next(watching) == {"list": {"order": ["a", "b"], "parts": {"a": "one", "b": "two"}}}
        page.view = _view(b="2", c="three")
        assert await _next(watching) == {"list": {"order": ["b", "c"], "parts": {"b": "2", "c": "three"}}}
        page.view = _view(c="three", b="2")
        assert await _next(watching) == {"list": {"order": ["c", "b"], "parts": {}}}
        assert live.latest("page") == page.view
        await watching.aclose()

    asyncio.run(watch())


def test_one_who_reads_slowly_is_told_the_newest_alone() -> None:
    async def watch() -> None:
        page, live = Page(), Live()
        slow, quick = live.watch("page", page.make), live.watch("page", page.make)
        await _next(slow)
        await _next(quick)
        for text in ("2", "3", "4"):
            page.view = _view(a=text, b="two")
            assert (await _next(quick))["list"]["parts"] == {"a": text}
        assert (await _next(slow))["list"]["parts"] == {"a": "4"}
        await slow.aclose()
        await quick.aclose()

    asyncio.run(watch())


def test_a_view_that_nobody_watches_is_not_made() -> None:
    async def watch() -> None:
        page, live = Page(), Live()
        watching = live.watch("page", page.make)
        await _next(watching)
        await watching.aclose()
        assert live.watchers == 0
        assert live.latest("page") is None
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:  # what makes it ends
                await asyncio.sleep(0)

    asyncio.run(watch())


def test_a_view_that_fails_once_goes_on() -> None:
    async def watch() -> None:
        page, live = Page(), Live()
        tries = iter([RuntimeError("no")])

        def make() -> View:
            error = next(tries, None)
            if error is not None:
                raise error
            return page.make()

        watching = live.watch("page", make)
        assert "list" in await _next(watching)
        await watching.aclose()

    asyncio.run(watch())


def test_watchers_are_limited_and_let_go_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MOST_WATCHERS", 1)

    async def watch() -> None:
        page, live = Page(), Live()
        watching = live.watch("page", page.make)
        await _next(watching)
        with pytest.raises(TooManyWatchers):
            await anext(live.watch("page", page.make))
        live.close()
        assert [news async for news in watching if news is not None] == []

    asyncio.run(watch())


def test_nothing_is_said_of_a_list_that_stays_the_same() -> None:
    before, after = {**_view(a="1"), "other": [Part("x", "y")]}, {**_view(a="2"), "other": [Part("x", "y")]}
    assert set(json.loads(difference(before, after))) == {"list"}
