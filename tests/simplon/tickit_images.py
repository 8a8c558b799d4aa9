"""The EIGER of `tickit-devices` with other images in it: `python tickit_images.py DIRECTORY all FILE.yaml`.

It runs in an environment of its own, which knows nothing of Parvis. What is said is said by tickit-devices,
its SIMPLON interface and both of its streams; only what it sees is put before it. DIRECTORY has a file of
packed counts for each image, `0.bslz4` and so on, and `images.json` with their `shape` (rows, columns),
`dtype`, how many there are, and what cannot be set through SIMPLON: fields of the `start` message of Stream
V2, and the `appendix` of the header of Stream V1.
"""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import cbor2
from tickit_devices.eiger.data.dummy_image import Image
from tickit_devices.eiger.stream.eiger_stream import EigerStream
from tickit_devices.eiger.stream.eiger_stream_2 import EigerStream2

TYPED_ARRAY = {"uint8": 64, "uint16": 69, "uint32": 70}


def put_images_before_it(directory: Path) -> None:
    """Have the simulated detector see these images, again from the first when it has seen all."""
    told = json.loads((directory / "images.json").read_text())
    (rows, columns), dtype, number = told["shape"], told["dtype"], told["images"]
    size = int(dtype[4:]) // 8
    packed = [(directory / f"{place}.bslz4").read_bytes() for place in range(number)]
    insert_image = EigerStream2.insert_image

    def see(index: int, _shape: tuple[int, int]) -> Image:
        return Image(index, "none", dtype, packed[index % number], f"bs{8 * size}-lz4<", (columns, rows))

    def insert(self: Any, image: Image, series_id: int) -> None:
        counts = cbor2.CBORTag(TYPED_ARRAY[dtype], cbor2.CBORTag(56500, ["bslz4", size, image.data]))
        self._image["data"] = {"threshold_1": cbor2.CBORTag(40, [[rows, columns], counts])}
        insert_image(self, image, series_id)

    Image.create_dummy_image = staticmethod(see)
    EigerStream2.insert_image = insert


def put_words_before_it(directory: Path) -> None:
    """Have it say more at the start of a series."""
    told = json.loads((directory / "images.json").read_text())
    begin_v1, begin_v2 = EigerStream.begin_series, EigerStream2.begin_series

    def begin(self: Any, *arguments: Any) -> None:
        begin_v1(self, *arguments)
        if told["appendix"]:
            self._buffer(told["appendix"].encode())

    def begin_2(self: Any, *arguments: Any) -> None:
        self._start |= told["start"]
        begin_v2(self, *arguments)

    EigerStream.begin_series, EigerStream2.begin_series = begin, begin_2


if __name__ == "__main__":
    place = Path(sys.argv.pop(1))
    put_images_before_it(place)
    put_words_before_it(place)
    runpy.run_module("tickit", run_name="__main__", alter_sys=True)
