"""With numba and without it the numbers are the same."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from made_nxmx import SHAPE, counts, write_images
from parvis_services.simulate.cbf import write_cbf
from parvis_services.simulate.header import Header
from parvis_services.xray import tiers
from parvis_services.xray.analysis import analyse
from parvis_services.xray.parameters import AnalysisParameters

PROGRAM = """
import json, logging, sys
if sys.argv[1] == "without":
    sys.modules["numba"] = None
from parvis_services.xray import tiers
from parvis_services.xray.analysis import analyse
from parvis_services.xray.parameters import AnalysisParameters

logging.basicConfig(stream=sys.stderr, format="%(message)s")
results = [
    analyse(path, AnalysisParameters(algorithm=algorithm)).as_dict()
    for path in sys.argv[2:]
    for algorithm in ("dispersion", "dispersion_extended")
]
assert ("parvis_services.xray.kernels.threshold" in sys.modules) is (sys.argv[1] == "with")
print(json.dumps(results))
"""
HEADER = Header("PILATUS", 1.0, 0.1, (75.0, 60.0), (1e-3, 1e-3), 450e-6, 60000)


def test_without_numba_everything_works_and_says_so(tmp_path):
    random = np.random.default_rng(3)
    image = random.poisson(2, (120, 150)).astype(np.int32)
    for _ in range(40):
        y, x = random.integers(5, 110, 2)
        image[y : y + 2, x : x + 3] = random.integers(100, 40_000)
    write_cbf(tmp_path / "x.cbf", image, HEADER)
    nexus = write_images(tmp_path / "x.h5", counts(1, np.uint16))
    files = [str(tmp_path / "x.cbf"), str(nexus)]
    outcome = {}
    for which in ("with", "without"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, which, *files], capture_output=True, text=True, check=True
        )
        outcome[which] = json.loads(done.stdout), done.stderr
    assert outcome["with"][0] == outcome["without"][0]
    assert outcome["with"][0][0]["n_spots_total"] > 20
    assert "numba cannot be used" not in outcome["with"][1]
    assert outcome["without"][1].count("numba cannot be used") == 1


def test_numba_is_not_imported_before_it_is_needed():
    program = (
        "import sys\n"
        "import parvis_services.xray.analysis, parvis_services.xray.cbf\n"
        "assert 'numba' not in sys.modules and 'h5py' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_fast_tier_is_the_one_used(tmp_path):
    write_cbf(tmp_path / "x.cbf", np.zeros((50, 50), np.int32), HEADER)
    assert analyse(tmp_path / "x.cbf", AnalysisParameters()).n_spots_total == 0
    assert tiers.threshold("dispersion").__module__.startswith("parvis_services.xray.kernels")
    assert tiers.decodes_bitshuffle_quickly()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_chunks_are_decoded_into_the_memory_given(tmp_path, dtype):
    import h5py

    made = counts(1, dtype)
    with h5py.File(write_images(tmp_path / "x.h5", made)) as file:
        stored = file["entry/data/data"]
        assert isinstance(stored, h5py.Dataset)
        chunk = stored.id.read_direct_chunk((0, 0, 0))[1]
    out = np.zeros(SHAPE, dtype)
    assert tiers.decode_bitshuffle(chunk, SHAPE, dtype, out) is out
    np.testing.assert_array_equal(out, made[0])
