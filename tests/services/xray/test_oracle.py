"""The plain arithmetic, against the same formulas written pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from parvis_services.xray import oracle
from parvis_services.xray.parameters import DispersionParameters

DEFAULTS = DispersionParameters()


def box(i: int, j: int, shape: tuple[int, int], half: tuple[int, int]) -> list[tuple[int, int]]:
    return [
        (y, x)
        for y in range(max(i - half[0], 0), min(i + half[0] + 1, shape[0]))
        for x in range(max(j - half[1], 0), min(j + half[1] + 1, shape[1]))
    ]


def moments(image, usable, pixels) -> tuple[int, int, int]:
    values = [int(image[p]) for p in pixels if usable[p] and image[p] < 2**24]
    return len(values), sum(values), sum(v * v for v in values)


def varies(m: int, x: int, y: int, p: DispersionParameters) -> bool:
    fewest = p.min_local if p.min_local > 0 else (2 * p.kernel_size[0] + 1) * (2 * p.kernel_size[1] + 1)
    if m < max(fewest, 1) or x < 0:
        return False
    return m * y - x * x > p.gain * x * (m - 1 + p.n_sigma_b * math.sqrt(2 * (m - 1)))


def by_pixels(image, mask, trusted, p: DispersionParameters) -> list[int]:
    usable = mask & (image >= trusted[0]) & (image <= trusted[1])
    strong = []
    for i, j in np.ndindex(image.shape):
        m, x, y = moments(image, usable, box(i, j, image.shape, p.kernel_size))
        value = int(image[i, j])
        if (
            usable[i, j]
            and value > p.global_threshold
            and varies(m, x, y, p)
            and m * value - x > p.n_sigma_s * math.sqrt(p.gain * x * m)
        ):
            strong.append(i * image.shape[1] + j)
    return strong


def by_pixels_extended(image, mask, trusted, p: DispersionParameters) -> list[int]:
    usable = mask & (image >= trusted[0]) & (image <= trusted[1])
    shape = image.shape
    signal = np.zeros(shape, bool)
    for i, j in np.ndindex(shape):
        m, x, y = moments(image, usable, box(i, j, shape, p.kernel_size))
        signal[i, j] = not usable[i, j] or varies(m, x, y, p)
    reach = min(p.kernel_size) - 1
    core = np.zeros(shape, bool)
    for i, j in np.ndindex(shape):
        core[i, j] = usable[i, j] and all(signal[q] for q in box(i, j, shape, (reach, reach)))
    strong = []
    for i, j in np.ndindex(shape):
        wide = box(i, j, shape, (p.kernel_size[0] + 2, p.kernel_size[1] + 2))
        m, x, _ = moments(image, usable & ~core, wide)
        mean = x / m if m >= 2 else 0.0
        value = int(image[i, j])
        if core[i, j] and value > p.global_threshold and x >= 0:
            limit = mean + p.n_sigma_s * math.sqrt(p.gain * mean)
            if value >= limit:
                strong.append(i * shape[1] + j)
    return strong


counts = st.integers(-2, 6) | st.sampled_from([20, 60, 400, 2**24 - 1, 2**24, 2**30])


@given(
    image=arrays(np.int32, st.tuples(st.integers(1, 11), st.integers(1, 11)), elements=counts),
    seed=st.integers(0, 9),
    kernel=st.sampled_from([(3, 3), (1, 1), (2, 4), (1, 3)]),
    gain=st.sampled_from([1.0, 0.5, 2.0]),
    min_local=st.sampled_from([2, 0, 9]),
)
@settings(max_examples=60, deadline=None)
def test_both_thresholds_are_the_formulas_pixel_by_pixel(image, seed, kernel, gain, min_local):
    mask = np.random.default_rng(seed).random(image.shape) > 0.1 * seed
    p = DispersionParameters(kernel_size=kernel, gain=gain, min_local=min_local, n_sigma_b=2, n_sigma_s=2)
    trusted = (0, 2**28)
    assert oracle.dispersion(image, mask, trusted, p).tolist() == by_pixels(image, mask, trusted, p)
    found = oracle.dispersion_extended(image, mask, trusted, p).tolist()
    assert found == by_pixels_extended(image, mask, trusted, p)


def test_a_spot_on_a_flat_background_is_strong():
    image = np.ones((21, 21), np.int32)
    image[10, 10] = 30
    assert oracle.dispersion(image, None, (0, 100), DEFAULTS).tolist() == [10 * 21 + 10]


@pytest.mark.parametrize(("value", "strong"), [(3, False), (4, True)])
def test_in_the_extended_threshold_a_pixel_at_the_limit_is_strong(value, strong):
    """The background is 1 everywhere: mean + 3 sqrt(mean) is 4."""
    image = np.ones((31, 31), np.int32)
    image[14:17, 14:17] = 50
    image[15, 15] = value
    found = oracle.dispersion_extended(image, None, (0, 100), DEFAULTS)
    assert (15 * 31 + 15 in found) is strong


@pytest.mark.parametrize("value", [-1, 101])
def test_untrusted_pixels_are_never_strong(value):
    image = np.ones((9, 9), np.int32)
    image[4, 4] = value
    assert len(oracle.dispersion(image, None, (0, 100), DEFAULTS)) == 0


def test_both_ends_of_the_trusted_range_may_be_used():
    image = np.array([[-1, 0, 100, 101]])
    assert oracle.usable_pixels(image, None, (0, 100)).tolist() == [[False, True, True, False]]
    assert not oracle.usable_pixels(np.array([[np.nan]]), None, (0, np.inf)).any()


def test_the_kernel_size_is_slow_then_fast():
    image = np.ones((15, 15), np.int32)
    image[7, 7] = 15
    image[7, 11] = 500
    narrow = oracle.dispersion(image, None, (0, 1000), DispersionParameters(kernel_size=(5, 2)))
    wide = oracle.dispersion(image, None, (0, 1000), DispersionParameters(kernel_size=(2, 5)))
    assert 7 * 15 + 7 in narrow
    assert 7 * 15 + 7 not in wide  # the bright neighbour is inside its box


def test_groups_touch_by_their_sides_only_and_not_round_the_edge():
    strong = np.array(
        [
            [1, 1, 0, 0, 1],
            [0, 0, 1, 0, 0],
            [1, 0, 1, 1, 0],
            [1, 0, 0, 0, 0],
        ]
    )
    numbers = oracle.label(np.flatnonzero(strong), (4, 5))
    assert numbers.tolist() == [0, 0, 1, 2, 3, 2, 2, 3]


def test_a_long_winding_group_is_one():
    strong = np.zeros((41, 41), bool)
    strong[::2] = True
    strong[1::4, -1] = strong[3::4, 0] = True
    assert oracle.label(np.flatnonzero(strong), (41, 41)).max() == 0


def test_what_is_known_of_a_spot():
    image = np.zeros((8, 9), np.uint16)
    image[2, 3:6] = [10, 30, 30]
    image[3, 4] = 30
    image[6, 8] = 7
    indices = np.flatnonzero(image)
    spots = oracle.spots(indices, image.reshape(-1)[indices], image.shape)
    assert len(spots) == 2
    assert spots.n_pixels.tolist() == [4, 1]
    assert spots.intensity.tolist() == [100, 7]
    assert spots.centroid_slow.tolist() == [2.5 + 30 / 100, 6.5]
    assert spots.centroid_fast == pytest.approx([(3.5 * 10 + 4.5 * 60 + 5.5 * 30) / 100, 8.5])
    # Three pixels are equally bright: the first in raster order is the peak.
    assert (spots.peak_slow.tolist(), spots.peak_fast.tolist()) == ([2, 6], [4, 8])
    assert spots.bbox.tolist() == [[2, 4, 3, 6], [6, 7, 8, 9]]


def test_no_strong_pixels_are_no_spots():
    assert len(oracle.spots(np.zeros(0, np.int64), np.zeros(0, np.int32), (5, 5))) == 0


def test_a_group_without_counts_has_its_middle_as_centroid():
    spots = oracle.spots(np.array([0, 1]), np.array([0, 0]), (1, 2))
    assert (spots.centroid_slow[0], spots.centroid_fast[0]) == (0.5, 1.0)


def test_byte_offset_of_every_length():
    data = bytes([5, 0x80, 0x00, 0x01, 0x80, 0x00, 0x80]) + (-70000).to_bytes(4, "little", signed=True)
    data += bytes([0x80, 0, 0x80, 0, 0, 0, 0x80]) + (2**31).to_bytes(8, "little", signed=True) + b"\x7f"
    values = [5, 261, 261 - 70000, 261 - 70000 + 2**31, 261 - 70000 + 2**31 + 127]
    wrapped = np.array(values, np.int64).astype(np.int32)
    assert oracle.decode_byte_offset(data, (1, 5)).tolist() == [wrapped.tolist()]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x01\x02", "hold 2 pixels, not the 3"),
        (b"\x01\x02\x03\x04", "hold 4 pixels, not the 3"),
        (b"\x01\x02\x80\x01", "end in the middle of a pixel"),
    ],
)
def test_byte_offset_of_another_size_is_an_error(data, says):
    with pytest.raises(ValueError, match=says):
        oracle.decode_byte_offset(data, (1, 3))
