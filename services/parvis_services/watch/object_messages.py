"""What a watch of stored images is told, and what it tells."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator, model_validator

from parvis.recipe.template import is_open
from parvis.service.contract import Model
from parvis_services.number_ranges import Range
from parvis_services.stores.url import ObjectUrl, check_bucket, check_key
from parvis_services.watch.object_source import highest_number
from parvis_services.watch.watching import PatientParameters, WatchTimes


class ObjectParameters(PatientParameters):
    """Where to look, and for what.

    Attributes:
        objects: Address of what the keys of the images begin with: `s3://STORE/BUCKET/PREFIX`. It names a
            store of the configuration, and never a login.
        store: Instead of `objects`: the store, as the configuration names it.
        bucket: The bucket in it.
        prefix: What keys begin with there, up to a slash.
        pattern: How the rest of a key comes of the number of an image; with zeros in front.
        pattern_start: Number of the first image.
        pattern_end: Number of the last image. Needed to wait for images.
        list_all: Send what is stored now, and wait for nothing.
        manifest: Send what is stored now and the recipe was not told of, as the message says or the manifest
            of the series.
    """

    objects: str | None = Field(default=None, examples=["s3://store/bucket/prefix"])
    store: str | None = Field(default=None, examples=["store"])
    bucket: str | None = Field(default=None, examples=["bucket"])
    prefix: str = Field(default="", examples=["prefix"])
    pattern: str = Field(default="%06d", examples=["%06d"])
    pattern_start: int = Field(default=1, alias="pattern-start", ge=1, examples=[1])
    pattern_end: int | None = Field(default=None, alias="pattern-end", examples=[1])
    list_all: bool = Field(default=False, alias="list-all")
    manifest: bool = False

    @field_validator("objects")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_open(value):
            ObjectUrl.parse(value)
        return value

    @field_validator("store", "bucket", "prefix", "pattern")
    @classmethod
    def _is_no_address(cls, value: str | None) -> str | None:
        # Others would show it, and it may hold a login.
        if value is not None and {"@", ":"} & set(value) and not is_open(value):
            raise ValueError("an address belongs under objects; it names a store of the configuration")
        return value

    @field_validator("bucket")
    @classmethod
    def _names_a_bucket(cls, value: str | None) -> str | None:
        return value if value is None or is_open(value) else check_bucket(value)

    @field_validator("prefix")
    @classmethod
    def _begins_a_key(cls, value: str) -> str:
        prefix = value.strip("/")
        return check_key(prefix) if prefix and not is_open(prefix) else prefix

    @field_validator("pattern")
    @classmethod
    def _one_number(cls, value: str) -> str:
        if not is_open(value):
            highest_number(value)
        return value

    @field_validator("pattern_end")
    @classmethod
    def _behind_the_start(cls, value: int | None, info: ValidationInfo) -> int | None:
        start, pattern = info.data.get("pattern_start", 1), info.data.get("pattern", "{}")
        if value is not None and value < start:
            raise ValueError(f"pattern-start {start} to pattern-end {value} is no range of images")
        if value is not None and not is_open(pattern) and value > highest_number(pattern):
            raise ValueError(f"pattern {pattern} has no room for number {value}")
        return value

    @model_validator(mode="after")
    def _something_to_watch(self) -> ObjectParameters:
        if self.objects is None and (self.store is None or self.bucket is None) and not self.manifest:
            raise ValueError(
                "objects must say where to look: s3://STORE/BUCKET/PREFIX, with a store of the configuration "
                "and never a login; or store and bucket"
            )
        if self.pattern_end is None and self.waits:
            raise ValueError(
                "pattern-end must say up to which image to wait; or list-all: true, for no waiting"
            )
        return self

    @property
    def waits(self) -> bool:
        """Whether images are waited for."""
        return not self.list_all and not self.manifest


class ObjectStatus(WatchTimes):
    """How far a watch has come.

    Attributes:
        objects: Address of what the keys of the images begin with.
        first: Number of the first image that is looked for.
        last: Number of the last.
        seen: Images that the recipe knows of, as ranges of their numbers.
        told: How many of them it knew of before.
        looked: Number up to which gaps have been looked into, this time round.
    """

    objects: str
    first: int = Field(ge=1)
    last: int = Field(ge=0)
    seen: list[Range] = Field(default_factory=list[Range])
    told: int = Field(default=0, ge=0)
    looked: int = Field(default=0, ge=0)


class ObjectPayload(Model):
    """What starts a watch, or its own checkpoint.

    Attributes:
        status: How far the watch has come.
        manifest: Address of the manifest of a series.
        images_expected: How many images the series should have.
        told: Images that the recipe was told of, as ranges of their numbers; without it the manifest says
            which.
    """

    status: ObjectStatus | None = Field(default=None, alias="objectwatcher-status")
    manifest: str | None = None
    images_expected: int | None = Field(default=None, alias="images-expected", ge=0)
    told: list[Range] | None = None


class ObjectCount(Model):
    """How many images were expected, if that is known, and how many the recipe knows of."""

    images_expected: int | None = Field(default=None, alias="images-expected")
    images_seen: int = Field(alias="images-seen")


class ObjectEnd(ObjectCount):
    """The same at the end, whether that is all, and what is missing as ranges of numbers."""

    success: bool
    missing: list[Range]


class ImagesMissing(ObjectCount):
    """What is not in the store, and what the recipe was told of, as ranges of the numbers of images."""

    missing: list[Range]
    told: list[Range]
