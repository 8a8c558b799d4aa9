"""The layout of the detectors."""

from __future__ import annotations

import pytest

from parvis_services.simulate.detectors import DETECTORS, detector


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pilatus-300k", (619, 487)),
        ("pilatus-1m", (1043, 981)),
        ("pilatus-2m", (1679, 1475)),
        ("pilatus-6m", (2527, 2463)),
        ("eiger-500k", (512, 1028)),
        ("eiger-1m", (1062, 1028)),
        ("eiger-4m", (2162, 2068)),
        ("eiger-16m", (4362, 4148)),
    ],
)
def test_images_have_the_known_size(name, shape):
    assert detector(name).shape == shape
    assert detector(name).gaps().shape == shape


@pytest.mark.parametrize("model", DETECTORS.values(), ids=DETECTORS)
def test_what_is_not_a_gap_is_in_a_module(model):
    down, across = model.modules
    rows, columns = model.module
    assert (~model.gaps()).sum() == down * across * rows * columns


def test_unknown_detectors_are_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"mar345.*pilatus-1m.*eiger-16m"):
        detector("mar345")
