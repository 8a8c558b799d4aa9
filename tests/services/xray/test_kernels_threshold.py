"""The compiled thresholds find the very pixels that the plain numpy ones find."""

from __future__ import annotations

import bz2
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from parvis_services.xray import oracle
from parvis_services.xray.kernels import bitshuffle_lz4, byte_offset, threshold
from parvis_services.xray.parameters import DispersionParameters
from real_data import real_data

ALGORITHMS = ("dispersion", "dispersion_extended")
COUNTS = ("u1", "u2", "u4", "i2", "i4")
NUMBERS = ("i2", "i4", "f4", "f8")
DEFAULT = DispersionParameters()


def same(
    image: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    trusted: tuple[float, float] = (0, 60_000),
    parameters: DispersionParameters = DEFAULT,
) -> dict[str, int]:
    """Compare both thresholds with the oracle; gives how many strong pixels each found."""
    found: dict[str, int] = {}
    for name in ALGORITHMS:
        expected = getattr(oracle, name)(image, mask, trusted, parameters)
        strong = getattr(threshold, name)(image, mask, trusted, parameters)
        assert strong.dtype == np.int64
        assert np.array_equal(strong, expected), name
        found[name] = len(strong)
    return found


def frame(kind: str, shape: tuple[int, int] = (90, 131), mean: float = 2.0, seed: int = 5) -> NDArray[Any]:
    """Poisson background, spots of Gaussian shape, gaps and dead pixels."""
    rng = np.random.default_rng(seed)
    slow, fast = np.indices(shape)
    image = np.full(shape, mean)
    for centre, brightness in zip(rng.random((25, 2)) * shape, rng.uniform(3, 30, 25), strict=True):
        distance = (slow - centre[0]) ** 2 + (fast - centre[1]) ** 2
        image += brightness * np.exp(-distance / 2)
    image = np.minimum(rng.poisson(image), 250)
    dtype = np.dtype(kind)
    missing = np.iinfo(dtype).max if dtype.kind == "u" else -1
    image[40:44] = missing
    image[:, 60:63] = missing
    image[rng.random(shape) < 0.003] = missing
    return image.astype(dtype)


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("mean", [0.03, 0.3, 2.0, 60.0])
def test_counts_of_every_type(kind: str, mean: float) -> None:
    found = same(frame(kind, mean=mean), trusted=(0, 120 if kind == "u1" else 30_000))
    if mean < 60:
        assert min(found.values()) > 50


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_may_be_negative(kind: str) -> None:
    image = frame("i4").astype(np.float64) - 0.7
    found = same(
        np.round(image).astype(kind) if kind[0] == "i" else image.astype(kind), trusted=(-20, 30_000)
    )
    assert min(found.values()) > 50


def test_a_mask_hides_pixels() -> None:
    image = frame("u2")
    mask = np.random.default_rng(2).random(image.shape) > 0.3
    assert same(image, mask) != same(image)
    assert same(image, np.zeros_like(mask)) == dict.fromkeys(ALGORITHMS, 0)


@pytest.mark.parametrize(
    "parameters",
    [
        DispersionParameters(kernel_size=(1, 1)),
        DispersionParameters(kernel_size=(2, 4)),
        DispersionParameters(kernel_size=(5, 1)),
        DispersionParameters(kernel_size=(1, 20)),
        DispersionParameters(kernel_size=(5, 5)),
        DispersionParameters(kernel_size=(7, 6)),
        DispersionParameters(gain=2.5),
        DispersionParameters(gain=0.01),
        DispersionParameters(n_sigma_b=0, n_sigma_s=0),
        DispersionParameters(n_sigma_b=2, n_sigma_s=1),
        DispersionParameters(n_sigma_b=30, n_sigma_s=8),
        DispersionParameters(min_local=0),
        DispersionParameters(min_local=30),
        DispersionParameters(min_local=1000),
        DispersionParameters(global_threshold=7),
        DispersionParameters(global_threshold=-5),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["u2", "i4", "f4"])
def test_every_parameter(parameters: DispersionParameters, kind: str) -> None:
    same(frame(kind), parameters=parameters, trusted=(0, 3_000))
    if kind != "u2":
        same(frame(kind), parameters=parameters, trusted=(-1, 3_000))


@pytest.mark.parametrize(
    "parameters",
    [
        DispersionParameters(kernel_size=(60, 200)),
        DispersionParameters(kernel_size=(200, 60), min_local=0),
        DispersionParameters(gain=1e300),
        DispersionParameters(gain=1e-300),
        DispersionParameters(n_sigma_b=1e300, n_sigma_s=1e300),
        DispersionParameters(n_sigma_s=1e30),
        DispersionParameters(n_sigma_b=1e-300, n_sigma_s=1e-300, gain=1e-10),
        DispersionParameters(global_threshold=1e300),
        DispersionParameters(min_local=10**12),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "f4"])
def test_extreme_parameters(parameters: DispersionParameters, kind: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        same(frame(kind, (50, 80)), parameters=parameters, trusted=(0, 200))


def test_a_box_of_any_size_takes_no_more_than_the_image() -> None:
    image = frame("u2", (50, 80))
    all_of_it = DispersionParameters(kernel_size=(80, 80))
    more = DispersionParameters(kernel_size=(10**12, 10**12))
    none = DispersionParameters(kernel_size=(10**12, 10**12), min_local=0)
    for name in ALGORITHMS:
        find = getattr(threshold, name)
        assert np.array_equal(find(image, None, (0, 200), more), find(image, None, (0, 200), all_of_it))
        assert len(find(image, None, (0, 200), none)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 3), (6, 200), (70, 5), (8, 64), (9, 65)])
