"""Frames of HDF5 files."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from made_nxmx import SHAPE, counts, dataset, describe, write_images
from parvis_services.nxmx_files import Series
from parvis_services.simulate.header import Header
from parvis_services.simulate.nexus import frames_to_nexus
from parvis_services.xray.errors import (
    BrokenImageError,
    FrameRangeError,
    ImageError,
    MissingImageError,
    UnfinishedImageError,
)
from parvis_services.xray.images import Buffers, count_frames, open_image

BITSHUFFLE: dict[str, Any] = {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle()}
HEADER = Header(
    detector="EIGER2 Si X",
    wavelength=0.9795,
    distance=0.1714,
    beam_xy=(30.4, 19.7),
    pixel_size=(75e-6, 80e-6),
    sensor_thickness=450e-6,
    count_cutoff=121774,
)


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("per_file", [3, 1000])
def test_every_frame_of_a_series(tmp_path, linked, per_file):
    made = counts(7, np.int32)
    made[:, 5:7] = -1
    made[2, 3, 3] = 200_000
    master = frames_to_nexus(list(made), HEADER, Series(tmp_path, "x", 7, SHAPE, per_file, linked))
    assert count_frames(master) == 7
    for number in (6, 0, 3, 2):
        image = open_image(master, number)
        assert (image.frame, image.path) == (number, str(master))
        assert image.data[0].dtype == np.uint32
        np.testing.assert_array_equal(image.data[0], made[number].astype(np.uint32))
    (mask,) = open_image(master).mask
    assert mask is not None
    np.testing.assert_array_equal(mask, made[0] >= 0)
    for outside in (7, 100, -1):
        with pytest.raises(FrameRangeError, match=f"no frame {outside}"):
            open_image(master, outside)


@pytest.mark.parametrize(
    ("dtype", "how"),
    [
        (np.uint8, BITSHUFFLE),
        (np.uint16, BITSHUFFLE),
        (np.int32, BITSHUFFLE),
        (">u4", BITSHUFFLE),
        (np.uint32, {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle(cname="zstd")}),
        (np.uint32, {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle(cname="none")}),
        (np.uint32, {"chunks": (3, 8, 10), **hdf5plugin.Bitshuffle()}),
        (np.uint16, {"chunks": (2, *SHAPE), "compression": "gzip"}),
        (np.uint16, {"chunks": (1, *SHAPE), "compression": "gzip", "shuffle": True}),
        (np.int16, {"chunks": (1, *SHAPE)}),
        (np.uint32, {"compression": None}),
        (np.float32, BITSHUFFLE),
        (np.float64, {"compression": None}),
    ],
)
def test_every_way_to_store_them(tmp_path, dtype, how):
    made = counts(5, dtype)
    path = write_images(tmp_path / "x.h5", made, **how)
    for number in (0, 4):
        found = open_image(path, number).data[0]
        assert found.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(found, made[number])


def test_counts_of_64_bits_become_floats(tmp_path):
    made = counts(2, np.uint64)
    found = open_image(write_images(tmp_path / "x.h5", made), 1).data[0]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, made[1])


def test_a_single_image_without_a_frame_axis(tmp_path):
    made = counts(1, np.uint16)[0]
    path = write_images(tmp_path / "x.h5", made, compression=None)
    assert count_frames(path) == 1
    np.testing.assert_array_equal(open_image(path).data[0], made)
    with pytest.raises(FrameRangeError):
        open_image(path, 1)


def test_a_chunk_that_skipped_its_filter(tmp_path):
    made = counts(1)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        describe(file)
        stored = file.create_dataset("entry/data/data", (1, *SHAPE), "<u4", **BITSHUFFLE)
        stored.id.write_direct_chunk((0, 0, 0), made[0].astype("<u4").tobytes(), filter_mask=1)
    np.testing.assert_array_equal(open_image(path).data[0], made[0])


def test_memory_is_used_again_on_request(tmp_path):
    made = counts(2)
    path = write_images(tmp_path / "x.h5", made)
    buffers = Buffers()
    first = open_image(path, 0, buffers=buffers)
    assert open_image(path, 1, buffers=buffers).data[0] is not None
    np.testing.assert_array_equal(first.data[0], made[1])


def eiger(path: Path, per_file: list[int], present: int | None = None) -> np.ndarray:
    """A master as the filewriter of a DECTRIS detector makes it: links to data files, no virtual dataset."""
    made = counts(sum(per_file), np.uint16)
    with h5py.File(path, "w") as file:
        detector = describe(file)
        specific = detector.create_group("detectorSpecific")
        bad = np.zeros(SHAPE, np.uint32)
        bad[2, 3] = 8
        dataset(specific, "pixel_mask", bad)
        dataset(specific, "countrate_correction_count_cutoff", 5000)
        for number in range(len(per_file)):
            name = f"data_{number + 1:06d}"
            file[f"entry/data/{name}"] = h5py.ExternalLink(f"x_{name}.h5", "/entry/data/data")
    for number in range(len(per_file) if present is None else present):
        eiger_data(path.parent, number, per_file, made)
    return made


def eiger_data(directory: Path, number: int, per_file: list[int], made: np.ndarray) -> None:
    first = sum(per_file[:number])
    with h5py.File(directory / f"x_data_{number + 1:06d}.h5", "w") as file:
        frames = made[first : first + per_file[number]]
        file.create_dataset("entry/data/data", data=frames, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle())


def test_data_files_of_an_eiger(tmp_path):
    master = tmp_path / "x_master.h5"
    made = eiger(master, [4, 4, 1])
    assert count_frames(master) == 9
    for number in range(9):
        np.testing.assert_array_equal(open_image(master, number).data[0], made[number])
    image = open_image(master)
    assert image.detector.panels[0].trusted == (0, 5000)
    assert image.mask[0] is not None
    assert np.argwhere(~image.mask[0]).tolist() == [[2, 3]]
    with pytest.raises(FrameRangeError, match="it has 9"):
        open_image(master, 9)


def test_data_files_that_come_later(tmp_path):
    master = tmp_path / "x_master.h5"
    made = eiger(master, [4, 4, 1], present=1)
    np.testing.assert_array_equal(open_image(master, 3).data[0], made[3])
    assert count_frames(master) == 4
    for number in (4, 8, 20):
        with pytest.raises(UnfinishedImageError, match="not written yet"):
            open_image(master, number)
    eiger_data(tmp_path, 1, [4, 4, 1], made)
    np.testing.assert_array_equal(open_image(master, 7).data[0], made[7])
    with pytest.raises(UnfinishedImageError):
        open_image(master, 8)
    eiger_data(tmp_path, 2, [4, 4, 1], made)
    assert count_frames(master) == 9
    np.testing.assert_array_equal(open_image(master, 8).data[0], made[8])
    with pytest.raises(FrameRangeError):
        open_image(master, 20)


def test_no_data_file_yet(tmp_path):
    master = tmp_path / "x_master.h5"
    eiger(master, [4], present=0)
    with pytest.raises(UnfinishedImageError, match="no images in it"):
        open_image(master)


def test_sources_of_a_virtual_dataset_that_come_later(tmp_path):
    made = counts(4, np.int32)
    master = frames_to_nexus(list(made), HEADER, Series(tmp_path, "x", 4, SHAPE, 2))
    second = tmp_path / "x_000002.h5"
    second.rename(tmp_path / "later")
    np.testing.assert_array_equal(open_image(master, 1).data[0], made[1])
    with pytest.raises(UnfinishedImageError, match=r"x_000002\.h5, to which it links, is not there"):
        open_image(master, 2)
    (tmp_path / "later").rename(second)
    np.testing.assert_array_equal(open_image(master, 2).data[0], made[2])


def test_a_virtual_dataset_that_puts_modules_together(tmp_path):
    made = counts(3, np.uint16)
    path = tmp_path / "x.h5"
    layout = h5py.VirtualLayout((3, *SHAPE), np.uint16)
    for half, rows in enumerate((slice(0, 12), slice(12, 24))):
        with h5py.File(tmp_path / f"module_{half}.h5", "w") as file:
            file["data"] = np.concatenate([np.zeros((1, 12, 40), np.uint16), made[:, rows]])
        layout[:, rows] = h5py.VirtualSource(f"module_{half}.h5", "data", (4, 12, 40), np.uint16)[1:]
    with h5py.File(path, "w") as file:
        describe(file)
        file["entry/data"].create_virtual_dataset("data", layout)  # pyright: ignore[reportAttributeAccessIssue]
    for number in range(3):
        np.testing.assert_array_equal(open_image(path, number).data[0], made[number])
    with h5py.File(tmp_path / "module_1.h5", "w") as file:
        late = file.create_dataset("data", (4, 12, 40), np.uint16, chunks=(1, 12, 40))
        late[1] = made[0, 12:]
    np.testing.assert_array_equal(open_image(path, 0).data[0], made[0])
    with pytest.raises(UnfinishedImageError, match="frame 1 is not written yet"):
        open_image(path, 1)
    (tmp_path / "module_1.h5").unlink()
    with pytest.raises(UnfinishedImageError, match=r"module_1\.h5, to which it links, is not there"):
        open_image(path, 0)


def test_a_virtual_dataset_that_begins_later(tmp_path):
    """Some detectors take frames before the scan, which nobody wants."""
    made = counts(6, np.uint16)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_dataset("data", data=made, **BITSHUFFLE)
    layout = h5py.VirtualLayout((3, *SHAPE), np.uint16)
    layout[:] = h5py.VirtualSource("all.h5", "data", made.shape, np.uint16)[2:5]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        describe(file)
        file["entry/data"].create_virtual_dataset("data", layout)  # pyright: ignore[reportAttributeAccessIssue]
    for number in range(3):
        np.testing.assert_array_equal(open_image(tmp_path / "x.h5", number).data[0], made[number + 2])


@pytest.mark.parametrize("how", [BITSHUFFLE, {"chunks": (1, *SHAPE), "compression": "gzip"}])
def test_frames_that_are_not_written_yet(tmp_path, how):
    path = tmp_path / "x.h5"
    made = counts(1)
    with h5py.File(path, "w") as file:
        describe(file)
        stored = file.create_dataset("entry/data/data", (5, *SHAPE), "u4", **how)
        stored[1] = made[0]
    np.testing.assert_array_equal(open_image(path, 1).data[0], made[0])
    for number in (0, 4):
        with pytest.raises(UnfinishedImageError, match=f"frame {number} is not written yet"):
            open_image(path, number)


def damage(path: Path, frame: int, chunk: bytes) -> None:
    with h5py.File(path, "a") as file:
        file["entry/data/data"].id.write_direct_chunk((frame, 0, 0), chunk)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("how", [BITSHUFFLE, {"chunks": (1, *SHAPE), "compression": "gzip"}])
@pytest.mark.parametrize("chunk", [b"\0", b"\xff" * 30, bytes(8) + b"garbage" * 50])
def test_a_broken_chunk_spoils_its_frame_only(tmp_path, how, chunk):
    made = counts(3)
    path = write_images(tmp_path / "x.h5", made, **how)
    damage(path, 1, chunk)
    with pytest.raises(BrokenImageError, match=r"x\.h5: frame 1 is damaged"):
        open_image(path, 1)
    for number in (0, 2):
        np.testing.assert_array_equal(open_image(path, number).data[0], made[number])


def test_a_chunk_cut_short(tmp_path):
    path = write_images(tmp_path / "x.h5", counts(2))
    with h5py.File(path) as file:
        chunk = file["entry/data/data"].id.read_direct_chunk((0, 0, 0))[1]  # pyright: ignore[reportAttributeAccessIssue]
    damage(path, 0, chunk[: len(chunk) // 2])
    with pytest.raises(BrokenImageError, match=r"frame 0 is damaged: .*incomplete"):
        open_image(path, 0)


def test_a_file_cut_short(tmp_path):
    whole = write_images(tmp_path / "x.h5", counts(20)).read_bytes()
    for kept in (50, 2000, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"{kept}.h5"
        path.write_bytes(whole[:kept])
        with pytest.raises((UnfinishedImageError, BrokenImageError)):
            open_image(path)


def test_garbage_with_the_signature_of_hdf5(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 20)
    with pytest.raises(ImageError):
        open_image(path)


def test_images_larger_than_any_detector_cost_no_memory(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        describe(file)
        file.create_dataset("entry/data/data", (1, 10**6, 10**6), "u4", chunks=(1, 1000, 1000))
    with pytest.raises(BrokenImageError, match="larger than any detector"):
        open_image(path)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("entry", "give its master file"),
        ("entry/instrument", "give its master file"),
        ("entry/instrument/detector", "give its master file"),
        ("entry/data", "no NXdata group"),
        ("entry/data/data", "no images in it"),
        ("entry/instrument/beam/incident_wavelength", "does not give the wavelength"),
        ("entry/instrument/detector/detector_distance", "does not give detector_distance"),
        ("entry/instrument/detector/beam_center_x", "does not give beam_center_x"),
        ("entry/instrument/detector/y_pixel_size", "does not give y_pixel_size"),
    ],
)
def test_what_is_missing_is_named(tmp_path, missing, says):
    path = write_images(tmp_path / "x.h5", counts(1))
    with h5py.File(path, "a") as file:
        del file[missing]
    with pytest.raises(ImageError, match=says):
        open_image(path)


def test_a_linked_mask_that_is_not_there(tmp_path):
    path = write_images(tmp_path / "x.h5", counts(1))
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/pixel_mask"] = h5py.ExternalLink("x_meta.h5", "/mask")
    with pytest.raises(UnfinishedImageError, match=r"x_meta\.h5, to which it links, is not there"):
        open_image(path)


def test_a_mask_of_another_size_is_not_used(tmp_path, caplog):
    path = write_images(tmp_path / "x.h5", counts(1))
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/pixel_mask"] = np.ones((40, 24), np.uint32)
    assert open_image(path).mask == (None,)
    assert "pixel mask" in caplog.text


@pytest.mark.parametrize(
    "link", [h5py.SoftLink("/entry/data/data"), h5py.ExternalLink("x.h5", "/entry/data/data")]
)
def test_links_in_a_circle(tmp_path, link):
    path = write_images(tmp_path / "x.h5", counts(1))
    with h5py.File(path, "a") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = link
    with pytest.raises(BrokenImageError, match="leads in a circle"):
        open_image(path)


def test_a_soft_link_to_the_images(tmp_path):
    made = counts(1)
    path = write_images(tmp_path / "x.h5", made)
    with h5py.File(path, "a") as file:
        file.move("entry/data/data", "entry/elsewhere")
        file["entry/data/data"] = h5py.SoftLink("/entry/elsewhere")
    np.testing.assert_array_equal(open_image(path).data[0], made[0])


def test_images_of_text(tmp_path):
    path = write_images(tmp_path / "x.h5", counts(1))
    with h5py.File(path, "a") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = np.full((1, *SHAPE), b"a")
    with pytest.raises(BrokenImageError, match="cannot be read"):
        open_image(path)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    first, second = counts(1), counts(2)
    path = write_images(tmp_path / "x.h5", first)
    np.testing.assert_array_equal(open_image(path).data[0], first[0])
    write_images(tmp_path / "new.h5", second).replace(path)
    np.testing.assert_array_equal(open_image(path, 1).data[0], second[1])


def test_more_files_than_are_kept_open(tmp_path):
    made = {}
    for number in range(7):
        made[tmp_path / f"{number}.h5"] = counts(number + 1)
    for path, images in made.items():
        write_images(path, images)
    for path, images in [*made.items(), *made.items()]:
        np.testing.assert_array_equal(open_image(path).data[0], images[0])


def test_a_file_that_disappears(tmp_path):
    path = write_images(tmp_path / "x.h5", counts(1))
    open_image(path)
    path.unlink()
    with pytest.raises(MissingImageError):
        open_image(path)


def test_frames_of_two_sizes(tmp_path):
    master = tmp_path / "x_master.h5"
    eiger(master, [2, 2], present=1)
    with h5py.File(tmp_path / "x_data_000002.h5", "w") as file:
        file["entry/data/data"] = np.zeros((2, 9, 9), np.uint16)
    assert open_image(master, 1).data[0].shape == SHAPE
    with pytest.raises(BrokenImageError, match="frame 2 is of another size"):
        open_image(master, 2)


def test_threads_read_different_frames(tmp_path):
    made = counts(12, np.int32)
    master = frames_to_nexus(list(made), HEADER, Series(tmp_path, "x", 12, SHAPE, 5))
    buffers = Buffers()

    def read(number: int) -> bool:
        image = open_image(master, number % 12, buffers=buffers)
        return bool((image.data[0] == made[number % 12].astype(np.uint32)).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(120)))


def test_copies_of_a_series_in_another_directory(tmp_path):
    """Links are relative to the file they are in."""
    (tmp_path / "a").mkdir()
    made = counts(2, np.int32)
    frames_to_nexus(list(made), HEADER, Series(tmp_path / "a", "x", 2, SHAPE))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    np.testing.assert_array_equal(open_image(tmp_path / "b" / "x.nxs", 1).data[0], made[1])
