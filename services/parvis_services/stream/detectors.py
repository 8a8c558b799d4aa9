"""The detectors of a site: the keys `parvis.detectors` and `parvis.detector` of its configuration."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from parvis.config import Config, ConfigError
from parvis.config.variables import DETECTOR
from parvis_services.stream.addresses import RING, check_address, check_ring_name
from parvis_services.stream.dcid import DCID_KEYS
from parvis_services.stream.events import Header

KEY: Final = "parvis.detectors"
CHOSEN: Final = DETECTOR

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_STRICT: Final = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
_IN_FILE_NAMES: Final = ("detector", "dcid", "series")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class RingSettings(BaseModel):
    """The ring in memory that several services read one stream from.

    Attributes:
        name: Of the ring, among those of this machine; by default that of the detector.
        slots: How many messages it holds.
        slot_megabytes: Memory for each of them, in MB; a larger message takes several.
        group: Members of this group may read it, too; by default only who runs the receiver.
    """

    model_config = _STRICT

    name: str | None = None
    slots: int = Field(default=256, ge=4, le=100_000)
    slot_megabytes: float = Field(default=4, gt=0, le=1024)
    group: Text | None = None

    @field_validator("name")
    @classmethod
    def _usable(cls, value: str | None) -> str | None:
        return None if value is None else check_ring_name(value)


class GeometrySettings(BaseModel):
    """What holds where the detector does not say it; units as of `Header`."""

    model_config = _STRICT

    pixel_size: tuple[Positive, Positive] | None = None
    beam_centre: tuple[float, float] | None = None
    distance: Positive | None = None
    wavelength: Positive | None = None
    energy: Positive | None = None
    saturation: int | None = Field(default=None, gt=0)
    thickness: Positive | None = None
    material: Text | None = None

    def completed(self, header: Header) -> Header:
        """The header, with what is missing filled in."""
        missing = {
            name: value
            for name, value in self.model_dump(exclude_none=True).items()
            if getattr(header, name) is None
        }
        return replace(header, **missing)


class DetectorSettings(BaseModel):
    """What a site says of a detector.

    Attributes:
        stream: Where it sends its images: `tcp://HOST:PORT`, `ipc://PATH`, or with `sub+` in front if it
            publishes rather than pushes.
        channel: Which energy threshold to take, if it has several; by default the first of each image.
        ring: The ring that the receiver fills and that all others read; without, whoever takes the stream
            takes it from the detector itself, and only one can.
        store: The image store that its images go to, by its name under `parvis.stores`.
        bucket: The bucket there; layout `prototype` has one for each data collection.
        prefix: What all keys there begin with.
        layout: Of the objects: `standard` or `prototype`.
        uploaders: How many images are stored at a time.
        memory: How much memory images that wait may take, in MB.
        when_slow: What happens when the store is too slow for that: `drop` images, counted, or `block`, which
            stops the detector's stream.
        drain: Seconds that there are, when the service is told to stop, to store what is in memory.
        series_timeout: Seconds without an image after which a series is over.
        dcid_keys: Where the DCID stands in what the beamline has the detector send along.
        recipes: Recipes that are started for each data collection, if nobody else starts them.
        directory: Where HDF5 files go; `{detector}`, `{dcid}`, `{series}` and `{date}` are filled in.
        file_name: What they are called, without ending; `{dcid}`, `{series}` and `{detector}` are filled in.
        images_per_file: How many images go into each data file.
        geometry: What holds where the detector does not say it.
    """

    model_config = _STRICT

    stream: str
    channel: Text | None = None
    ring: RingSettings | None = None
    store: Text | None = None
    bucket: str | None = None
    prefix: str = ""
    layout: Literal["standard", "prototype"] = "standard"
    uploaders: int = Field(default=4, ge=1, le=64)
    memory: int = Field(default=512, ge=16, le=1_000_000)
    when_slow: Literal["drop", "block"] = "drop"
    drain: float = Field(default=8, ge=0, le=300)
    series_timeout: float = Field(default=30, gt=0, le=86_400)
    dcid_keys: tuple[Text, ...] = DCID_KEYS
    recipes: tuple[Text, ...] = ()
    directory: Path | None = None
    file_name: str = "{dcid}_{series}"
    images_per_file: int = Field(default=1000, ge=1, le=1_000_000)
    geometry: GeometrySettings = GeometrySettings()

    @field_validator("stream")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return check_address(value)

    @field_validator("bucket")
    @classmethod
    def _is_bucket(cls, value: str | None) -> str | None:
        from parvis_services.stores.url import check_bucket

        return None if value is None else check_bucket(value)

    @field_validator("prefix")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        from parvis_services.stores.url import check_key

        return check_key(value.strip("/")) if value.strip("/") else ""

    @field_validator("dcid_keys")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name at least one key")
        return value

    @field_validator("recipes")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name[:40]!r} is no name of a recipe")
        return value

    @field_validator("directory")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_absolute():
            raise ValueError("must be an absolute path")
        return None if value is None else value.expanduser()

    @field_validator("file_name")
    @classmethod
    def _fillable(cls, value: str) -> str:
        _check_file_name(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.ring is not None and self.stream.startswith(RING):
            raise ValueError("ring: the stream is a ring already; a receiver fills one from a detector")
        if self.store is not None and self.layout == "standard" and self.bucket is None:
            raise ValueError("bucket: the standard layout needs the name of a bucket")
        return self


def detectors(config: Config) -> dict[str, DetectorSettings]:
    """All detectors of a configuration, by name.

    Raises:
        ConfigError: What it says of one cannot be.
    """
    content: Any = config.storage.get(KEY)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{KEY} must be a mapping from the names of detectors to what they are")
    return {str(name): _detector(str(name), one) for name, one in cast("dict[Any, Any]", content).items()}


def detector_of(config: Config) -> tuple[str, DetectorSettings]:
    """The detector that this process is for: the one that `parvis.detector` names (or the variable
    `PARVIS_DETECTOR`), else the only one that there is.

    Raises:
        ConfigError: There is none, or none of that name, or it is not said which, or what is said of one
            cannot be.
    """
    known = detectors(config)
    if not known:
        raise ConfigError(f"no detector is configured: {KEY} in the storage of the configuration says none")
    chosen = config.storage.get(CHOSEN)
    if chosen is None:
        if len(known) > 1:
            raise ConfigError(
                f"there are several detectors ({', '.join(known)}): say which, by PARVIS_DETECTOR or {CHOSEN}"
            )
        return next(iter(known.items()))
    if str(chosen) not in known:
        raise ConfigError(
            f"{CHOSEN} (or PARVIS_DETECTOR): there is no detector {str(chosen)[:80]!r} under {KEY}, "
            f"only {', '.join(known)}"
        )
    return str(chosen), known[str(chosen)]


def ring_of(name: str, settings: DetectorSettings) -> str | None:
    """Name of the ring of a detector, or None if it has none."""
    return None if settings.ring is None else settings.ring.name or name


def address_of(name: str, settings: DetectorSettings) -> str:
    """Where to take the stream of a detector from: its ring if it has one, else the detector itself."""
    ring = ring_of(name, settings)
    return settings.stream if ring is None else f"ring://{ring}"


def file_name_of(name: str, settings: DetectorSettings, dcid: int | None, series: int) -> str:
    """The name of the HDF5 file of a series, without ending; a series of no DCID has `none` for it."""
    values = {"detector": name, "dcid": "none" if dcid is None else str(dcid), "series": str(series)}
    parts = string.Formatter().parse(settings.file_name)
    return "".join(literal + (values[field] if field else "") for literal, field, _, _ in parts)


def _check_file_name(template: str) -> None:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"is no good: {error}") from None
    for literal, field, form, conversion in parts:
        if not re.fullmatch(r"[A-Za-z0-9_.+=-]*", literal, re.ASCII):
            raise ValueError("may have letters, digits and '_.+=-' beside what is filled in")
        if field is not None and (field not in _IN_FILE_NAMES or form or conversion):
            raise ValueError(f"only {{{'}, {'.join(_IN_FILE_NAMES)}}} can be filled in")
    if not template or template.startswith("."):
        raise ValueError("must be a name that does not begin with a dot")
    if "series" not in [field for _, field, _, _ in parts]:
        raise ValueError(
            "must hold {series}: a data collection may have several, each with a file of its own"
        )


def _detector(name: str, content: Any) -> DetectorSettings:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{KEY}: {name[:80]!r} cannot name a detector: letters, digits and '_.-'")
    if not isinstance(content, Mapping):
        raise ConfigError(f"{KEY}.{name} must be a mapping of settings")
    try:
        return DetectorSettings.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_problem(one) for one in error.errors(include_url=False, include_input=False))
    raise ConfigError(f"{KEY}.{name}: {problems}")


def _problem(error: Any) -> str:
    place = ".".join(str(part)[:80] for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
