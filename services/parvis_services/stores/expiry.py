"""How long series stay in their stores: by bucket, prefix and class of experiment.

A store's own rules count days, and know nothing of what an image is for. So series whose time is over are
swept hour by hour; the store's rule is the backstop, for when nobody sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from parvis.config import ConfigError
from parvis_services.stores.catalogue import StoredSeries, series_in
from parvis_services.stores.layout import Layout, SeriesPlace, is_prototype_bucket
from parvis_services.stores.pins import pinned_until
from parvis_services.stores.removal import remove_empty_bucket, remove_series
from parvis_services.stores.store import DamagedObject, ImageStore, NoSuchObject, StoreError
from parvis_services.stores.url import check_bucket, check_key

#: Key of the configuration's storage that has the rules.
EXPIRY: Final = "parvis.store_expiry"

#: Key of the appendix of a series that says what class of experiment it is of.
EXPERIMENT_CLASS: Final = "experiment_class"

_DEFAULT: Final = "default"
_HOURS: Final[Mapping[str, float]] = {"grid": 24, "rotation": 72, _DEFAULT: 48}
_MOST_HOURS: Final = 24 * 366 * 10
_HOUR: Final = 3600.0
_LONGEST_CLASS: Final = 60

_Hours = Annotated[float, Field(gt=0, le=_MOST_HOURS)]


class ExpiryRule(BaseModel):
    """How long series stay in a part of a store.

    Attributes:
        store: Name of the store in the configuration.
        bucket: Which bucket; none for the prototype's layout: all buckets whose names are numbers.
        layout: How keys are made.
        prefix: Only series whose keys begin with it, up to a slash. Of rules that fit, the longest counts.
        classes: Hours for each class of experiment, from the last image on; `default` for all others.
        backstop_days: Days after which the store itself deletes what is left, pinned or not.
        gigabytes: How much there may be; by default as much as the store says.
        alarm_percent: How much of that gives alarm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    store: str
    bucket: Annotated[str, AfterValidator(check_bucket)] | None = None
    layout: Layout = "standard"
    prefix: str = ""
    classes: dict[str, _Hours] = Field(default_factory=lambda: dict(_HOURS))
    backstop_days: int | None = Field(default=None, ge=1, le=3660)
    gigabytes: float | None = Field(default=None, gt=0)
    alarm_percent: float = Field(default=80, gt=0, le=100)

    @property
    def begins(self) -> str:
        """What the keys begin with that it is for."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def where(self) -> str:
        """What it is for, as people call it."""
        bucket = self.bucket or "every bucket named after a data collection"
        return f"{self.store}: {bucket}" + (f", {self.prefix}" if self.prefix else "")

    @property
    def hours(self) -> Mapping[str, float]:
        """Hours for each class, `default` among them."""
        return self.classes if _DEFAULT in self.classes else {_DEFAULT: _HOURS[_DEFAULT], **self.classes}

    @property
    def days(self) -> int:
        """Days of the backstop: by default well behind what the classes say."""
        return self.backstop_days or math.ceil(max(self.hours.values()) / 24) + 7

    def hours_of(self, experiment: str) -> float:
        """Hours that series of a class stay."""
        return self.hours.get(experiment, self.hours[_DEFAULT])

    def buckets(self, store: ImageStore) -> list[str]:
        """The buckets that it is for. Raises StoreError."""
        return [self.bucket] if self.bucket else list(filter(is_prototype_bucket, store.buckets()))


def rules_of(storage: Mapping[str, Any]) -> list[ExpiryRule]:
    """Read `parvis.store_expiry` of the configuration; nothing there means that nothing expires.

    Raises:
        ConfigError: A rule is no good.
    """
    given: Any = storage.get(EXPIRY) or []
    if not isinstance(given, list):
        raise ConfigError(f"{EXPIRY} must be a list of rules")
    rules = [_rule(entry, number) for number, entry in enumerate(cast("list[Any]", given), 1)]
    places = [(rule.store, rule.bucket, rule.prefix) for rule in rules]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"{EXPIRY}: two rules for {'/'.join(part or '' for part in place)}")
    return rules


def _rule(entry: Any, number: int) -> ExpiryRule:
    try:
        rule = ExpiryRule.model_validate(entry)
        if rule.prefix:
            check_key(rule.prefix)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        raise ConfigError(f"{EXPIRY}, rule {number}: {place}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigError(f"{EXPIRY}, rule {number}: prefix: {error}") from None
    if (rule.bucket is None) != (rule.layout == "prototype"):
        raise ConfigError(
            f"{EXPIRY}, rule {number}: it must name a bucket, or else the layout 'prototype', whose buckets "
            "are named after data collections"
        )
    if rule.days * 24 <= max(rule.hours.values()):
        raise ConfigError(
            f"{EXPIRY}, rule {number}: backstop_days would delete before the hours of its classes are over"
        )
    return rule


@dataclass(slots=True)
class Swept:
    """What came of a sweep.

    Attributes:
        rule: By which rule.
        deleted: Series that are gone.
        pinned: Series whose time is over, and that pins keep.
        kept: How many series stay.
        used: Bytes of what stays.
        room: Bytes that there may be, if that is known.
    """

    rule: ExpiryRule
    deleted: list[StoredSeries] = field(default_factory=list[StoredSeries])
    pinned: list[StoredSeries] = field(default_factory=list[StoredSeries])
    kept: int = 0
    used: int = 0
    room: int | None = None

    @property
    def percent(self) -> float | None:
        """How full it is, if that is known."""
        return None if not self.room else 100 * self.used / self.room

    @property
    def alarm(self) -> str:
        """What to say of it if it is too full; empty if it is not."""
        percent = self.percent
        if percent is None or percent < self.rule.alarm_percent:
            return ""
        used, room = self.used / 1e9, (self.room or 0) / 1e9
        return f"{self.rule.where} is {percent:.0f} % full: {used:.3g} of {room:.3g} GB"


def sweep(
    store: ImageStore,
    rule: ExpiryRule,
    rules: Sequence[ExpiryRule],
    now: float,
    *,
    dry_run: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Swept:
    """Delete the series of a rule whose time is over.

    It may be interrupted at any moment, and two may do it at once: whoever comes next goes on.

    Args:
        store: The store of the rule; must be allowed to list, read and delete.
        rule: What to look at.
        rules: All rules: what one with a longer prefix is for is left to that.
        now: Seconds since 1970.
        dry_run: Only find out.
        stopped: Whether to stop between two series.

    Raises:
        StoreError: The store did not do it.
    """
    swept = Swept(rule)
    for series in _series(store, rule, rules):
        if stopped():
            break
        if not is_expired(store, series, rule, now):
            swept.kept += 1
            swept.used += series.size
        elif series.pins and pinned_until(store, series.place, now) is not None:
            swept.pinned.append(series)
            swept.used += series.size
        else:
            if not dry_run:
                _remove(store, series.place, stopped)
            swept.deleted.append(series)
    swept.room = _room(store, rule)
    return swept


def is_expired(store: ImageStore, series: StoredSeries, rule: ExpiryRule, now: float) -> bool:
    """Whether the time of a series is over, pins left out. Raises StoreError."""
    age = (now - series.last) / _HOUR
    if age < min(rule.hours.values()):
        return False
    if not (series.has_header or series.images):  # what is left of one that was deleted
        return True
    return age >= rule.hours_of(class_of(store, series.place))


def set_backstop(store: ImageStore, rule: ExpiryRule, bucket: str) -> None:
    """Have the store itself delete what nobody sweeps; a directory cannot. Raises StoreError."""
    if store.scheme != "dir":
        store.expire(bucket, rule.days, rule.begins)


def class_of(store: ImageStore, place: SeriesPlace) -> str:
    """What class of experiment a series is of: `default` without a good header. Raises StoreError."""
    try:
        return experiment_class(store.get(place.bucket, place.header).data)
    except (NoSuchObject, DamagedObject):
        return _DEFAULT


def experiment_class(header: bytes) -> str:
    """What class of experiment the header of a series tells of.

    The appendix, which the beamline gives the detector to send along, may say so: `experiment_class`.
    Otherwise a series during which an axis turns is a `rotation`, and one during which none does a `grid`. A
    detector that was told nothing of the axes has zeros for all: such a series is `default`.

    Args:
        header: The object `header`, of either layout.
    """
    import orjson

    from parvis_services.stores.series_header import BadHeader, load_header

    try:
        content: Any = orjson.loads(header)
    except orjson.JSONDecodeError:
        content = None
    said = _said(content)
    if said:
        return said
    try:
        axes = load_header(header).axes
    except BadHeader:
        return _DEFAULT
    if any(increment for _, increment in axes.values()):
        return "rotation"
    return "grid" if any(start for start, _ in axes.values()) else _DEFAULT


def _said(content: Any) -> str:
    appendix: Any = cast("dict[str, Any]", content).get("appendix") if isinstance(content, dict) else None
    if isinstance(appendix, str):
        import orjson

        try:
            appendix = orjson.loads(appendix)
        except orjson.JSONDecodeError:
            return ""
    if not isinstance(appendix, dict):
        return ""
    said: Any = cast("dict[str, Any]", appendix).get(EXPERIMENT_CLASS)
    return said.strip().lower()[:_LONGEST_CLASS] if isinstance(said, str) else ""


def _series(store: ImageStore, rule: ExpiryRule, rules: Sequence[ExpiryRule]) -> Iterator[StoredSeries]:
    """The series that a rule is for."""
    closer = [
        other.begins
        for other in rules
        if (other.store, other.bucket) == (rule.store, rule.bucket)
        and other.begins.startswith(rule.begins)
        and other.begins != rule.begins
    ]
    for bucket in rule.buckets(store):
        try:
            for series in series_in(store, bucket, rule.begins):
                place = series.place
                if place.layout == rule.layout and not place.frames_prefix.startswith(tuple(closer)):
                    yield series
        except NoSuchObject:
            if rule.bucket is not None:
                raise


def _remove(store: ImageStore, place: SeriesPlace, stopped: Callable[[], bool]) -> None:
    try:
        remove_series(store, place, stopped)
        if place.layout == "prototype":
            remove_empty_bucket(store, place.bucket)
    except NoSuchObject:
        pass  # somebody else has removed the bucket


def _room(store: ImageStore, rule: ExpiryRule) -> int | None:
    if rule.gigabytes is not None:
        return int(rule.gigabytes * 1e9)
    if rule.bucket is None:
        return None
    try:
        return store.usage(rule.bucket, rule.begins).capacity
    except StoreError:
        return None
