"""The nine numbers, on spots made so that the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parvis_services.xray.statistics import (
    UNKNOWN,
    distl_method_1,
    distl_method_2,
    estimated_resolution,
    image_statistics,
    wilson_outliers,
)


def spots(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    d_star_sq = random.uniform(0.01, 0.4, n)
    intensity = np.ceil(random.exponential(1000 * np.exp(-8 * d_star_sq))) + 5
    return d_star_sq, intensity, random.random(n) < 0.2


def every_second(y: list[float]) -> np.ndarray:
    """d spacings whose 1/d³, every second taken from low resolution, are `y`."""
    between = [(a + b) / 2 for a, b in zip(y, [*y[1:], y[-1] * 1.001], strict=True)]
    return np.array([*y, *between]) ** (-1 / 3)


def test_counts_and_intensity():
    d = np.array([8.0, 5.0, 4.0, 3.0, 2.0])
    ice = np.array([False, True, False, True, False])
    result = image_statistics(1 / d**2, np.array([10.0, 20, 30, 40, 50]), ice)
    assert (result.n_spots_total, result.n_spots_no_ice, result.n_spots_4A) == (5, 3, 2)
    assert result.total_intensity == 90


def test_no_spots():
    empty = np.zeros(0)
    result = image_statistics(empty, empty, np.zeros(0, bool)).as_dict()
    assert list(result) == [
        "n_spots_total",
        "n_spots_no_ice",
        "n_spots_4A",
        "total_intensity",
        "d_min_distl_method_1",
        "d_min_distl_method_2",
        "estimated_d_min",
        "noisiness_method_1",
        "noisiness_method_2",
    ]
    assert list(result.values()) == [0, 0, 0, 0.0, -1.0, -1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize(("n_no_ice", "known"), [(10, False), (11, True)])
def test_resolution_needs_more_than_ten_spots_without_ice(n_no_ice, known):
    d_star_sq, intensity, _ = spots(30)
    ice = np.arange(30) >= n_no_ice
    result = image_statistics(d_star_sq, intensity, ice)
    assert (result.d_min_distl_method_1 > 0) is known
    assert (result.d_min_distl_method_2 > 0) is known
    assert (result.noisiness_method_1 >= 0) is known
    assert (result.noisiness_method_2 >= 0) is known


def test_method_1_finds_where_the_curve_turns_up():
    y = [1 + 0.1 * i + 0.001 * i * i for i in range(6)]
    y += [y[5] + 2 * (i - 5) for i in range(6, 10)]
    d_min, noisiness = distl_method_1(every_second(y))
    assert d_min == pytest.approx(y[5] ** (-1 / 3))
    assert noisiness == 0


def test_method_1_takes_a_later_point_nearly_as_far_from_the_chord():
    y = [1 + 0.1 * i + 0.001 * i * i for i in range(6)]
    y += [y[5] + 0.95, y[5] + 3, y[5] + 5, y[5] + 7]  # point 6 is almost as far out as point 5
    assert distl_method_1(every_second(y))[0] == pytest.approx(y[6] ** (-1 / 3))


def test_method_1_calls_a_curve_that_flattens_noisy():
    y = [1 + np.sqrt(i) for i in range(10)]
    assert distl_method_1(every_second(y))[1] == 1


def test_method_1_takes_at_most_forty_points():
    y = np.sort(np.random.default_rng(1).uniform(1, 2, 121))
    every_fourth = y[::4][:30]
    slopes = (every_fourth[1:] - every_fourth[0]) / np.arange(1, 30)
    pairs = [(i, j) for i in range(29) for j in range(i + 1, 29)]
    noisiness = sum(slopes[i] >= slopes[j] for i, j in pairs) / len(pairs)
    assert distl_method_1(y ** (-1 / 3))[1] == pytest.approx(noisiness)


def test_method_2_finds_the_first_two_empty_shells():
    y = np.array([*(1 + 0.01 * i for i in range(100)), 11.0])
    d_min, _ = distl_method_2(y ** (-1 / 3))
    # 40 shells of 0.25: four full ones, then nothing; the fifth ends at 1 + 5 * 0.25.
    assert d_min == pytest.approx(2.25 ** (-1 / 3))


def test_method_2_falls_through_to_the_last_shell_but_one():
    y = 1 + np.arange(1000) / 999
    d_min, _ = distl_method_2(y ** (-1 / 3))
    assert d_min == pytest.approx((1 + 19 / 20) ** (-1 / 3))


def test_method_2_noisiness_counts_shells_that_do_not_decrease():
    y = np.concatenate([1 + np.linspace(i, i + 1, 60 - 2 * i, endpoint=False) for i in range(20)])
    y = np.append(y, 21.0)
    d_min, noisiness = distl_method_2(y ** (-1 / 3))
    assert noisiness < 0.1
    assert d_min > 0
    assert distl_method_2(np.sort((22 - y) ** (-1 / 3)))[1] > 0.9


def test_the_distl_methods_know_nothing_of_spots_all_at_one_resolution():
    d = np.full(20, 2.5)
    assert distl_method_2(d) == (UNKNOWN, UNKNOWN)
    assert distl_method_1(d[:6]) == (UNKNOWN, UNKNOWN)


def test_wilson_outliers_are_found_again_without_those_found_before():
    intensity = np.array([*[1.0] * 20, 6.0, 60.0])
    assert np.flatnonzero(wilson_outliers(intensity)).tolist() == [20, 21]
    assert np.flatnonzero(wilson_outliers(intensity[:-1])).tolist() == [20]
    assert not wilson_outliers(intensity[:20]).any()


def test_the_estimate_is_the_resolution_of_a_spot_that_counts():
    d_star_sq, intensity, ice = spots(300)
    d = estimated_resolution(d_star_sq, intensity, ice)
    assert np.isclose(1 / np.sqrt(d_star_sq[~ice]), d, rtol=1e-12).any()
    assert d < 1 / np.sqrt(np.median(d_star_sq))


def test_the_estimate_does_not_follow_ice():
    d_star_sq, intensity, ice = spots(300)
    ice[np.argmax(d_star_sq)] = True
    before = estimated_resolution(d_star_sq, intensity, ice)
    intensity[ice] = 10_000_000
    assert estimated_resolution(d_star_sq, intensity, ice) == before


def test_the_estimate_does_not_follow_an_outlier():
    d_star_sq, intensity, ice = spots(300)
    finest = np.argmax(np.where(ice, 0, d_star_sq))
    before = estimated_resolution(d_star_sq, intensity, ice)
    assert before == pytest.approx(1 / np.sqrt(d_star_sq[finest]))
    intensity[finest] = 100_000_000
    assert estimated_resolution(d_star_sq, intensity, ice) > before


def fit(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope and intercept of the line of least squares."""
    n = len(points)
    sx, sy = sum(x for x, _ in points), sum(y for _, y in points)
    sxx, sxy = sum(x * x for x, _ in points), sum(x * y for x, y in points)
    slope = (n * sxy - sx * sy) / (n * sxx - sx * sx)
    return slope, (sy - slope * sx) / n


