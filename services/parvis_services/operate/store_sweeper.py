"""The store sweeper: deletes series of images whose time in the store is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import ClassVar, Final, NoReturn

from parvis.config import Config, ConfigError
from parvis.recipe.problem import printable
from parvis.service.base import Reject, Service, Step
from parvis.service.contract import Anything
from parvis.service.figures import Figure
from parvis_services.stores.expiry import EXPIRY, ExpiryRule, Swept, rules_of, set_backstop, sweep
from parvis_services.stores.profiles import open_store
from parvis_services.stores.store import ImageStore, NoSuchObject, StoreError

SWEEP_EVERY: Final = "parvis.store_sweeper.interval"

_SWEEP_EVERY: Final = 600.0
_STOP_TIMEOUT: Final = 30.0


class StoreSweeper(Service[Anything, Anything]):
    """Deletes series of images whose time in their store is over, and warns of stores that grow full.

    How long they stay says `parvis.store_expiry`, for each bucket and class of experiment. It looks every
    `parvis.store_sweeper.interval` (600 s), and takes no messages. Series with a pin are kept. It sets the
    rule of the store itself, too, which deletes what is left after days, if nobody sweeps.
    """

    name: ClassVar[str] = "StoreSweeper"
    queue: ClassVar[str] = "store_sweeper"
    plain_messages: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._rules = rules_of(config.storage)
        self._interval = _seconds(config)
        self._stores: dict[str, ImageStore] = {}
        self._backstops: set[tuple[str, str, str]] = set()
        self._swept: dict[str, Swept] = {}
        self._deleted = 0
        self._warned: dict[str, str] = {}  # by part of a store, of what was warned last
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the stores and begin to look."""
        if not self._rules:
            raise ConfigError(f"there is nothing to sweep: {EXPIRY} of the configuration has no rules")
        for rule in self._rules:
            if rule.store not in self._stores:
                self._stores[rule.store] = open_store(rule.store, "manage", self.config.storage)
        self._thread = threading.Thread(target=self._run, name="store sweeper", daemon=True)
        self._thread.start()
        self.log.info("sweeping %s", "; ".join(rule.where for rule in self._rules))

    def stop(self) -> None:
        """Leave; a series that is deleted in part is gone on with next time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT)
        for store in self._stores.values():
            store.close()

    def process(self, payload: Anything, step: Step[Anything]) -> NoReturn:  # noqa: ARG002
        """Take no messages: it looks by itself."""
        raise Reject("the store sweeper takes no messages; it looks after the stores by itself")

    def doing(self) -> str:
        """Say which stores are too full."""
        return "; ".join(filter(None, (swept.alarm for swept in list(self._swept.values()))))

    def figures(self) -> Sequence[Figure]:
        """Say how full the stores are."""
        swept = list(self._swept.values())
        fullest = max((one.percent or 0 for one in swept), default=0)
        alarms = sum(bool(one.alarm) for one in swept)
        return [
            Figure("store_used_bytes", "Bytes of what is swept, and stays", sum(one.used for one in swept)),
            Figure("store_used_percent", "How full the fullest part of a store is", fullest),
            Figure("store_alarms", "Parts of stores that are too full", alarms),
            Figure("store_pinned_series", "Series that pins keep", sum(len(one.pinned) for one in swept)),
            Figure("store_deleted_series", "Series that were deleted", self._deleted, is_counter=True),
        ]

    def _run(self) -> None:
        while True:
            for rule in self._rules:
                self._look(rule)
            if self._stopping.wait(self._interval):
                return

    def _look(self, rule: ExpiryRule) -> None:
        if self._stopping.is_set():
            return
        store = self._stores[rule.store]
        try:
            self._set_backstops(store, rule)
            swept = sweep(store, rule, self._rules, time.time(), stopped=self._stopping.is_set)
        except NoSuchObject:
            self._warn_once(rule, "no bucket", f"{rule.where}: there is no such bucket (yet)")
        except StoreError as error:
            self._warn_once(rule, error.reason, f"{rule.where}: to be swept next time: {error}")
        except Exception:
            self.log.exception("%s: to be swept next time", rule.where)
        else:
            self._tell(rule, swept)

    def _set_backstops(self, store: ImageStore, rule: ExpiryRule) -> None:
        for bucket in rule.buckets(store):
            where = (rule.store, bucket, rule.prefix)
            if where in self._backstops:
                continue
            try:
                set_backstop(store, rule, bucket)
            except NoSuchObject:
                continue  # somebody else has just removed it, or it is still to be made
            except StoreError as error:
                self.log.warning("%s: the store got no rule of its own: %s", rule.where, error)
            self._backstops.add(where)

    def _tell(self, rule: ExpiryRule, swept: Swept) -> None:
        self._swept[rule.where] = swept
        self._deleted += len(swept.deleted)
        for series in swept.deleted:
            place = series.place
            self.log.info(
                "deleted %s/%s: %d images, %.1f MB",
                place.bucket,
                place.frames_prefix.rstrip("/"),
                series.images,
                series.size / 1e6,
            )
        self._warn_once(rule, "full" if swept.alarm else "", swept.alarm)

    def _warn_once(self, rule: ExpiryRule, what: str, text: str) -> None:
        """Say what is wrong, once as long as it is the same."""
        if self._warned.get(rule.where, "") != what and text:
            self.log.warning("%s", printable(text, 500))
        self._warned[rule.where] = what


def _seconds(config: Config) -> float:
    value = config.storage.get(SWEEP_EVERY, _SWEEP_EVERY)
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise ConfigError(f"{SWEEP_EVERY} must be a number of seconds, it is {str(value)[:20]!r}")
    return seconds
