"""What the records tell of a recipe, for whoever waits for its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from parvis.config import Config

if TYPE_CHECKING:
    from parvis.observe.records import Records
    from parvis.observe.story import Story

_PAUSE: Final = 1.0  # seconds between two looks
_PATIENCE: Final = 5.0  # seconds after which a recipe that the records do not know is not reported to them


class StoryWatch:
    """Looks the story of a recipe up now and then, if there are records here.

    Args:
        config: Says where the records are.
    """

    def __init__(self, config: Config) -> None:
        from parvis.observe.hops import stuck_after

        self._stuck_after = stuck_after(config)
        self._records = _open(config)
        self._story: Story | None = None
        self._first_asked: float | None = None
        self._asked = 0.0

    def story(self, recipe_id: str | None) -> Story | None:
        """Return what is told of a recipe; None as long as nothing is, and where there are no records."""
        from parvis.observe import hop_table
        from parvis.observe.records import RecordsError

        now = time.monotonic()
        if self._records is None or recipe_id is None or now - self._asked < _PAUSE:
            return self._story
        self._asked = now
        self._first_asked = self._first_asked or now
        try:
            with self._records.reading() as database:
                story = hop_table.story(database, recipe_id, time.time(), self._stuck_after)
        except RecordsError:
            return self._story
        if story.hops or story.started is not None:
            self._story = story
        return self._story

    @property
    def may_tell(self) -> bool:
        """Whether there is a story, or one may still come."""
        if self._records is None:
            return False
        waited = 0.0 if self._first_asked is None else time.monotonic() - self._first_asked
        return self._story is not None or waited < _PATIENCE


def _open(config: Config) -> Records | None:
    from parvis.observe.records import Records, RecordsError
    from parvis.observe.records_place import find_records

    try:
        return Records(find_records(config))
    except RecordsError:
        return None
