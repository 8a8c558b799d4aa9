"""From images to spots and numbers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parvis_services.simulate.cbf import write_cbf
from parvis_services.simulate.header import Header
from parvis_services.xray.analysis import analyse, find_spots
from parvis_services.xray.errors import MissingImageError, TooManyStrongPixelsError
from parvis_services.xray.geometry import Beam, Detector, Panel, perpendicular_detector
from parvis_services.xray.images import Image, open_image
from parvis_services.xray.parameters import (
    ALGORITHMS,
    AnalysisParameters,
    MaskParameters,
    Rectangle,
    SpotFilters,
)

SHAPE = (120, 150)
HEADER = Header(
    detector="PILATUS test",
    wavelength=1.0,
    distance=0.1,
    beam_xy=(75.0, 60.0),
    pixel_size=(1e-3, 1e-3),
    sensor_thickness=450e-6,
    count_cutoff=60000,
)
PANEL = perpendicular_detector(SHAPE, (1.0, 1.0), (60, 75), 100, (0, 60000)).panels[0]
ALL = AnalysisParameters(d_max=None)


def blank(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(2, SHAPE).astype(np.int32)


def add_spot(counts: np.ndarray, slow: int, fast: int, size: int = 2, value: int = 200) -> None:
    counts[slow : slow + size, fast : fast + size] = value


def image(counts: np.ndarray, panel: Panel = PANEL) -> Image:
    return Image((counts,), Detector((panel,)), Beam(1.0), (None,), "made.cbf")


def with_spots(number: int = 30, seed: int = 0) -> np.ndarray:
    counts = blank(seed)
    random = np.random.default_rng(seed)
    places = random.permutation(9 * 11)[:number]
    for place in places:
        add_spot(counts, 8 + 12 * (place // 11), 8 + 12 * (place % 11), value=int(random.integers(60, 900)))
    return counts


def test_spots_are_found_where_they_are():
    counts = blank()
    add_spot(counts, 20, 30)
    add_spot(counts, 100, 130, size=3, value=300)
    found = find_spots(image(counts), ALL)
    assert found.spots.n_pixels.tolist() == [4, 9]
    assert found.spots.intensity.tolist() == [800, 2700]
    assert found.spots.centroid_slow.tolist() == [21, 101.5]
    assert found.spots.centroid_fast.tolist() == [31, 131.5]
    radius = np.hypot(21 - 60, 31 - 75)
    assert found.d[0] == pytest.approx(1 / (2 * np.sin(np.arctan(radius / 100) / 2)))
    assert found.panel.tolist() == [0, 0]
    assert [len(pixels) for pixels in found.strong_pixels] == [13]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_empty_image_has_no_spots(algorithm):
    result = analyse(image(np.zeros(SHAPE, np.int32)), AnalysisParameters(algorithm=algorithm))
    assert result.n_spots_total == 0
    assert result.estimated_d_min == -1


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_images_smaller_than_the_kernel(algorithm, shape):
    panel = perpendicular_detector(shape, (1.0, 1.0), (0, 0), 100, (0, 9)).panels[0]
    counts = np.ones(shape, np.uint16)
    assert analyse(image(counts, panel), AnalysisParameters(algorithm=algorithm)).n_spots_total == 0


def test_a_file_gives_what_its_image_gives(tmp_path):
    write_cbf(tmp_path / "x.cbf", with_spots(), HEADER)
    from_file = analyse(tmp_path / "x.cbf")
    assert from_file == analyse(str(tmp_path / "x.cbf")) == analyse(open_image(tmp_path / "x.cbf"))
    assert from_file.n_spots_total == 30
    assert from_file.estimated_d_min > 0


def test_files_one_after_the_other_do_not_mix(tmp_path):
    """Their memory is used again."""
    for number in (30, 3, 12):
        write_cbf(tmp_path / f"{number}.cbf", with_spots(number), HEADER)
    found = [analyse(tmp_path / f"{number}.cbf").n_spots_total for number in (30, 3, 12, 30)]
    assert found == [30, 3, 12, 30]


def test_an_error_names_the_file(tmp_path):
    with pytest.raises(MissingImageError, match=r"no\.cbf"):
        analyse(tmp_path / "no.cbf")


def test_small_spots_count_on_pads_only():
    counts = blank()
    add_spot(counts, 20, 30)
    counts[50, 50:52] = 300
    assert find_spots(image(counts), ALL).spots.n_pixels.tolist() == [4]
    assert len(find_spots(image(counts, replace(PANEL, pad=False)), ALL).spots) == 0
    smaller = replace(ALL, filters=SpotFilters(min_spot_size=2))
    assert find_spots(image(counts), smaller).spots.n_pixels.tolist() == [4, 2]


def test_large_spots_do_not_count():
    counts = blank()
    add_spot(counts, 20, 30)
    add_spot(counts, 50, 50, size=3)
    found = find_spots(image(counts), replace(ALL, filters=SpotFilters(max_spot_size=8)))
    assert found.spots.n_pixels.tolist() == [4]


def test_lopsided_spots_do_not_count():
    counts = blank()
    counts[50, 50:56] = [150, 150, 150, 150, 150, 160]  # brightest at one end, 2.5 pixels from the middle
    add_spot(counts, 20, 30)
    assert find_spots(image(counts), ALL).spots.n_pixels.tolist() == [4]
    wider = replace(ALL, filters=SpotFilters(max_separation=3))
    assert find_spots(image(counts), wider).spots.n_pixels.tolist() == [4, 6]


def test_a_spot_just_not_too_lopsided_counts():
    counts = blank()
    counts[50, 50:55] = 150  # the first is the peak, exactly 2 pixels from the middle
    assert find_spots(image(counts), ALL).spots.n_pixels.tolist() == [5]


def test_resolution_limits_and_ice():
    made = image(with_spots(60))
    every = find_spots(made, ALL)
    inside = (every.d >= 1.9) & (every.d <= 2.6)
    found = find_spots(made, AnalysisParameters(d_min=1.9, d_max=2.6))
    assert found.d.tolist() == every.d[inside].tolist()
    assert 5 < len(found.d) < 55
    assert every.ice.any()
    assert not find_spots(made, replace(ALL, filter_ice=False)).ice.any()
    result, without = analyse(made, ALL), analyse(made, replace(ALL, filter_ice=False))
    assert result.n_spots_total - result.n_spots_no_ice == np.count_nonzero(every.ice)
    assert without.n_spots_no_ice == without.n_spots_total == result.n_spots_total == 60
    wider = analyse(made, replace(ALL, ice_rings_width=0.02))
    assert wider.n_spots_no_ice < result.n_spots_no_ice


def test_a_spot_at_the_beam_itself_is_dropped():
    counts = blank()
    add_spot(counts, 59, 74)
    assert len(find_spots(image(counts), ALL).spots) == 0


def test_masked_pixels_are_left_out():
    counts = with_spots(20)
    mask = np.ones(SHAPE, bool)
    mask[:60] = False
    masked = Image((counts,), Detector((PANEL,)), Beam(1.0), (mask,), "x", None, "upper half")
    everything = find_spots(image(counts), ALL).spots
    lower = find_spots(masked, ALL).spots
    assert len(lower) == np.count_nonzero(everything.centroid_slow > 60)
    asked = replace(ALL, masks=MaskParameters(untrusted=(Rectangle(0, 150, 60, 120),)))
    assert len(find_spots(masked, asked).spots) == 0
    assert len(find_spots(image(counts), asked).spots) == len(everything) - len(lower)


def test_spots_do_not_cross_panels():
    """A spot on the seam of two panels is one on each."""
    counts = blank()
    add_spot(counts, 58, 40, size=4)
    add_spot(counts, 100, 100)
    x, y, z = PANEL.origin
    upper = replace(PANEL, shape=(60, 150))
    lower = replace(PANEL, shape=(60, 150), origin=(x, y - 60, z), offset=(60, 0))
    parts = Image((counts[:60], counts[60:]), Detector((upper, lower)), Beam(1.0), (None, None), "x")
    found = find_spots(parts, ALL)
    assert found.panel.tolist() == [0, 1, 1]
    assert found.spots.n_pixels.tolist() == [8, 8, 4]
    assert found.spots.centroid_slow.tolist() == [59, 1, 41]
    whole = find_spots(image(counts), ALL)
    assert found.d[2] == pytest.approx(whole.d[-1], rel=1e-12)


def test_an_image_that_is_mostly_strong_is_an_error():
    counts = blank()
    counts[::4, ::4] = 500  # one pixel of sixteen
    just = replace(ALL, filters=SpotFilters(max_strong_pixel_fraction=1139.5 / 18000))
    assert len(find_spots(image(counts), just).strong_pixels[0]) == 1140
    fewer = replace(ALL, filters=SpotFilters(max_strong_pixel_fraction=1138.5 / 18000))
    with pytest.raises(TooManyStrongPixelsError, match="1140 of 18000 pixels are strong, more than 6%"):
        find_spots(image(counts), fewer)


def test_native_types_are_kept_and_agree(tmp_path):
    counts = with_spots()
    expected = analyse(image(counts))
    for dtype in (np.uint16, np.uint32, np.int16, np.float32, np.float64):
        assert analyse(image(counts.astype(dtype))) == expected


@pytest.mark.skipif(importlib.util.find_spec("dials") is not None, reason="DIALS is installed")
def test_dials_is_asked_for_where_it_is_not(tmp_path):
    path = Path(tmp_path / "x.cbf")
    write_cbf(path, blank(), HEADER)
    with pytest.raises(RuntimeError, match="the engine 'dials' needs DIALS in this Python"):
        analyse(path, AnalysisParameters(engine="dials"))
    with pytest.raises(RuntimeError, match="needs DIALS"):
        analyse(open_image(path), AnalysisParameters(engine="dials"))


@pytest.mark.skipif(importlib.util.find_spec("dials") is None, reason="DIALS is not installed")
def test_dials_gives_the_same_numbers(tmp_path):
    write_cbf(tmp_path / "x.cbf", with_spots(), HEADER)
    ours = analyse(tmp_path / "x.cbf").as_dict()
    theirs = analyse(tmp_path / "x.cbf", AnalysisParameters(engine="dials")).as_dict()
    assert ours == pytest.approx(theirs, rel=1e-6)
