"""Detectors made of modules."""

from __future__ import annotations

import numpy as np
import pytest

from parvis_services.simulate.detectors import DETECTORS
from parvis_services.xray.geometry import Beam
from parvis_services.xray.pilatus import PILATUS_12M_SHAPE, module_gaps, pilatus_12m
from parvis_services.xray.resolution import d_star_squared


@pytest.mark.parametrize("name", DETECTORS)
def test_gaps_are_where_the_simulated_detector_has_them(name):
    detector = DETECTORS[name]
    gaps = detector.gaps()
    found = module_gaps(detector.shape)
    if not gaps.any():
        assert found is None
    else:
        np.testing.assert_array_equal(found, ~gaps)


@pytest.mark.parametrize(
    ("shape", "modules"),
    [
        ((407, 487), (2, 1)),  # PILATUS 200K
        ((619, 487), (3, 1)),  # 300K
        ((195, 1475), (1, 3)),  # 300K-W
        ((1043, 981), (5, 2)),  # 1M
        ((1679, 1475), (8, 3)),  # 2M
        ((2527, 2463), (12, 5)),  # 6M
        (PILATUS_12M_SHAPE, (24, 5)),  # 12M
        ((4371, 4150), (8, 4)),  # EIGER 16M
    ],
)
def test_modules_of_each_model(shape, modules):
    mask = module_gaps(shape)
    assert mask is not None
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    assert 1 + np.count_nonzero(np.diff(rows.astype(int)) == 1) == modules[0]
    assert 1 + np.count_nonzero(np.diff(columns.astype(int)) == 1) == modules[1]


@pytest.mark.parametrize("shape", [(195, 487), (514, 1030), (100, 100), (2527, 2464), (1, 1)])
def test_nothing_is_masked_where_there_are_no_gaps(shape):
    assert module_gaps(shape) is None


def test_the_barrel_is_round_the_sample():
    detector = pilatus_12m((2594, 1075), 0.0, 0.32, None)
    assert len(detector.panels) == 24
    for number, panel in enumerate(detector.panels):
        assert panel.shape == (195, 2463)
        assert panel.offset == (212 * number, 0)
        normal = np.cross(panel.fast_axis, panel.slow_axis)
        assert abs(normal @ np.array(panel.origin)) == pytest.approx(250)


def test_the_barrel_looks_into_the_beam_where_its_header_says():
    """The nominal beam centre is on row 12 and lies at low resolution; the ends look backwards."""
    beam = Beam(1.0)
    panels = pilatus_12m((2594, 1075), 0.0, 0.32, None).panels
    at = np.array([50.0]), np.array([1075.0])
    assert d_star_squared(panels[12], beam, *at)[0] < 0.01
    assert d_star_squared(panels[0], beam, *at)[0] > 1
    assert d_star_squared(panels[23], beam, *at)[0] > 1


def test_another_beam_centre_shifts_the_barrel():
    shifted = pilatus_12m((2584, 1055), 0.0, 0.32, None).panels[5].origin
    nominal = pilatus_12m((2594, 1075), 0.0, 0.32, None).panels[5].origin
    assert np.subtract(shifted, nominal) == pytest.approx([-20 * 0.172, 10 * 0.172, 0])
