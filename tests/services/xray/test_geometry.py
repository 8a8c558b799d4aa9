"""Positions of pixels, with and without parallax."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parvis_services.xray.geometry import Beam, Detector, Panel, perpendicular_detector

ONE = np.array([1.0])


def panel(**changed) -> Panel:
    whole = {
        "shape": (100, 200),
        "pixel_size": (0.1, 0.2),
        "origin": (-20.0, 5.0, -100.0),
        "slow_axis": (0.0, -1.0, 0.0),
        "fast_axis": (1.0, 0.0, 0.0),
        "trusted": (0, 100),
    }
    return Panel(**(whole | changed))


def test_points_are_counted_from_the_corner_of_the_first_pixel():
    where = panel().lab(np.array([0.0, 10.0]), np.array([0.0, 5.0]))
    assert where == pytest.approx(np.array([[-20, 5, -100], [-19, 4, -100]]))


def test_the_beam_centre_is_where_the_beam_meets_the_panel():
    detector = perpendicular_detector((100, 200), (0.1, 0.2), (30.5, 70.25), 150, (0, 9))
    where = detector.panels[0].lab(30.5 * ONE, 70.25 * ONE)
    assert where == pytest.approx(np.array([[0, 0, -150]]))


def test_a_thick_sensor_shifts_by_the_mean_depth():
    """In a sensor so thick that all is absorbed the mean path is 1/mu, here at 45 degrees."""
    mu = 4.0
    thick = panel(origin=(0.0, 0.0, -100.0), thickness=1e6, attenuation=mu)
    x_pixel = (100 + math.sin(math.radians(45)) / mu) / 0.2
    moved = thick.lab(0 * ONE, x_pixel * ONE)[0]
    assert moved[0] == pytest.approx(100, abs=2e-3)
    assert moved[1:] == pytest.approx([0, -100])


def test_the_shift_by_the_formula():
    mu, t = 3.83262, 0.45
    sensor = panel(origin=(0.0, 0.0, -100.0), thickness=t, attenuation=mu)
    x = 60.0
    cosine = 100 / math.hypot(100, x)
    depth = 1 / mu - (t / cosine + 1 / mu) * math.exp(-mu * t / cosine)
    moved = sensor.lab(0 * ONE, x / 0.2 * ONE)[0]
    assert moved[0] == pytest.approx(x - depth * x / math.hypot(100, x), rel=1e-12)


def test_the_side_the_panel_is_seen_from_does_not_matter():
    a = panel(thickness=0.3, attenuation=5.0)
    b = panel(thickness=0.3, attenuation=5.0, origin=(20.0, 5.0, -100.0), fast_axis=(-1.0, 0.0, 0.0))
    at = (np.array([12.0]), np.array([180.0]))
    assert a.lab(*at) == pytest.approx(b.lab(*at) * np.array([-1, 1, 1]))


@pytest.mark.parametrize("unknown", [{"thickness": 0.0, "attenuation": 5.0}, {"thickness": 0.3}])
def test_without_sensor_there_is_no_shift(unknown):
    at = (np.array([3.0]), np.array([150.0]))
    assert panel(**unknown).lab(*at) == pytest.approx(panel().lab(*at), abs=0)


def test_the_shift_can_be_left_out():
    at = (np.array([3.0]), np.array([150.0]))
    sensor = panel(thickness=0.3, attenuation=5.0)
    assert sensor.lab(*at, parallax=False) == pytest.approx(panel().lab(*at), abs=0)
    assert sensor.lab(*at)[0, 0] != panel().lab(*at)[0, 0]


def test_axes_are_made_unit_vectors():
    assert panel(fast_axis=(0.0, 3.0, 4.0)).fast_axis == pytest.approx((0, 0.6, 0.8))
    assert Beam(1.0, (0.0, 0.0, 2.0)).direction == (0, 0, 1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Beam(0.0), "wavelength"),
        (lambda: Beam(math.nan), "wavelength"),
        (lambda: Beam(1.0, (0.0, 0.0, 0.0)), "beam direction"),
        (lambda: panel(pixel_size=(0.1, 0.0)), "pixel size"),
        (lambda: panel(origin=(0.0, math.nan, 0.0)), "position"),
        (lambda: panel(slow_axis=(0.0, 0.0, 0.0)), "slow axis"),
        (lambda: perpendicular_detector((1, 1), (1, 1), (0, 0), 0, (0, 1)), "distance"),
        (lambda: Detector(()), "at least one panel"),
    ],
)
def test_what_cannot_be_is_an_error(make, says):
    with pytest.raises(ValueError, match=says):
        make()