def test_images_smaller_than_the_box(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).poisson(0.2, shape).astype(np.uint16)
    image.flat[image.size // 2] = 40
    same(image)
    same(image.astype(np.float32))
    same(image, parameters=DispersionParameters(kernel_size=(4, 2), n_sigma_b=1))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_has_no_strong_ones(shape: tuple[int, int]) -> None:
    for name in ALGORITHMS:
        assert len(getattr(threshold, name)(np.zeros(shape, np.uint16), None, (0, 10), DEFAULT)) == 0


@pytest.mark.parametrize("kind", ["u4", "i4"])
def test_pixels_of_2_to_the_24_and_more_are_tested_but_not_summed(kind: str) -> None:
    image = frame(kind)
    image[10, 20:24] = (2**24 - 1, 2**24, 2**24 + 1, 2**30)
    image[0, 0] = image[-1, -1] = 2**25
    image[70, 100] = 2**31 - 1
    for trusted in ((0, 2**24 - 1), (0, 2**24), (0, 2**31 - 1), (-1, 2**31 - 1), (2**24 - 1, 2**30)):
        same(image, trusted=trusted)
    strong = threshold.dispersion(image, None, (0, 2**31 - 1), DEFAULT)
    assert 10 * image.shape[1] + 23 in strong


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize(
    "trusted", [(0, 1e300), (-1e300, 1e300), (2.5, 90.5), (5, 4), (300, 400), (-9, -3), (-0.5, 0.5), (7, 7)]
)
def test_any_trusted_range(kind: str, trusted: tuple[float, float]) -> None:
    with np.errstate(over="ignore"):  # the oracle compares in the type of the image
        same(frame(kind, (40, 70)), trusted=trusted)


def test_a_trusted_range_that_is_no_range_is_refused() -> None:
    with pytest.raises(ValueError, match="trusted range"):
        threshold.dispersion(frame("u2"), None, (0, float("nan")), DEFAULT)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_values_that_are_not_numbers(kind: str) -> None:
    image = frame(kind)
    image[20, 30], image[50, 90], image[70, 10] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        same(image)
        same(image, trusted=(-np.inf, np.inf))


def test_any_layout_in_memory() -> None:
    image = frame("u2")
    expected = same(image)
    assert same(np.asfortranarray(image)) == expected
    wide = np.zeros((90, 262), np.uint16)
    wide[:, ::2] = image
    assert same(wide[:, ::2], np.ones((90, 262), np.bool_)[:, ::2]) == expected


counts = st.integers(0, 6) | st.sampled_from([0, 1, 9, 40, 255])
awkward = st.sampled_from([-(2**31), -2, -1, 0, 1, 2, 3, 300, 2**24 - 1, 2**24, 2**31 - 1])
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)
parameters_of_any_kind = st.builds(
    DispersionParameters,
    kernel_size=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    n_sigma_b=st.floats(0, 10),
    n_sigma_s=st.floats(0, 5),
    min_local=st.integers(-1, 20),
    global_threshold=st.floats(-5, 20),
    gain=st.floats(0.01, 20),
)


