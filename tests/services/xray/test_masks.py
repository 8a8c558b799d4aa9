"""Pixels left out on request."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parvis_services.xray.geometry import Beam, Detector, perpendicular_detector
from parvis_services.xray.images import Image
from parvis_services.xray.masks import image_masks, panel_mask
from parvis_services.xray.parameters import Circle, MaskParameters, Polygon, Rectangle

BEAM = Beam(1.0)
SHAPE = (60, 80)
PANEL = perpendicular_detector(
    SHAPE, (1.0, 1.0), (30, 40), 50, (0, 9), thickness=0.5, attenuation=2.0
).panels[0]


def left_out(parameters: MaskParameters, index: int = 0) -> np.ndarray:
    return ~panel_mask(PANEL, BEAM, parameters, index)


def d_of_pixels() -> np.ndarray:
    """Bragg's law for each pixel's middle, without the correction."""
    y, x = np.mgrid[:60, :80] + 0.5
    theta = np.arctan(np.hypot(y - 30, x - 40) / 50) / 2
    return 1 / (2 * np.sin(theta))


def test_nothing_is_left_out_unasked():
    assert not left_out(MaskParameters()).any()


def test_border():
    out = left_out(MaskParameters(border=2))
    assert not out[2:-2, 2:-2].any()
    assert np.count_nonzero(~out) == 56 * 76
    assert left_out(MaskParameters(border=40)).all()


def test_rectangle():
    out = left_out(MaskParameters(untrusted=(Rectangle(x0=3, x1=5, y0=10, y1=20),)))
    assert out[10:20, 3:5].all()
    assert np.count_nonzero(out) == 20


@pytest.mark.parametrize(
    ("rectangle", "pixels"),
    [(Rectangle(-10, 2, -10, 3), 6), (Rectangle(78, 200, 58, 200), 4), (Rectangle(-9, -1, -9, -1), 0)],
)
def test_a_rectangle_may_go_beyond_the_panel(rectangle, pixels):
    assert np.count_nonzero(left_out(MaskParameters(untrusted=(rectangle,)))) == pixels


def test_circle():
    out = left_out(MaskParameters(untrusted=(Circle(x=10.5, y=20.5, radius=2),)))
    assert sorted(zip(*np.nonzero(out), strict=True)) == [
        (y, x) for y in range(60) for x in range(80) if math.hypot(y - 20, x - 10) <= 2
    ]


def test_polygon():
    triangle = Polygon(((10, 10), (20, 10), (10, 20)))
    out = left_out(MaskParameters(untrusted=(triangle,)))
    expected = np.zeros(SHAPE, bool)
    for y in range(10, 20):
        for x in range(10, 20):
            expected[y, x] = (x + 0.5 - 10) + (y + 0.5 - 10) < 10
    np.testing.assert_array_equal(out, expected)


def test_a_polygon_may_be_hollow():
    u_shape = Polygon(((10, 10), (20, 10), (20, 30), (17, 30), (17, 13), (13, 13), (13, 30), (10, 30)))
    out = left_out(MaskParameters(untrusted=(u_shape,)))
    assert out[20, 11]
    assert out[20, 18]
    assert out[11, 15]
    assert not out[20, 15]


def test_regions_name_their_panel():
    parameters = MaskParameters(untrusted=(Rectangle(0, 5, 0, 5, panel=1), Circle(9, 9, 1, panel=1)))
    assert not left_out(parameters).any()
    assert left_out(parameters, 1).any()


def test_resolution_limits():
    d = d_of_pixels()
    np.testing.assert_array_equal(left_out(MaskParameters(d_min=2.0)), d < 2)
    np.testing.assert_array_equal(left_out(MaskParameters(d_max=5.0)), d > 5)


def test_resolution_ranges_either_way_round():
    d = d_of_pixels()
    parameters = MaskParameters(resolution_ranges=((4.0, 3.5), (1.9, 2.0)))
    expected = ((d <= 4) & (d >= 3.5)) | ((d <= 2) & (d >= 1.9))
    np.testing.assert_array_equal(left_out(parameters), expected)


def test_ice_rings():
    d_star_sq = 1 / d_of_pixels() ** 2
    out = left_out(MaskParameters(ice_rings=True, ice_rings_width=0.01))
    first_ring = 4 / 3 / 4.498**2
    on_it = np.abs(d_star_sq - first_ring) < 0.005
    assert on_it.any()
    assert out[on_it].all()
    assert not out[d_star_sq < first_ring - 0.006].any()


def test_parallax_is_corrected_on_request():
    plain = left_out(MaskParameters(d_min=2.0))
    corrected = left_out(MaskParameters(d_min=2.0, parallax_correction=True))
    assert np.count_nonzero(corrected) < np.count_nonzero(plain)


def image(mask: np.ndarray | None, mask_key: object = None, detector: Detector | None = None) -> Image:
    return Image(
        (np.zeros(SHAPE, np.int32),), detector or Detector((PANEL,)), BEAM, (mask,), "x", None, mask_key
    )


def test_the_file_and_the_user_both_mask():
    given = np.ones(SHAPE, bool)
    given[5, 5] = False
    (mask,) = image_masks(image(given, "a"), MaskParameters(border=1))
    assert mask is not None
    assert not mask[5, 5]
    assert not mask[0, 7]
    assert mask[5, 6]


def test_without_a_wish_the_mask_of_the_file_is_taken_as_it_is():
    given = np.ones(SHAPE, bool)
    assert image_masks(image(given), MaskParameters())[0] is given
    assert image_masks(image(None), MaskParameters())[0] is None


def test_masks_of_images_made_by_hand_do_not_mix():
    parameters = MaskParameters(border=1)
    for row in (5, 6):
        given = np.ones(SHAPE, bool)
        given[row] = False
        (mask,) = image_masks(image(given), parameters)
        assert mask is not None
        assert np.flatnonzero(~mask[:, 9]).tolist() == [0, row, 59]


def test_masks_are_made_once_a_detector():
    parameters = MaskParameters(d_min=3.0)
    (first,) = image_masks(image(None), parameters)
    (second,) = image_masks(image(None), parameters)
    assert first is second
    moved = perpendicular_detector(SHAPE, (1.0, 1.0), (30, 40), 70, (0, 9))
    (other,) = image_masks(image(None, detector=moved), parameters)
    assert other is not None
    assert first is not None
    assert not np.array_equal(first, other)
    given = np.zeros(SHAPE, bool)
    (of_another_file,) = image_masks(image(given, "b"), parameters)
    assert of_another_file is not None
    assert not of_another_file.any()
