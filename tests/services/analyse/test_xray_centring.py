"""X-ray centring as a service: pieces, repeats, groups and dead ends."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from parvis.service.testing import Run, run
from parvis_services.analyse.xray_centring import XRayCentring

GRID = {
    "steps_x": 1.0,
    "steps_y": 10.0,
    "dx_mm": 0.02,
    "dy_mm": 0.02,
    "micronsPerPixelX": 0.83,
    "micronsPerPixelY": 0.83,
    "snapshot_offsetXPixel": 304.0,
    "snapshot_offsetYPixel": 229.75,
    "snaked": 1,
    "orientation": "vertical",
}
COUNTS = [0, 1, 2, 3, 4, 5, 4, 3, 2, 1]


def image(number: int, spots: int, seen_at: float = 1.0) -> dict[str, Any]:
    return {"file-number": number, "n_spots_total": spots, "file-seen-at": seen_at}


def images(counts: Sequence[int]) -> list[dict[str, Any]]:
    return [image(number, spots) for number, spots in enumerate(counts, start=1)]


def centre(payloads: Sequence[Any], grid: Any = GRID, **parameters: Any) -> Run:
    return run(XRayCentring, *payloads, node={"gridinfo": grid}, parameters={"dcid": 1} | parameters)


def only_result(done: Run) -> dict[str, Any]:
    (success,) = done.sent("success")
    assert success["status"] == "success"
    (result,) = success["results"]
    return result


def test_a_complete_grid_gives_its_centre() -> None:
    result = only_result(centre(images(COUNTS)))
    assert result["centre_of_mass"] == [0.5, 5.5]
    assert result["best_image"] == 6
    assert result["n_voxels"] == 5
    assert result["total_count"] == 19
    assert result["centre_x"] == pytest.approx(304 + 0.5 * 20 / 0.83)
    assert result["centre_y"] == pytest.approx(229.75 + 5.5 * 20 / 0.83)


def test_images_may_come_in_any_order() -> None:
    shuffled = images(COUNTS)
    random.Random(1).shuffle(shuffled)
    assert only_result(centre(shuffled))["best_image"] == 6


def test_an_image_that_comes_twice_does_not_complete_the_grid() -> None:
    nine = images(COUNTS)[:9]
    done = centre([*nine, nine[0]])
    assert done.sent("success") == []
    (checkpoint,) = done.checkpoints
    assert sorted(checkpoint.payload["xray-centring-status"]["images"]) == list(range(9))


def test_what_is_known_of_a_grid_is_put_together_from_checkpoints() -> None:
    first = centre(images(COUNTS)[:4]).checkpoints[0].payload
    second = centre(images(COUNTS)[3:8]).checkpoints[0].payload
    result = only_result(centre([first, second, *images(COUNTS)[8:]]))
    assert result["centre_of_mass"] == [0.5, 5.5]


def test_images_outside_the_grid_are_ignored() -> None:
    assert only_result(centre([image(11, 500), image(400, 3), *images(COUNTS)]))["best_image"] == 6


def test_two_grids_in_one_batch_do_not_mix() -> None:
    service = XRayCentring
    mixed = [payload for pair in zip(images(COUNTS), images(COUNTS[::-1]), strict=True) for payload in pair]
    done = run(
        service,
        *[payload | {"parameters": {"dcid": 1 + index % 2}} for index, payload in enumerate(mixed)],
        node={"gridinfo": GRID},
    )
    assert [success["results"][0]["best_image"] for success in done.sent("success")] == [6, 5]


def test_the_result_is_written_as_json_and_as_text_and_linked(tmp_path: Path) -> None:
    output = tmp_path / "guid" / "xray-centering" / "Dials5AResults.json"
    log = output.with_name("log.txt")
    centre(images(COUNTS), output=str(output), log=str(log), results_symlink="xray-centring-latest")
    written = json.loads(output.read_text())
    assert written["status"] == "ok"
    assert {"centre_x", "centre_y", "centre_x_box", "centre_y_box"} <= written.keys()
    assert "centre_x_box" in log.read_text()
    link = output.parent.parent / "xray-centring-latest"
    assert json.loads((link / output.name).read_text()) == written


def test_a_grid_without_diffraction_says_so() -> None:
    result = only_result(centre(images([0] * 10)))
    assert result["status"] == "fail"
    assert result["message"] == "No good images found"


def test_a_grid_that_nothing_came_for_in_a_long_time_is_given_up() -> None:
    status = {"images": [0, 1], "counts": [3, 4], "last-arrival": 1000.0}
    done = centre([{"xray-centring-status": status}])
    assert done.sent("abort") == [{}]
    assert done.checkpoints == []


def pair_of_scans(experiment_type: str, known: Sequence[int]) -> Run:
    """Two perpendicular scans of which those in `known` are complete."""
    grid = GRID | {"steps_x": 3, "steps_y": 2, "snaked": 0, "orientation": "horizontal"}
    counts = {7: [0, 8, 0, 0, 4, 0], 8: [0, 6, 0, 0, 0, 0]}
    payloads = [
        payload | {"parameters": {"dcid": dcid, "dcg_dcids": [15 - dcid]}}
        for dcid in known
        for payload in images(counts[dcid])
    ]
    return run(
        XRayCentring, *payloads, node={"gridinfo": grid}, parameters={"experiment_type": experiment_type}
    )


def test_a_pair_of_scans_gives_a_centre_in_three_dimensions() -> None:
    (success,) = pair_of_scans("Mesh3D", [8, 7]).sent("success")
    assert success["type"] == "3d"
    (result,) = success["results"]
    assert result["max_voxel"] == [1, 0, 0]
    assert result["max_count"] == 48


def test_the_first_of_a_pair_waits_for_the_second() -> None:
    done = pair_of_scans("Mesh3D", [7])
    assert done.sent("success") == []
    assert len(done.checkpoints) == 1


def test_the_first_of_a_pair_is_reported_at_once_where_the_experiment_does_not_wait() -> None:
    done = pair_of_scans("mesh", [7])
    assert [success["type"] for success in done.sent("success")] == ["2d"]
    assert done.checkpoints[0].payload["xray-centring-status"]["reported"] is True


@pytest.mark.parametrize(
    ("payload", "grid", "complaint"),
    [
        ({"file-number": 1}, GRID, "n_spots_total"),
        ({"n_spots_total": 1}, GRID, "file-number"),
        ({"file-number": "one", "n_spots_total": 1}, GRID, "file-number 'one'"),
        (image(1, 1), GRID | {"steps_x": 0}, "steps_x"),
        (image(1, 1), GRID | {"orientation": "diagonal"}, "orientation"),
        (image(1, 1), {}, "no grid"),
        ([1, 2], GRID, "payload"),
    ],
)
def test_bad_input_is_rejected_with_what_is_wrong(payload: Any, grid: Any, complaint: str) -> None:
    outcome = centre([payload], grid).outcome
    assert outcome.result == "reject"
    assert complaint in outcome.reason


def test_a_bad_message_does_not_spoil_its_batch() -> None:
    done = centre([{"file-number": 1}, *images(COUNTS)])
    assert done.outcomes[0].result == "reject"
    assert only_result(done)["best_image"] == 6


def test_a_scan_of_a_single_image_needs_no_centre() -> None:
    done = centre([image(1, 5)], grid={}, comment="Diffraction grid scan of 1 by 1 images, Top left [1,2]")
    assert done.outcome.result == "done"
    assert done.everything == []
