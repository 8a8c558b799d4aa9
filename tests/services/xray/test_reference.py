"""Real images give the numbers that DIALS gives for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parvis_services.xray.analysis import analyse, find_spots
from parvis_services.xray.images import open_image
from parvis_services.xray.parameters import ALGORITHMS, Algorithm, AnalysisParameters
from real_data import real_data

IMAGES = [
    *(f"thaumatin_grid/thau_3_2_{number:04d}.cbf.bz2" for number in (1, 3, 8, 14, 15, 17)),
    *(f"l_cysteine/l-cyst_01_{number:05d}.cbf.bz2" for number in (1, 2)),
]
CASES: list[tuple[Algorithm, str]] = [
    *(("dispersion", name) for name in IMAGES),
    ("dispersion_extended", "thaumatin_grid/thau_3_2_0003.cbf.bz2"),
]


def reference(algorithm: Algorithm) -> dict[str, Any]:
    known = json.loads(real_data("dials_reference.json").read_text())
    return known["images" if algorithm == "dispersion" else algorithm]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_reference_is_compared(algorithm):
    assert sorted(reference(algorithm)) == sorted(name for which, name in CASES if which == algorithm)


@pytest.mark.parametrize(("algorithm", "name"), CASES)
def test_the_nine_numbers_are_those_of_dials(algorithm, name):
    expected = reference(algorithm)[name]
    parameters = AnalysisParameters(algorithm=algorithm)
    image = open_image(real_data(name))
    strong = find_spots(image, parameters).strong_pixels
    assert len(strong[0]) == expected.pop("n_strong_pixels")
    found = analyse(image, parameters).as_dict()
    assert set(found) == set(expected)
    for field, value in expected.items():
        assert found[field] == pytest.approx(value, rel=1e-9), field