def estimate_by_the_book(d_star_sq, intensity, ice) -> float:
    """The description of the estimate, spot by spot."""
    spots = [
        (float(x), float(i), bool(f), 0.5 * math.log(i))
        for x, i, f in zip(d_star_sq, intensity, ice, strict=True)
    ]
    ordered = sorted(x for x, *_ in spots)
    n_shells = min(max(len(spots) // 20, 5), 20)
    ends = [ordered[math.floor((k + 1) * len(spots) / n_shells + 0.5) - 1] for k in range(n_shells)]
    upper, outliers = [], set()
    for low, high in zip([ordered[0], *ends], ends, strict=False):
        members = [spot for spot in spots if low < spot[0] <= high and not spot[2]]
        while True:
            mean = sum(spot[1] for spot in members) / len(members)
            strong = [spot for spot in members if spot[1] / mean >= -math.log(0.01)]
            outliers.update(strong)
            if not strong:
                break
            members = [spot for spot in members if spot not in strong]
        members.sort(key=lambda spot: spot[3])
        upper.append((members[int(0.1 * len(members))][0], members[int(0.9 * len(members))][3]))
    slope, intercept = fit(upper)
    inside = [s for s in spots if s[3] < slope * s[0] + intercept and not s[2] and s not in outliers]
    return 1 / math.sqrt(max(spot[0] for spot in inside))


@pytest.mark.parametrize("seed", range(200))
def test_the_estimate_is_made_by_the_book(seed):
    random = np.random.default_rng(seed)
    d_star_sq = random.uniform(0.01, 0.4, 60)
    intensity = random.integers(5, 15, 60).astype(float)  # close together, so that small things matter
    if seed % 2:
        intensity = np.ceil(random.exponential(300, 60)) + 3
    ice = random.random(60) < 0.1
    found = estimated_resolution(d_star_sq, intensity, ice)
    assert found == pytest.approx(estimate_by_the_book(d_star_sq, intensity, ice), rel=1e-12)


def test_without_two_different_lines_there_is_no_estimate():
    d_star_sq = np.full(30, 0.1)
    assert estimated_resolution(d_star_sq, np.ones(30), np.zeros(30, bool)) == UNKNOWN


def test_spots_without_counts_do_not_disturb():
    d_star_sq, intensity, ice = spots(100)
    more = image_statistics(
        np.append(d_star_sq, 0.5), np.append(intensity, 0.0), np.append(ice, False)
    ).as_dict()
    before = image_statistics(d_star_sq, intensity, ice).as_dict()
    assert more.pop("n_spots_total") == before.pop("n_spots_total") + 1
    assert more.pop("n_spots_no_ice") == before.pop("n_spots_no_ice") + 1
    assert more == before
