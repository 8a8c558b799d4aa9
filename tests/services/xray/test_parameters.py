"""What cannot be asked for."""

from __future__ import annotations

import math

import pytest

from parvis_services.xray.parameters import (
    AnalysisParameters,
    DispersionParameters,
    MaskParameters,
    Polygon,
    SpotFilters,
)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DispersionParameters(kernel_size=(0, 3)), "kernel_size"),
        (lambda: DispersionParameters(n_sigma_b=-1), "n_sigma_b"),
        (lambda: DispersionParameters(n_sigma_s=math.nan), "n_sigma_s"),
        (lambda: DispersionParameters(global_threshold=math.inf), "global_threshold"),
        (lambda: DispersionParameters(gain=0), "gain"),
        (lambda: SpotFilters(min_spot_size=0), "min_spot_size"),
        (lambda: SpotFilters(min_spot_size=5, max_spot_size=4), "max_spot_size"),
        (lambda: SpotFilters(max_separation=-1), "max_separation"),
        (lambda: SpotFilters(max_strong_pixel_fraction=0), "max_strong_pixel_fraction"),
        (lambda: MaskParameters(border=-1), "border"),
        (lambda: MaskParameters(d_min=3, d_max=2), r"d_min \(3 Å\) must be less than d_max \(2 Å\)"),
        (lambda: MaskParameters(resolution_ranges=((3, -2),)), "resolution range"),
        (lambda: MaskParameters(ice_rings_width=0), "ice_rings_width"),
        (lambda: Polygon(((0, 0), (1, 1))), "three corners"),
        (lambda: AnalysisParameters(algorithm="radial_profile"), "'radial_profile'"),  # pyright: ignore[reportArgumentType]
        (lambda: AnalysisParameters(engine="xds"), "'xds'"),  # pyright: ignore[reportArgumentType]
        (lambda: AnalysisParameters(d_min=-1), "d_min"),
        (lambda: AnalysisParameters(ice_rings_width=-1), "ice_rings_width"),
    ],
)
def test_impossible_settings_are_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_the_defaults_are_those_of_the_service():
    parameters = AnalysisParameters()
    assert (parameters.algorithm, parameters.d_min, parameters.d_max) == ("dispersion", None, 40.0)
    assert (parameters.filter_ice, parameters.ice_rings_width) == (True, 0.004)
    assert parameters == AnalysisParameters()
    assert hash(parameters) == hash(AnalysisParameters())
