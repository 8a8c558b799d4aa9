"""What the records tell of a recipe, for whoever waits for its end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from parvis.config import Config

if TYPE_CHECKING:
    from parvis.observe.records import Records
    from parvis.observe.story import Story

_PAUSE: Final = 1.0  # seconds between two looks
_PATIENCE: Final = 3.0  # seconds after which a recipe that the records do not know is not reported to them


class StoryWatch:
    """Looks the story of a recipe up now and then: in the records here, or those of a collector elsewhere.

    It looks on a thread of its own, as a collector may take long to answer, or not be there.

    Args:
        config: Says where the records are.
    """

    def __init__(self, config: Config) -> None:
        from parvis.observe.hops import stuck_after

        self._config = config
        self._stuck_after = stuck_after(config)
        self._story: Story | None = None
        self._thread: threading.Thread | None = None
        self._begun = 0.0
        self._stop = threading.Event()
        self._has_records = True

    def story(self, recipe_id: str | None) -> Story | None:
        """Return what is told of a recipe; None as long as nothing is, and where there are no records."""
        if self._thread is None and recipe_id is not None:
            self._begun = time.monotonic()
            self._thread = threading.Thread(target=self._look, args=(recipe_id,), name="story", daemon=True)
            self._thread.start()
        return self._story

    @property
    def may_tell(self) -> bool:
        """Whether there is a story, or one may still come."""
        waited = 0.0 if self._thread is None else time.monotonic() - self._begun
        return self._story is not None or (self._has_records and waited < _PATIENCE)

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=_PAUSE)

    def _look(self, recipe_id: str) -> None:
        from parvis.observe.log_source import opened_recipes
        from parvis.observe.records import RecordsError

        try:
            with opened_recipes(self._config, [recipe_id]) as records:
                while not self._stop.wait(0.0 if self._story is None else _PAUSE):
                    self._tell(records, recipe_id)
        except RecordsError:
            self._has_records = False

    def _tell(self, records: Records, recipe_id: str) -> None:
        from parvis.observe import known_stories

        with records.reading() as database:
            story = known_stories.story(records, database, recipe_id, self._stuck_after)
        if story.hops or story.started is not None:
            self._story = story
        else:
            self._stop.wait(_PAUSE / 4)
