"""Absorption in sensors."""

from __future__ import annotations

import pytest

from parvis_services.xray.attenuation import KEV_ANGSTROM, attenuation, sensor_material


def test_silicon_is_as_dials_has_it():
    assert attenuation("Si", 0.96859) == pytest.approx(3.83262, rel=1e-6)


@pytest.mark.parametrize(
    ("material", "kev", "per_mm"),
    [("Si", 10, 33.89 * 0.233), ("CdTe", 40, 19.3 * 0.62), ("GaAs", 20, 42.57 * 0.531)],
)
def test_tabulated_energies_give_the_tabulated_figures(material, kev, per_mm):
    assert attenuation(material, KEV_ANGSTROM / kev) == pytest.approx(per_mm, rel=1e-9)


@pytest.mark.parametrize(
    ("material", "edge"), [("CdTe", 26.711), ("CdTe", 31.814), ("GaAs", 10.3671), ("GaAs", 11.8667)]
)
def test_absorption_jumps_at_an_edge(material, edge):
    below = attenuation(material, KEV_ANGSTROM / (edge - 0.001))
    above = attenuation(material, KEV_ANGSTROM / (edge + 0.001))
    assert below is not None
    assert above is not None
    assert above > 1.5 * below


@pytest.mark.parametrize("wavelength", [0.0196, 25.0])
def test_beyond_the_table_nothing_is_known(wavelength):
    assert attenuation("Si", wavelength) is None


def test_names_of_materials():
    assert [sensor_material(name) for name in ("Silicon", "Si", " CdTe ", "GaAs", "Ge")] == [
        "Si",
        "Si",
        "CdTe",
        "GaAs",
        None,
    ]
