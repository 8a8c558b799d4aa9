"""The picture of a grid scan shows each count where it was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parvis_services.demo.heatmap import COLOURS, MARK, UNKNOWN, Colour, colour, draw_png
from parvis_services.xray.grid import Grid


def lightness(rgb: Colour) -> float:
    """L* of CIELAB."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.divide(rgb, 255)]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def test_more_is_lighter_everywhere_by_about_as_much():
    steps = np.diff([lightness(colour(fraction)) for fraction in np.linspace(0, 1, 101)])
    assert (steps > 0).all()
    assert steps.max() < 2.5 * steps.min()


def test_colours_end_where_the_counts_do():
    assert colour(0) == colour(-1) == COLOURS[0]
    assert colour(1) == colour(2) == COLOURS[-1]
    assert colour(float("nan")) == UNKNOWN


def drawn(path: Path, grid: Grid, counts, **options) -> np.ndarray:
    draw_png(path, grid, counts, **options)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def middle(pixels: np.ndarray, rgb: Colour) -> tuple[float, float]:
    """Where most of a colour is: x and y in pixels."""
    rows, columns = np.nonzero((pixels == rgb).all(axis=2))
    assert len(rows)
    return float(np.median(columns)), float(np.median(rows))


@pytest.mark.parametrize("orientation", ["horizontal", "vertical"])
def test_boxes_lie_as_on_the_crystal(tmp_path, orientation):
    grid = Grid(3, 2, True, orientation)
    by_box = np.array([[0, 25, 50], [75, 100, np.nan]])
    counts = np.empty(6)
    counts[grid.order().ravel()] = by_box.ravel()
    pixels = drawn(tmp_path / "map.png", grid, counts)
    places = np.array([[middle(pixels, colour(count / 100)) for count in row] for row in by_box])
    x, y = places[..., 0], places[..., 1]
    assert np.ptp(x, axis=0).max() <= 2
    assert np.ptp(y, axis=1).max() <= 2
    np.testing.assert_allclose(np.diff(x, axis=1), 64, atol=2)
    np.testing.assert_allclose(np.diff(y, axis=0), 64, atol=2)


def test_boxes_have_their_shape_on_the_crystal(tmp_path):
    pixels = drawn(tmp_path / "map.png", Grid(2, 2), [0, 0, 0, 9], box_um=(20, 10))
    rows, columns = np.nonzero((pixels == COLOURS[-1]).all(axis=2))
    inside = columns < np.quantile(columns, 0.9)
    assert np.ptp(columns[inside]) / np.ptp(rows[inside]) == pytest.approx(2, rel=0.1)


def test_the_cross_is_at_the_centre(tmp_path):
    counts = np.zeros(12)
    counts[6] = 5
    grid = Grid(4, 3)
    plain = drawn(tmp_path / "plain.png", grid, counts)
    marked = drawn(tmp_path / "marked.png", grid, counts, centre=(2.5, 1.5))
    x, y = middle(plain, colour(1.0))
    assert not (plain == MARK).all(axis=2).any()
    rows, columns = np.nonzero((marked == MARK).all(axis=2))
    on_grid = np.abs(rows - y) < 40
    assert np.median(columns[on_grid]) == pytest.approx(x, abs=2)
    assert np.median(rows[on_grid]) == pytest.approx(y, abs=2)


def test_the_best_image_is_framed(tmp_path):
    grid = Grid(4, 3, snaked=True)
    plain = drawn(tmp_path / "plain.png", grid, np.arange(12))
    framed = drawn(tmp_path / "framed.png", grid, np.arange(12), best_image=12)
    x, y = middle(plain, colour(1.0))
    rows, columns = np.nonzero((plain != framed).any(axis=2))
    on_grid = np.abs(rows - y) < 40
    assert np.abs(columns[on_grid] - x).max() < 40
    assert (columns[on_grid].min() + columns[on_grid].max()) / 2 == pytest.approx(x, abs=3)


@pytest.mark.parametrize(
    "grid", [Grid(1, 1), Grid(19, 1), Grid(1, 60), Grid(300, 200), Grid(1, 3000), Grid(2500, 2)], ids=str
)
def test_any_grid_fits_a_screen(tmp_path, grid):
    counts = np.linspace(0, 99_999, grid.size)
    pixels = drawn(tmp_path / "map.png", grid, counts, centre=(0.5, 0.5), best_image=grid.size)
    if max(grid.shape) <= 300:
        assert pixels.shape[1] <= 1300
        assert pixels.shape[0] <= 1000


@pytest.mark.parametrize("counts", [np.zeros(6), np.full(6, np.nan), [0, 0, 0, 0, 0, 0.5]])
def test_nothing_found_is_a_picture_too(tmp_path, counts):
    assert drawn(tmp_path / "map.png", Grid(3, 2), counts).any()


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="6 boxes"):
        draw_png(tmp_path / "map.png", Grid(3, 2), [1, 2, 3])
    with pytest.raises(ValueError, match="positive size"):
        draw_png(tmp_path / "map.png", Grid(1, 1), [1], box_um=(0, 20))
    with pytest.raises(ValueError, match="image 9"):
        draw_png(tmp_path / "map.png", Grid(3, 2), [1] * 6, best_image=9)
    assert not (tmp_path / "map.png").exists()
