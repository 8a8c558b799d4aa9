"""CBF files, whole and broken."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest

from parvis_services.simulate.cbf import cbf_bytes
from parvis_services.simulate.header import Header
from parvis_services.xray.errors import (
    BrokenImageError,
    FrameRangeError,
    ImageError,
    UnfinishedImageError,
    UnknownFormatError,
)
from parvis_services.xray.images import Buffers, open_image
from real_data import real_data

HEADER = Header(
    detector="PILATUS3 300K, S/N 3-0100",
    wavelength=0.9795,
    distance=0.2,
    beam_xy=(240.5, 300.25),
    pixel_size=(172e-6, 173e-6),
    sensor_thickness=450e-6,
    count_cutoff=1000000,
)
SHAPE = (619, 487)


def counts(seed: int = 1, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    random = np.random.default_rng(seed)
    image = random.poisson(5, shape).astype(np.int32)
    image[random.integers(0, shape[0], 50), random.integers(0, shape[1], 50)] = random.integers(0, 10**6, 50)
    image[3, 4] = -2
    return image


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def cbf() -> bytes:
    return cbf_bytes(counts(), HEADER, "x")


@pytest.mark.parametrize(
    ("name", "compress"),
    [("x.cbf", bytes), ("x.cbf.gz", gzip.compress), ("x.cbf.bz2", bz2.compress), ("odd", bz2.compress)],
)
def test_counts_and_geometry(tmp_path, cbf, name, compress):
    image = open_image(write(tmp_path / name, compress(cbf)))
    np.testing.assert_array_equal(image.data[0], counts())
    assert image.data[0].dtype == np.int32
    assert (image.path, image.frame) == (str(tmp_path / name), None)
    (panel,) = image.detector.panels
    assert panel.shape == SHAPE
    assert panel.pixel_size == pytest.approx((0.173, 0.172))
    assert panel.origin == pytest.approx((-240.5 * 0.172, 300.25 * 0.173, -200))
    assert (panel.fast_axis, panel.slow_axis) == ((1, 0, 0), (0, -1, 0))
    assert panel.trusted == (0, 1000000)
    assert panel.pad
    assert panel.thickness == pytest.approx(0.45)
    assert panel.attenuation == pytest.approx(3.96, abs=0.02)
    assert (image.beam.wavelength, image.beam.direction) == (0.9795, (0, 0, -1))


def test_gaps_between_modules_are_masked(tmp_path, cbf):
    (mask,) = open_image(write(tmp_path / "x.cbf", cbf)).mask
    assert mask is not None
    assert not mask[195:212].any()
    assert mask[:195].all()
    other = cbf_bytes(counts(shape=(30, 40)), HEADER, "x")
    assert open_image(write(tmp_path / "y.cbf", other)).mask == (None,)


def test_memory_is_used_again_on_request(tmp_path, cbf):
    first, second = (
        write(tmp_path / "1.cbf", cbf),
        write(tmp_path / "2.cbf", cbf_bytes(counts(2), HEADER, "x")),
    )
    buffers = Buffers()
    one = open_image(first, buffers=buffers)
    assert open_image(second, buffers=buffers).data[0] is not None
    np.testing.assert_array_equal(one.data[0], counts(2))
    kept = open_image(first)
    assert open_image(second).data[0] is not None
    np.testing.assert_array_equal(kept.data[0], counts())


def test_a_smaller_file_after_a_larger_one(tmp_path, cbf):
    small = cbf_bytes(counts(3, (30, 40)), HEADER, "x")
    buffers = Buffers()
    open_image(write(tmp_path / "1.cbf", cbf), buffers=buffers)
    image = open_image(write(tmp_path / "2.cbf", small), buffers=buffers)
    np.testing.assert_array_equal(image.data[0], counts(3, (30, 40)))
    with pytest.raises(UnfinishedImageError):
        open_image(write(tmp_path / "3.cbf", small[:2000]), buffers=buffers)


def test_a_cbf_file_has_one_frame(tmp_path, cbf):
    path = write(tmp_path / "x.cbf", cbf)
    assert open_image(path, 0).frame is None
    with pytest.raises(FrameRangeError, match="no frame 1: a CBF file holds one image"):
        open_image(path, 1)


@pytest.mark.parametrize("kept", [9, 100, 700, 1500, 3000, 10_000, -200_000, -4200])
def test_a_file_cut_short_is_not_finished(tmp_path, cbf, kept):
    path = write(tmp_path / "x.cbf", cbf[:kept])
    with pytest.raises(
        UnfinishedImageError, match=r"x\.cbf: the file ends .*still being written, or cut short"
    ):
        open_image(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("kept", [20, 1000, -1000, -1])
def test_a_compressed_file_cut_short_is_not_finished(tmp_path, cbf, compress, kept):
    path = write(tmp_path / "x.cbf.z", compress(cbf)[:kept])
    with pytest.raises(UnfinishedImageError, match="ends too soon"):
        open_image(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_damaged_compressed_file(tmp_path, cbf, compress):
    damaged = bytearray(compress(cbf))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 40] = b"\xff" * 40
    with pytest.raises(BrokenImageError, match="compressed file is damaged"):
        open_image(write(tmp_path / "x.cbf.z", bytes(damaged)))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_compressed_file_of_something_else(tmp_path, compress):
    with pytest.raises(UnknownFormatError, match="not a CBF image"):
        open_image(write(tmp_path / "x.cbf.z", compress(b"hello world" * 100)))


def changed(cbf: bytes, old: bytes, new: bytes) -> bytes:
    assert old in cbf
    return cbf.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"# Wavelength", b"# Wavelenght", "does not give Wavelength"),
        (b"# Wavelength 0.9795", b"# Wavelength 0", "wavelength must be more than 0"),
        (b"# Detector_distance 0.2", b"# Detector_distance 0", "distance must be more than 0"),
        (b"# Beam_xy (240.5, 300.25)", b"# Beam_xy (240.5)", "does not give Beam_xy"),
        (b"# Pixel_size 172e-6 m x 173e-6 m", b"# Pixel_size", "does not give Pixel_size"),
        (b"Fastest-Dimension: 487", b"Fastest-Dimension: 0", "Fastest-Dimension"),
        (b"Fastest-Dimension: 487", b"Fastest-Dimension: -487", "Fastest-Dimension"),
        (b"Fastest-Dimension: 487", b"Fastest-Dimension: 999999999999", "cannot hold"),
        (b"Fastest-Dimension: 487", b"Fastest-Dimension: " + b"9" * 5000, "Fastest-Dimension"),
        (b"Second-Dimension: 619", b"Second-Dimension: 618", "damaged"),
        (b"Second-Dimension: 619", b"Second-Dimension: 620", "damaged"),
        (b"X-Binary-Size: ", b"X-Binary-Syze: ", "does not give X-Binary-Size"),
        (b"x-CBF_BYTE_OFFSET", b"x-CBF_PACKED", "x-CBF_PACKED, not byte offset"),
        (b"signed 32-bit integer", b"signed 32-bit real IEEE", "cannot be read"),
    ],
)
def test_headers_that_lie(tmp_path, cbf, old, new, says):
    with pytest.raises(BrokenImageError, match=says):
        open_image(write(tmp_path / "x.cbf", changed(cbf, old, new)))


def test_a_size_that_is_too_large_looks_like_an_unfinished_file(tmp_path, cbf):
    start = cbf.index(b"X-Binary-Size: ")
    lying = cbf[:start] + b"X-Binary-Size: 99999999999" + cbf[cbf.index(b"\r\n", start) :]
    with pytest.raises(UnfinishedImageError, match="of the 99999999999 bytes"):
        open_image(write(tmp_path / "x.cbf", lying))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_data_never_crash(tmp_path, cbf, seed):
    random = np.random.default_rng(seed)
    damaged = bytearray(cbf)
    for place in random.integers(0, len(cbf), 30):
        damaged[place] = random.integers(0, 256)
    try:
        image = open_image(write(tmp_path / "x.cbf", bytes(damaged)))
    except ImageError:
        return
    assert image.data[0].size > 0


def test_without_a_sensor_there_is_no_parallax_and_no_pad(tmp_path, cbf):
    path = write(tmp_path / "x.cbf", changed(cbf, b"# Silicon sensor", b"# CCD"))
    (panel,) = open_image(path).detector.panels
    assert (panel.thickness, panel.attenuation, panel.pad) == (0.0, None, False)


def test_a_sensor_of_another_material_has_no_parallax(tmp_path, cbf):
    path = write(tmp_path / "x.cbf", changed(cbf, b"# Silicon sensor", b"# Germanium sensor"))
    (panel,) = open_image(path).detector.panels
    assert panel.attenuation is None
    assert panel.pad


def test_cadmium_telluride(tmp_path, cbf):
    path = write(tmp_path / "x.cbf", changed(cbf, b"# Silicon sensor", b"# CdTe sensor"))
    assert open_image(path).detector.panels[0].attenuation == pytest.approx(46, abs=2)


def test_without_a_cutoff_nothing_is_too_bright(tmp_path, cbf):
    path = write(tmp_path / "x.cbf", changed(cbf, b"# Count_cutoff 1000000 counts", b""))
    assert open_image(path).detector.panels[0].trusted == (0, 2**31 - 1)


def test_uncompressed_counts(tmp_path):
    image = counts(4, (20, 30))
    head = cbf_bytes(image, HEADER, "x").split(b"\x0c\x1a\x04\xd5")[0]
    head = head.replace(b'     conversions="x-CBF_BYTE_OFFSET"', b"")
    head = head.replace(b"signed 32-bit", b"unsigned 16-bit")
    size = head.index(b"X-Binary-Size: ")
    head = head[:size] + b"X-Binary-Size: 1200" + head[head.index(b"\r\n", size) :]
    data = np.clip(image, 0, 65535).astype("<u2")
    found = open_image(write(tmp_path / "x.cbf", head + b"\x0c\x1a\x04\xd5" + data.tobytes())).data[0]
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, data)


def test_the_rows_of_a_pilatus_12m_are_panels(tmp_path):
    shape = (5071, 2463)
    image = np.zeros(shape, np.int32)
    image[212 * 7 + 3, 100] = 77
    data = cbf_bytes(image, HEADER, "x").replace(b"PILATUS3 300K, S/N 3-0100", b"PILATUS 12M, S/N 120-0100")
    found = open_image(write(tmp_path / "x.cbf", data))
    assert [array.shape for array in found.data] == [(195, 2463)] * 24
    assert found.data[7][3, 100] == 77
    assert all(mask is not None and not mask[:, 487:494].any() and mask[:, :487].all() for mask in found.mask)


def test_a_real_file_cut_at_many_places(tmp_path):
    whole = bz2.decompress(real_data("l_cysteine/l-cyst_01_00002.cbf.bz2").read_bytes())
    data_end = whole.index(b"\x0c\x1a\x04\xd5") + 4 + 2476565
    assert open_image(write(tmp_path / "x.cbf", whole)).data[0].shape == (1679, 1475)
    for kept in (8, 60, 5000, 9000, len(whole) // 3, len(whole) // 2, data_end - 100):
        with pytest.raises(UnfinishedImageError):
            open_image(write(tmp_path / "x.cbf", whole[:kept]))


def test_axis_tables_of_another_size_than_the_image(tmp_path):
    whole = bz2.decompress(real_data("l_cysteine/l-cyst_01_00002.cbf.bz2").read_bytes())
    with pytest.raises(BrokenImageError, match="axis tables describe"):
        open_image(write(tmp_path / "x.cbf", whole.replace(b"ARRAY1 1 1475 1", b"ARRAY1 1 1470 1", 1)))
