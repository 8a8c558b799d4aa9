"""X-ray centring as a service: pieces, repeats, groups and dead ends."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config
from parvis.service.testing import Run, run
from parvis.transport.embedded import BrokerThread
from parvis_services.analyse.xray_centring import XRayCentring
from running import Listener, connected, hosted, recipe_message

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


def report(payloads: Sequence[Any], grid: Any = GRID, **parameters: Any) -> Run:
    """What comes of complete grids: they are put together first, and reported from that."""
    together = centre(payloads, grid, **parameters)
    assert together.sent("success") == []
    return centre([checkpoint.payload for checkpoint in together.checkpoints], grid, **parameters)


def only_result(done: Run) -> dict[str, Any]:
    (success,) = done.sent("success")
    assert success["status"] == "success"
    (result,) = success["results"]
    return result


def test_a_complete_grid_gives_its_centre() -> None:
    result = only_result(report(images(COUNTS)))
    assert result["centre_of_mass"] == [0.5, 5.5]
    assert result["best_image"] == 6
    assert result["n_voxels"] == 5
    assert result["total_count"] == 19
    assert result["centre_x"] == pytest.approx(304 + 0.5 * 20 / 0.83)
    assert result["centre_y"] == pytest.approx(229.75 + 5.5 * 20 / 0.83)


def test_images_may_come_in_any_order() -> None:
    shuffled = images(COUNTS)
    random.Random(1).shuffle(shuffled)
    assert only_result(report(shuffled))["best_image"] == 6


def test_an_image_that_comes_twice_does_not_complete_the_grid() -> None:
    nine = images(COUNTS)[:9]
    done = centre([*nine, nine[0]])
    assert done.sent("success") == []
    (checkpoint,) = done.checkpoints
    assert sorted(checkpoint.payload["xray-centring-status"]["images"]) == list(range(9))


def test_what_is_known_of_a_grid_is_put_together_from_checkpoints() -> None:
    first = centre(images(COUNTS)[:4]).checkpoints[0].payload
    second = centre(images(COUNTS)[3:8]).checkpoints[0].payload
    result = only_result(report([first, second, *images(COUNTS)[8:]]))
    assert result["centre_of_mass"] == [0.5, 5.5]


def test_images_outside_the_grid_are_ignored() -> None:
    assert only_result(report([image(11, 500), image(400, 3), *images(COUNTS)]))["best_image"] == 6


def test_two_grids_in_one_batch_do_not_mix() -> None:
    mixed = [payload for pair in zip(images(COUNTS), images(COUNTS[::-1]), strict=True) for payload in pair]
    done = report([payload | {"parameters": {"dcid": 1 + index % 2}} for index, payload in enumerate(mixed)])
    assert sorted(success["results"][0]["best_image"] for success in done.sent("success")) == [5, 6]


def test_the_result_is_written_as_json_and_as_text_and_linked(tmp_path: Path) -> None:
    output = tmp_path / "guid" / "xray-centering" / "Dials5AResults.json"
    log = output.with_name("log.txt")
    report(images(COUNTS), output=str(output), log=str(log), results_symlink="xray-centring-latest")
    written = json.loads(output.read_text())
    assert written["status"] == "ok"
    assert {"centre_x", "centre_y", "centre_x_box", "centre_y_box"} <= written.keys()
    assert "centre_x_box" in log.read_text()
    link = output.parent.parent / "xray-centring-latest"
    assert json.loads((link / output.name).read_text()) == written


def test_a_grid_without_diffraction_says_so() -> None:
    result = only_result(report(images([0] * 10)))
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
    return report(payloads, grid, experiment_type=experiment_type)


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
        (image(1, 1), GRID | {"dx_mm": "nan"}, "gridinfo.dx_mm 'nan'"),
        (image(1, 1), GRID | {"micronsPerPixelX": "inf"}, "gridinfo.micronsPerPixelX 'inf'"),
        (image(1, 1), GRID | {"steps_x": 10**6, "steps_y": 10**6}, "1000000 x 1000000"),
        (image(1, 1), {}, "no grid"),
        (image(1, 2**60), GRID, "n_spots_total"),
        ([1, 2], GRID, "payload"),
    ],
)
def test_bad_input_is_rejected_with_what_is_wrong(payload: Any, grid: Any, complaint: str) -> None:
    outcome = centre([payload], grid).outcome
    assert outcome.result == "reject"
    assert complaint in outcome.reason


def test_a_bad_message_does_not_spoil_its_batch() -> None:
    done = centre([{"file-number": 1}, *images(COUNTS)])
    assert [outcome.result for outcome in done.outcomes] == ["reject"] + ["done"] * 10
    (checkpoint,) = done.checkpoints
    assert only_result(centre([checkpoint.payload]))["best_image"] == 6


def test_a_scan_of_a_single_image_needs_no_centre() -> None:
    done = centre([image(1, 5)], grid={}, comment="Diffraction grid scan of 1 by 1 images, Top left [1,2]")
    assert done.outcome.result == "done"
    assert done.everything == []


def piece(counts: Sequence[int], last_arrival: float, **more: Any) -> dict[str, Any]:
    """A checkpoint that knows the first images of a grid."""
    status = {"images": list(range(len(counts))), "counts": list(counts), "last-arrival": last_arrival}
    return {"xray-centring-status": status | more}


def test_an_image_without_a_grid_leaves_the_others_together() -> None:
    stray = image(1, 1) | {"parameters": {"gridinfo": None, "dcid": 2}}
    done = centre([*images(COUNTS)[:5], stray, *images(COUNTS)[5:9]])
    assert [outcome.result for outcome in done.outcomes] == ["done"] * 5 + ["reject"] + ["done"] * 4
    (checkpoint,) = done.checkpoints
    assert len(checkpoint.payload["xray-centring-status"]["images"]) == 9


def test_what_a_message_says_of_its_grid_stays_with_what_is_known_of_it() -> None:
    payloads = [payload | {"parameters": {"dcid": 5}} for payload in images(COUNTS)[:4]]
    (checkpoint,) = centre(payloads).checkpoints
    assert checkpoint.payload["parameters"] == {"dcid": 5}


def test_a_grid_whose_file_cannot_be_written_is_tried_again_as_one_message(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("a file where the directory should be")
    output = tmp_path / "full" / "centre.json"
    (checkpoint,) = centre(images(COUNTS), output=str(output)).everything
    again = centre([checkpoint.payload], output=str(output))
    assert (again.outcome.result, again.everything) == ("retry", [])
    assert str(output) in again.outcome.reason
    (tmp_path / "full").unlink()
    assert only_result(centre([checkpoint.payload], output=str(output)))["best_image"] == 6
    assert json.loads(output.read_text())["best_image"] == 6


def test_a_grid_that_cannot_be_reported_does_not_spoil_its_batch() -> None:
    bad = piece(COUNTS, time.time()) | {"parameters": {"dcid": 2, "output": "{unfilled}"}}
    done = centre([bad, image(1, 1) | {"parameters": {"dcid": 3}}, piece(COUNTS, time.time())])
    assert [outcome.result for outcome in done.outcomes] == ["reject", "done", "done"]
    assert only_result(done)["best_image"] == 6
    assert len(done.checkpoints) == 1


def test_a_text_that_cannot_be_written_holds_nothing_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "centre.json"
    for log in (str(tmp_path), "{ispyb_results_directory}/centre.txt"):
        with caplog.at_level(logging.WARNING):
            assert only_result(report(images(COUNTS), output=str(output), log=log))["best_image"] == 6
        assert "cannot write the results as text" in caplog.text
        caplog.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["centre.json"]


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_link_never_takes_the_place_of_something_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_directory: bool
) -> None:
    taken = tmp_path / "latest"
    taken.mkdir() if is_directory else taken.write_text("precious")
    output = tmp_path / "results" / "centre.json"
    with caplog.at_level(logging.WARNING):
        only_result(report(images(COUNTS), output=str(output), results_symlink="latest"))
    assert str(taken) in caplog.text
    assert taken.is_dir() if is_directory else taken.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "results"}


def test_an_earlier_link_is_moved_on(tmp_path: Path) -> None:
    for name in ("first", "second"):
        report(images(COUNTS), output=str(tmp_path / name / "centre.json"), results_symlink="latest")
        assert (tmp_path / "latest").resolve() == tmp_path / name


def test_no_link_is_made_where_the_site_allows_no_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = tmp_path / "allowed"
    config = Config(storage={"parvis.allowed_directories": [str(allowed)]})
    parameters = {"dcid": 1, "output": str(allowed / "centre.json"), "results_symlink": "latest"}
    with caplog.at_level(logging.WARNING):
        done = run(
            XRayCentring,
            piece(COUNTS, 1000.0),
            node={"gridinfo": GRID},
            parameters=parameters,
            config=config,
        )
    assert only_result(done)["best_image"] == 6
    assert "parvis.allowed_directories" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["allowed"]


def test_a_complete_scan_whose_partner_never_came_gives_its_own_centre() -> None:
    for partners in ([], [2]):
        old = centre([piece(COUNTS, 1000.0)], experiment_type="Mesh3D", dcg_dcids=partners)
        assert only_result(old)["best_image"] == 6
        assert [sent.output for sent in old.everything] == ["success"]


def test_a_scan_waits_while_images_of_its_partner_come() -> None:
    partner = image(1, 5) | {"parameters": {"dcid": 2, "dcg_dcids": [1]}}
    done = centre([piece(COUNTS, 1000.0), partner], experiment_type="Mesh3D")
    assert [sent.output for sent in done.everything] == ["checkpoint", "checkpoint"]


def test_two_scans_put_back_after_a_long_time_still_find_each_other() -> None:
    pair = [
        piece(COUNTS, 1000.0) | {"parameters": {"dcid": dcid, "dcg_dcids": [15 - dcid]}} for dcid in (7, 8)
    ]
    (success,) = centre(pair, experiment_type="Mesh3D").sent("success")
    assert success["type"] == "3d"


def test_a_time_in_the_future_keeps_no_grid_for_ever() -> None:
    (checkpoint,) = centre([piece([1, 2], 1e15)]).checkpoints
    assert checkpoint.payload["xray-centring-status"]["last-arrival"] <= time.time()


def test_more_grids_than_fit_in_a_batch_pause_before_they_come_round_again() -> None:
    class Small(XRayCentring):
        batch_size = 3

    waiting = [piece([1, 2], time.time()) | {"parameters": {"dcid": dcid}} for dcid in range(3)]
    old = run(Small, *waiting, node={"gridinfo": GRID})
    assert [sent.delay for sent in old.checkpoints] == [Small.batch_wait] * 3
    fresh = image(3, 1) | {"parameters": {"dcid": 3}}
    new = run(Small, *waiting[:2], fresh, node={"gridinfo": GRID})
    assert [sent.delay for sent in new.checkpoints] == [0] * 3


def test_scans_too_large_for_three_dimensions_are_rejected() -> None:
    grid = GRID | {"steps_x": 1, "steps_y": 2500}
    pair = [
        piece([1] * 2500, 1000.0) | {"parameters": {"dcid": dcid, "dcg_dcids": [15 - dcid]}}
        for dcid in (7, 8)
    ]
    done = centre(pair, grid, experiment_type="Mesh3D")
    assert [outcome.result for outcome in done.outcomes] == ["reject", "reject"]
    assert "6250000 voxels" in done.outcome.reason


def missing(number: int) -> dict[str, Any]:
    """What per-image analysis says of an image that is not there any more."""
    return {
        "file-number": number,
        "file-seen-at": 1.0,
        "file": "s3://s/b/k",
        "reason": "there is no such object",
    }


def test_a_grid_of_which_images_are_missing_is_given_up_when_no_other_is_to_come() -> None:
    first = centre([*images(COUNTS)[:4], missing(5), missing(5), missing(11)])
    assert first.sent("abort") == []
    (checkpoint,) = first.checkpoints
    assert centre([checkpoint.payload, *images(COUNTS)[5:9]]).sent("abort") == []
    done = centre([checkpoint.payload, *images(COUNTS)[5:]])
    assert done.sent("abort") == [{}]
    assert (done.sent("success"), done.checkpoints) == ([], [])


def test_an_image_that_was_missing_and_came_all_the_same_counts() -> None:
    lost = centre([missing(5), missing(7)]).checkpoints[0].payload
    known = centre([*images(COUNTS)[:6], missing(5)]).checkpoints[0].payload
    assert known["xray-centring-status"]["missing"] == []
    assert only_result(report([lost, known, *images(COUNTS)[6:]]))["best_image"] == 6


def test_a_grid_with_missing_images_is_given_up_at_once(broker: BrokerThread) -> None:
    with connected(broker.port) as transport, hosted(broker.port, XRayCentring):
        aborted = Listener(transport, "results")
        for payload in [*images(COUNTS)[:9], missing(10)]:
            node = {"gridinfo": GRID, "parameters": {"dcid": 1}}
            transport.send(recipe_message("reduce.xray_centering", payload, {"abort": 2}, **node))
        aborted.wait_for(1)  # a batch that is not closed waits three times as long
