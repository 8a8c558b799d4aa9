"""The static check of what a recipe gives its services: parameters, placeholders and payloads."""

from __future__ import annotations

import json

import pytest

from recipe_mistakes import (
    CENTRING,
    GRIDSCAN,
    ISPYB,
    LINES,
    PIA,
    WATCHER,
    Change,
    change_all,
    drop,
    find_mistake,
    problems_of,
    put,
)

MISTAKES = [
    # parameters
    (
        put("1", "parameters", "timeout", value="lots"),
        "error",
        WATCHER,
        'parameter "timeout": is "lots", must be a number',
    ),
    (
        put("1", "parameters", "burst-limit", value=0),
        "error",
        WATCHER,
        'parameter "burst-limit": is 0, must be greater than or equal to 1',
    ),
    (
        put("1", "parameters", "burst-limit", value=2.5),
        "error",
        WATCHER,
        'parameter "burst-limit": is 2.5, must be a whole number',
    ),
    (
        put("6", "parameters", "include", value="file"),
        "error",
        LINES,
        'parameter "include": is "file", must be a list',
    ),
    (
        put("1", "parameters", "timout", value=5),
        "warning",
        WATCHER,
        'parameter "timout": FileWatcher has no such parameter; did you mean "timeout"?',
    ),
    (drop("3", "parameters", "dcid"), "error", ISPYB, 'parameter "dcid": is missing; ISPyBPIA needs it'),
    (drop("6", "parameters"), "error", LINES, 'parameter "output_filename": is missing; JSONLines needs it'),
    (
        drop("1", "parameters", "pattern-end"),
        "error",
        WATCHER,
        '"parameters": pattern needs pattern-start and pattern-end',
    ),
    (
        drop("1", "parameters", "pattern"),
        "error",
        WATCHER,
        '"parameters": one of pattern, list and hdf5 must say what to watch',
    ),
    (put("1", "parameters", value=[]), "error", WATCHER, '"parameters": must be a JSON object, it is a list'),
    # parameters that could be right by type, and are not
    (
        put("1", "parameters", "pattern", value="/data/grid.cbf"),
        "error",
        WATCHER,
        "parameter \"pattern\": pattern '/data/grid.cbf' must hold exactly one number, such as %05d",
    ),
    (
        put("1", "parameters", "pattern", value="/data/%04d/%05d.cbf"),
        "error",
        WATCHER,
        "parameter \"pattern\": pattern '/data/%04d/%05d.cbf' must hold exactly one number, such as %05d",
    ),
    (
        change_all(
            put("1", "parameters", "pattern", value="/data/grid.cbf"),
            put("1", "parameters", "pattern-start", value=9),
            put("1", "parameters", "pattern-end", value=3),
        ),
        "error",
        WATCHER,
        'parameter "pattern-end": pattern-start 9 to pattern-end 3 is no range of images',
    ),
    (
        put("6", "parameters", "output_filename", value="results.jsonl"),
        "error",
        LINES,
        "parameter \"output_filename\": 'results.jsonl' is not an absolute path",
    ),
    (
        put("1", "parameters", "timeout", value=True),
        "error",
        WATCHER,
        'parameter "timeout": is true, must be a number',
    ),
    (
        put("5", "gridinfo", value="{ispyb_dc_info[gridinfo]}"),
        "error",
        CENTRING,
        '"gridinfo": would be text, must be an object; write {$REPLACE:name}',
    ),
    (
        drop("5", "gridinfo"),
        "warning",
        CENTRING,
        '"gridinfo": is missing; XRayCentring reads it from the node, beside the parameters',
    ),
    (
        put("5", "parameters", "output", value="/data/{ispyb_dcid/centre.json"),
        "warning",
        CENTRING,
        'parameter "output": nothing is filled in there: "/data/{ispyb_dcid/centre.json" has a {',
    ),
    (
        put("start", value=[[1, {"comment": "} of {guid}"}]]),
        "warning",
        "",
        'start of node 1: "comment": nothing is filled in there: "} of {guid}" has a } without',
    ),
    (
        put("5", "parameters", "output", value="/data/{ispyb dcid}/centre.json"),
        "warning",
        CENTRING,
        'parameter "output": nothing is filled in there: "{ispyb dcid}" has a space in it',
    ),
    # placeholders
    (
        put("3", "parameters", "dcid", value="{ispyb_dcidd}"),
        "error",
        ISPYB,
        'parameter "dcid": {ispyb_dcidd}: nobody fills in "ispyb_dcidd"; did you mean "ispyb_dcid"?',
    ),
    (
        put("5", "parameters", "sample_id", value="{$REPLACE:wavelength}"),
        "error",
        CENTRING,
        'parameter "sample_id": {$REPLACE:wavelength}: nobody fills in "wavelength"; '
        "if it is given by hand (go -s), name it to the check with --given",
    ),
    (
        put("3", "parameters", "dcid", value="{ispyb_dcid.__class__}"),
        "error",
        ISPYB,
        'parameter "dcid": {ispyb_dcid.__class__}: a recipe cannot reach the attributes of a parameter',
    ),
    (
        put("3", "parameters", "dcid", value="{ispyb_dcid:>200000000}"),
        "error",
        ISPYB,
        'parameter "dcid": {ispyb_dcid:>200000000}: the format ">200000000" is not known',
    ),
    (
        put("6", "parameters", "output_filename", value="/tmp/{$REPLACE:ispyb_results_directory}"),
        "error",
        LINES,
        'parameter "output_filename": {$REPLACE:ispyb_results_directory}: stands for an object, '
        "so it must be the whole of a value",
    ),
    (
        put("start", value=[[1, {"directory": "{ispyb_visti}"}]]),
        "error",
        "",
        'start of node 1: "directory": {ispyb_visti}: nobody fills in "ispyb_visti"',
    ),
    # payloads
    (
        put("1", "output", value={"finally": 2}),
        "error",
        WATCHER,
        f'output "finally": does not fit {PIA}: it needs "file"; what comes holds '
        '"files-expected", "files-seen", "images-expected", "images-seen", "success"',
    ),
    (
        put("1", "output", value={"every": [2, 5]}),
        "error",
        WATCHER,
        f'output "every": does not fit {CENTRING}: file-number is needed, and n_spots_total, or the reason '
        "why the image is missing",
    ),
    (put("start", value=[[1, {}], [2, {}]]), "error", "", 'start of node 2: PerImageAnalysis needs "file"'),
    (
        put("start", value=[[1, {"filewatcher-status": {"seen-files": -1, "start-time": 0}}]]),
        "error",
        "",
        'start of node 1: "filewatcher-status[seen-files]": is -1, must be greater than or equal to 0',
    ),
    (
        put("start", value=[[1, "go"]]),
        "error",
        "",
        'start of node 1: is "go", FileWatcher takes an object; write {} for an empty one',
    ),
]


@pytest.mark.parametrize(
    ("change", "severity", "node", "text"), MISTAKES, ids=[mistake[3][:50] for mistake in MISTAKES]
)
def test_a_mistake_is_found(change: Change, severity: str, node: str, text: str) -> None:
    find_mistake(change, severity, node, text)


def test_types_of_what_holds_placeholders_are_not_checked() -> None:
    recipe = json.loads(GRIDSCAN)
    recipe["1"]["parameters"] |= {
        "timeout": "{ispyb_dcid}",
        "list": ["{guid}"],
        "burst-wait": "{$REPLACE:guid}",
    }
    assert problems_of(json.dumps(recipe)) == []
