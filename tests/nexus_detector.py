"""A detector that writes frames of CBF files again, as NXmx HDF5 in SWMR mode, in a process of its own.

python nexus_detector.py DIRECTORY PREFIX SEED FRAME...
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from parvis_services.nxmx_files import Series
from parvis_services.simulate.header import Header
from parvis_services.simulate.nexus import NexusWriter
from parvis_services.stream.image_files import pixel_mask
from parvis_services.xray.images import open_image

LONGEST_INTERVAL = 0.15


def main(directory: Path, prefix: str, seed: int, frames: list[Path]) -> None:
    """Write the frames at random intervals."""
    header = Header.from_mini_cbf(frames[0].read_bytes()[:4096].decode("latin-1"))
    first = open_image(frames[0]).data[0]
    series = Series(directory, prefix, len(frames), first.shape, images_per_file=8)
    chance = random.Random(seed)
    with NexusWriter(series, header, pixel_mask(first)) as writer:
        for frame in frames:
            writer.append(open_image(frame).data[0])
            time.sleep(chance.uniform(0, LONGEST_INTERVAL))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
