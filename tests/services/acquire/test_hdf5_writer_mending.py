"""Putting files right whose writer was killed: what is touched, and what is not."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from parvis_services.acquire.swmr_mending import lookup3, mend
from parvis_services.nxmx_files import create_data_file


def test_the_checksum_is_that_of_its_author() -> None:
    text = b"Four score and seven years ago"
    assert [lookup3(b""), lookup3(text)] == [0xDEADBEEF, 0x17770551]


def test_a_file_as_a_killed_writer_leaves_it_opens_again(tmp_path: Path) -> None:
    path, left = tmp_path / "x.h5", tmp_path / "left.h5"
    with create_data_file(path, 3, (4, 5), "uint16") as file:
        file["data"].id.write_direct_chunk((1, 0, 0), b"\1\0" * 20)  # pyright: ignore[reportAttributeAccessIssue]
        file["data"].flush()  # pyright: ignore[reportAttributeAccessIssue]
        left.write_bytes(path.read_bytes())
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(left, "r")
    assert mend(left)
    with h5py.File(left, "r") as file:
        assert file["data"][:, 0, 0].tolist() == [65535, 1, 65535]  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    assert not mend(left)
    assert not mend(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"short", "only 5 bytes"),
        (b"x" * 100, "is no HDF5 file"),
        (b"\x89HDF\r\n\x1a\n\x03\x08\x08\x05" + bytes(88), "is damaged"),
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        mend(path)
    assert path.read_bytes() == content