@settings(deadline=None, max_examples=150)
@given(
    st.data(),
    shapes,
    st.sampled_from(["u1", "u2", "u4"]),
    st.just(DEFAULT) | parameters_of_any_kind,
    st.booleans(),
)
def test_any_counts(
    data: st.DataObject, shape: tuple[int, int], kind: str, parameters: DispersionParameters, masked: bool
) -> None:
    image = data.draw(hnp.arrays(kind, shape, elements=counts, fill=st.integers(0, 2)))
    mask = data.draw(hnp.arrays(np.bool_, shape, fill=st.just(True))) if masked else None
    same(image, mask, (data.draw(st.integers(0, 2)), data.draw(st.integers(2, 300))), parameters)


@settings(deadline=None, max_examples=150)
@given(st.data(), shapes, st.just(DEFAULT) | parameters_of_any_kind)
def test_any_signed_numbers(
    data: st.DataObject, shape: tuple[int, int], parameters: DispersionParameters
) -> None:
    image = data.draw(hnp.arrays(np.int32, shape, elements=counts | awkward, fill=st.integers(0, 2)))
    same(image, None, (data.draw(awkward), data.draw(awkward)), parameters)


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype("f4"), np.dtype("f8")]), shapes, elements=st.floats(-8, 500, width=16)
    ),
    st.just(DEFAULT) | parameters_of_any_kind,
)
def test_any_fractions(image: NDArray[Any], parameters: DispersionParameters) -> None:
    same(image, None, (-4, 400), parameters)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros(5, np.uint16), None, "two dimensions, not 1"),
        (np.zeros((5, 5), np.complex64), None, "not <c8"),
        (np.zeros((5, 5), np.int64), None, "not <i8"),
        (np.zeros((5, 5), ">u2"), None, "not >u2"),
        (np.zeros((5, 5), np.uint16), np.ones((5, 4), np.bool_), "the mask must be"),
        (np.zeros((5, 5), np.uint16), np.ones((5, 5), np.uint8), "the mask must be"),
    ],
)
def test_what_is_no_image_is_refused(image: NDArray[Any], mask: Any, message: str) -> None:
    for name in ALGORITHMS:
        with pytest.raises(ValueError, match=message):
            getattr(threshold, name)(image, mask, (0, 10), DEFAULT)


def read_cbf(name: str) -> tuple[NDArray[np.int32], int]:
    """Counts and count cut-off of a CBF of the test data."""
    file = bz2.decompress(real_data(name).read_bytes())
    start = file.index(b"\x0c\x1a\x04\xd5") + 4
    header = file[:start].decode("latin-1")
    size, fast, slow, cutoff = (
        int(re.findall(rf"{key}:?\s+(\d+)", header)[0])
        for key in (
            "X-Binary-Size",
            "X-Binary-Size-Fastest-Dimension",
            "X-Binary-Size-Second-Dimension",
            "Count_cutoff",
        )
    )
    return byte_offset.decode(file[start : start + size], (slow, fast)), cutoff


@pytest.mark.parametrize(
    ("number", "strong", "extended"), [(1, 2172, None), (3, 13188, 31061), (8, 9846, None), (15, 294, None)]
)
def test_real_pilatus_images_as_dials_finds_them(number: int, strong: int, extended: int | None) -> None:
    image, cutoff = read_cbf(f"thaumatin_grid/thau_3_2_{number:04d}.cbf.bz2")
    assert len(threshold.dispersion(image, None, (0, cutoff), DEFAULT)) == strong
    if extended:
        assert len(threshold.dispersion_extended(image, None, (0, cutoff), DEFAULT)) == extended


@pytest.mark.parametrize("kind", ["i4", "u4", "u2", "f4"])
def test_part_of_a_real_pilatus_image_in_every_type(kind: str) -> None:
    image, cutoff = read_cbf("thaumatin_grid/thau_3_2_0003.cbf.bz2")
    part = image[900:1500, 700:1400]
    part = np.where(part < 0, np.iinfo(kind).max if kind[0] == "u" else -1, np.minimum(part, 65534)).astype(
        kind
    )
    assert min(same(part, trusted=(0, min(cutoff, 65534))).values()) > 1000


def test_a_real_eiger_image() -> None:
    chunk = real_data("eiger_stream/tickit_frame_sample").read_bytes()
    image = bitshuffle_lz4.decode(chunk, (4362, 4148), np.uint16)
    same(np.ascontiguousarray(image[:1100]), trusted=(0, 21517))
