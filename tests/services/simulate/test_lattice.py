"""The reflections of a crystal."""

from __future__ import annotations

import numpy as np
import pytest

from parvis_services.simulate.lattice import (
    LYSOZYME,
    THAUMATIN,
    excitation,
    near_sphere,
    random_rotation,
    reflections,
    small_rotation,
)

UNTURNED = np.eye(3)


def indices(points: np.ndarray, cell) -> np.ndarray:
    return np.rint(points * [cell.a, cell.a, cell.c]).astype(int)


@pytest.mark.parametrize("cell", [LYSOZYME, THAUMATIN])
def test_all_reflections_to_a_resolution_are_there_once(cell):
    found = reflections(cell, 6.0, 20.0, UNTURNED, seed=1)
    hkl = indices(found.points, cell)
    np.testing.assert_allclose(hkl / [cell.a, cell.a, cell.c], found.points, atol=1e-12)
    assert np.linalg.norm(found.points, axis=1).max() <= 1 / 6.0
    in_sphere = 4 / 3 * np.pi / 6.0**3 * cell.a**2 * cell.c
    assert len(found.points) == pytest.approx(in_sphere, rel=0.03)
    assert len({*map(tuple, hkl.tolist())}) == len(hkl)


def test_screw_axes_extinguish():
    hkl = {*map(tuple, indices(reflections(LYSOZYME, 3.0, 20.0, UNTURNED, 1).points, LYSOZYME).tolist())}
    assert {(0, 0, 4), (0, 0, -8), (2, 0, 0), (0, 4, 0), (1, 1, 0), (0, 1, 1)} <= hkl
    assert not {(0, 0, 1), (0, 0, 2), (0, 0, 6), (1, 0, 0), (0, 3, 0), (0, 0, 0)} & hkl


def test_equivalent_reflections_are_equally_strong():
    found = reflections(LYSOZYME, 5.0, 20.0, UNTURNED, seed=7)
    hkl = map(tuple, indices(found.points, LYSOZYME).tolist())
    strength = dict(zip(hkl, found.strengths, strict=True))
    for h, k, l in [(3, 5, 2), (1, 7, 3), (2, 2, 1)]:  # noqa: E741
        same = {strength[e] for e in [(h, k, l), (-h, -k, -l), (k, h, -l), (-k, h, l), (h, -k, l)]}
        assert len(same) == 1


def test_strengths_fall_off_by_wilson():
    found = reflections(LYSOZYME, 2.0, 25.0, UNTURNED, seed=2)
    inverse_d_squared = (found.points**2).sum(axis=1)
    shell = np.digitize(inverse_d_squared, np.linspace(0.02, 0.25, 12))
    means = [(inverse_d_squared[shell == s].mean(), found.strengths[shell == s].mean()) for s in range(1, 12)]
    x, y = np.array(means).T
    slope = np.polyfit(x, np.log(y), 1)[0]
    assert slope == pytest.approx(-25.0 / 2, rel=0.05)


def test_rotations_keep_lengths():
    random = np.random.default_rng(1)
    rotation = random_rotation(random)
    np.testing.assert_allclose(rotation @ rotation.T, UNTURNED, atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    wobble = small_rotation(random, 0.05)
    np.testing.assert_allclose(wobble @ wobble.T, UNTURNED, atol=1e-5)


def test_a_point_on_the_ewald_sphere_shines_and_one_beside_it_does_not():
    wavelength, theta = 1.0, np.radians(10)
    length = 2 * np.sin(theta) / wavelength
    on = length * np.array([np.cos(theta), 0, np.sin(theta)])
    diffracted, part = excitation(np.array([on, on * 1.1, [0, 0, 0.2]]), wavelength, mosaicity=0.1)
    assert np.linalg.norm(diffracted[0]) == pytest.approx(1 / wavelength)
    assert part == pytest.approx([1, 0, 0], abs=1e-9)


def test_none_that_shines_is_left_out():
    random = np.random.default_rng(4)
    every = reflections(LYSOZYME, 3.0, 20.0, random_rotation(random), 1)
    few = near_sphere(every, 1.0, 0.15, slack=0.2)
    assert len(few.points) < len(every.points) / 10
    kept = {*map(tuple, few.points.tolist())}
    for _ in range(5):
        turned = every.points @ small_rotation(random, 0.04).T
        shines = excitation(turned, 1.0, 0.15)[1] > 0.05
        assert {*map(tuple, every.points[shines].tolist())} <= kept
