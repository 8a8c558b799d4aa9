"""What belongs to a data collection: its group, its sample, its directory, grids that make one volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event, update

import made_ispyb as made
from parvis_services.ispyb.collections import create_detector
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.fields import collection_fields
from parvis_services.ispyb.schema import CORE_TABLES


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def collection_with_relations(database: Database, count: int) -> int:
    """A rotation with `count` related ones in each of the ways there are."""
    session = made.session(database)
    mine = made.sample(database)
    group = made.group(database, of=session, sample=mine)
    bundle = made.insert(database, "BLSampleGroup", name="series")
    made.insert(database, "BLSampleGroup_has_BLSample", blSampleGroupId=bundle, blSampleId=mine)
    dcid = made.rotation(database, group, wavelength=1.0)
    for number in range(2, count + 2):
        made.rotation(database, group, number=number)
    protein = made.protein(database, "lysozyme")
    for _ in range(count // 10):
        other = made.sample(database, protein=protein)
        made.insert(database, "BLSampleGroup_has_BLSample", blSampleGroupId=bundle, blSampleId=other)
        made.rotation(database, made.group(database, of=session, sample=other))
        energies = {"peakEnergy": 12660.0, "inflectionEnergy": 12658.0}
        made.insert(database, "EnergyScan", sessionId=session, blSampleId=mine, element="Se", **energies)
    return dcid


def test_number_of_queries_does_not_depend_on_what_is_related(scratch: Database) -> None:
    few, many = collection_with_relations(scratch, 3), collection_with_relations(scratch, 300)
    scratch.tables(*CORE_TABLES)
    with statements(scratch) as for_few:
        collection_fields(scratch, few)
    with statements(scratch) as for_many:
        fields = collection_fields(scratch, many)
    assert len(fields["ispyb_dcg_dcids"]) == 300
    assert len(fields["ispyb_related_sweeps"]) == 301
    assert len(for_many) == len(for_few) == 8


def test_grids_of_one_volume_are_partners(scratch: Database) -> None:
    group = made.group(scratch, experiment="Mesh3D")
    first, second = made.grid(scratch, group), made.grid(scratch, group, steps=(4, 5))
    fields = collection_fields(scratch, first)
    assert fields["ispyb_dcg_dcids"] == [second]
    assert fields["ispyb_dcg_experiment_type"] == "Mesh3D"
    assert fields["ispyb_dc_class"]["grid"] is True
    assert fields["ispyb_dc_info"]["gridinfo"]["steps_y"] == 3
    assert collection_fields(scratch, second)["ispyb_dc_info"]["gridinfo"]["steps_y"] == 5


def test_a_grid_without_data_collection_is_the_groups(scratch: Database) -> None:
    group = made.group(scratch, experiment="Mesh")
    dcid = made.rotation(scratch, group)
    made.insert(scratch, "GridInfo", dataCollectionGroupId=group, steps_x=7, steps_y=2)
    assert collection_fields(scratch, dcid)["ispyb_dc_info"]["gridinfo"]["steps_x"] == 7


def test_a_grid_of_another_data_collection_is_not_mine(scratch: Database) -> None:
    group = made.group(scratch)
    grid, rotation = made.grid(scratch, group), made.rotation(scratch, group)
    with scratch.writing() as connection:
        table = scratch.table("GridInfo")
        connection.execute(
            update(table).where(table.c.dataCollectionId == grid).values(dataCollectionGroupId=group)
        )
    fields = collection_fields(scratch, rotation)
    assert fields["ispyb_dc_info"]["gridinfo"] == {}
    assert fields["ispyb_dc_class"]["rotation"] is True


def test_rotations_of_a_group_are_processed_together(scratch: Database) -> None:
    group = made.group(scratch)
    directory = "/dls/i04/data/2026/cm40000-1/series/"
    first = made.rotation(scratch, group, directory=directory)
    second = made.rotation(scratch, group, directory=directory, number=2)
    grid = made.grid(scratch, group)
    fields = collection_fields(scratch, first)
    assert fields["ispyb_images"] == f"{directory}thau_2_0001.cbf:1:100"
    assert fields["ispyb_related_sweeps"] == [(first, 1, 100), (second, 1, 100), (grid, 1, 12)]
    assert fields["ispyb_related_images"][:2] == [
        (first, f"{directory}thau_1_0001.cbf"),
        (second, f"{directory}thau_2_0001.cbf"),
    ]
    assert collection_fields(scratch, grid)["ispyb_images"] == ""


def test_collections_in_unrelated_directories_are_processed_alone(scratch: Database) -> None:
    group = made.group(scratch)
    first = made.rotation(scratch, group, directory="/dls/mx/data/cm40001/cm40001-1/well_1/")
    made.rotation(scratch, group, directory="/dls/mx/data/cm40001/cm40001-1/well_1/", number=2)
    assert collection_fields(scratch, first)["ispyb_images"] == ""


def test_collections_of_one_directory_and_of_one_sample(scratch: Database) -> None:
    directory = "/dls/i04/data/2026/cm40002-1/crystal/"
    first = made.rotation(scratch, made.group(scratch), directory=directory)
    second = made.rotation(scratch, made.group(scratch), directory=directory, number=2)
    assert collection_fields(scratch, first)["ispyb_related_dcids"] == [{"dcids": [second]}]
    sample = made.sample(scratch)
    mine = made.rotation(scratch, made.group(scratch, sample=sample), directory=directory)
    other = made.rotation(scratch, made.group(scratch, sample=sample))
    assert collection_fields(scratch, mine)["ispyb_related_dcids"] == [
        {"dcids": [mine, other], "sample_id": sample, "name": "thau8"}
    ]


def test_samples_of_a_multi_pin(scratch: Database) -> None:
    container = made.insert(scratch, "Container", code="puck", priorityPipelineId=None)
    place = {"containerId": container, "location": "5", "loopType": "multipin_3x50+15"}
    pins = [made.sample(scratch, subLocation=number, **place) for number in (1, 2, 3)]
    made.sample(scratch, containerId=container, location="6", subLocation=1)
    dcid = made.grid(scratch, made.group(scratch, sample=pins[0]))
    fields = collection_fields(scratch, dcid)
    assert fields["ispyb_msp_sample_ids"] == {"1": pins[0], "2": pins[1], "3": pins[2]}
    assert fields["ispyb_pin_info"] == {**place, "subLocation": 1}


def test_drops_of_a_plate_are_no_multi_pin(scratch: Database) -> None:
    container = made.insert(scratch, "Container", code="plate", priorityPipelineId=None)
    drops = [
        made.sample(scratch, containerId=container, location="5", subLocation=number) for number in (1, 2)
    ]
    dcid = made.grid(scratch, made.group(scratch, sample=drops[0]))
    assert collection_fields(scratch, dcid)["ispyb_msp_sample_ids"] == {}


def test_crystal_pipeline_and_chemistry_of_the_sample(scratch: Database) -> None:
    category = made.insert(scratch, "ProcessingPipelineCategory", name="processing")
    pipeline = made.insert(
        scratch, "ProcessingPipeline", name="autoPROC", discipline="MX", processingPipelineCategoryId=category
    )
    container = made.insert(scratch, "Container", code="puck", priorityPipelineId=pipeline)
    cell = {"cell_a": 68, "cell_b": 84, "cell_c": 89, "cell_alpha": 90, "cell_beta": 90, "cell_gamma": 90}
    sample = made.sample(
        scratch, containerId=container, SMILES="CCO", about_crystal={"spaceGroup": "P212121", **cell}
    )
    fields = collection_fields(scratch, made.rotation(scratch, made.group(scratch, sample=sample)))
    assert fields["ispyb_space_group"] == "P212121"
    assert fields["ispyb_unit_cell"] == (68.0, 84.0, 89.0, 90.0, 90.0, 90.0)
    assert fields["ispyb_preferred_processing"] == "autoPROC"
    assert fields["ispyb_smiles"] == "CCO"
    assert fields["ispyb_protein_info"]["acronym"] == "thau"


def test_an_incomplete_cell_is_none(scratch: Database) -> None:
    sample = made.sample(scratch, about_crystal={"spaceGroup": "P21", "cell_a": 68})
    fields = collection_fields(scratch, made.rotation(scratch, made.group(scratch, sample=sample)))
    assert (fields["ispyb_space_group"], fields["ispyb_unit_cell"]) == ("P21", None)


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        (12760.0, {"edge_position": "hrem"}),
        (12500.0, {"edge_position": "lrem"}),
        (12661.0, {"edge_position": "peak", "fp": -8.0, "fpp": 5.0}),
        (12656.0, {"edge_position": "infl", "fp": -10.0, "fpp": 2.5}),
    ],
)
def test_energy_scan_of_another_crystal_of_the_protein(
    scratch: Database, energy: float, expected: dict[str, object]
) -> None:
    session, protein = made.session(scratch), made.protein(scratch)
    mine, other = made.sample(scratch, protein=protein), made.sample(scratch, protein=protein)
    scan = made.insert(
        scratch, "EnergyScan", sessionId=session, blSampleId=other, element="Se", peakEnergy=12660.0,
        inflectionEnergy=12657.0, peakFPrime=-8.0, peakFDoublePrime=5.0, inflectionFPrime=-10.0,
        inflectionFDoublePrime=2.5,
    )  # fmt: skip
    group = made.group(scratch, of=session, sample=mine)
    dcid = made.rotation(scratch, group, wavelength=12398.42 / energy)
    found = collection_fields(scratch, dcid)["ispyb_energy_scan_info"]
    assert found == {"energyscanid": scan, "atom_type": "Se", **expected}


def test_scans_of_the_sample_itself_go_first(scratch: Database) -> None:
    session, protein = made.session(scratch), made.protein(scratch)
    mine, other = made.sample(scratch, protein=protein), made.sample(scratch, protein=protein)
    edges = {"element": "Zn", "sessionId": session}
    made.insert(scratch, "EnergyScan", blSampleId=other, peakEnergy=9660, inflectionEnergy=9655, **edges)
    made.insert(scratch, "EnergyScan", blSampleId=mine, **edges)
    own = made.insert(scratch, "EnergyScan", blSampleId=mine, peakEnergy=9000, inflectionEnergy=8995, **edges)
    dcid = made.rotation(scratch, made.group(scratch, of=session, sample=mine), wavelength=12398.42 / 9660)
    assert collection_fields(scratch, dcid)["ispyb_energy_scan_info"]["energyscanid"] == own


@pytest.mark.parametrize("wavelength", [None, 0.0])
def test_no_energy_scan_without_wavelength(scratch: Database, wavelength: float | None) -> None:
    sample = made.sample(scratch)
    dcid = made.rotation(scratch, made.group(scratch, sample=sample), wavelength=wavelength)
    assert collection_fields(scratch, dcid)["ispyb_energy_scan_info"] == {}


def test_shots_of_a_serial_collection(scratch: Database) -> None:
    dcid = made.rotation(scratch, made.group(scratch, experiment="Serial Fixed"))
    chain = made.insert(scratch, "EventChain", dataCollectionId=dcid, name="pump and probe")
    kinds = {
        name: made.insert(scratch, "EventType", name=f"{name}")
        for name in ("XrayDetection", "LaserExcitation")
    }
    made.insert(
        scratch, "Event", eventChainId=chain, eventTypeId=kinds["LaserExcitation"], offset=0, repetition=1
    )
    made.insert(
        scratch, "Event", eventChainId=chain, eventTypeId=kinds["XrayDetection"], offset=0.5, repetition=10
    )
    fields = collection_fields(scratch, dcid)
    assert fields["ispyb_dc_class"]["serial_fixed"] is True
    assert fields["ispyb_ssx_shots_per_image"] == 10
    assert [event["eventType"] for event in fields["ispyb_ssx_events"]] == [
        "LaserExcitation",
        "XrayDetection",
    ]
    assert fields["ispyb_ssx_events"][1]["offset"] == 0.5


@pytest.mark.parametrize(
    ("model", "kind", "name"),
    [
        ("EIGER2 X 16M", "eiger", "Eiger16M"),
        ("Eiger 2 XE CdTe 9M", "eiger", "Eiger9MCdTe"),
        ("PILATUS3 6M", "pilatus", "Pilatus6M"),
        ("Excalibur", "pilatus", None),
    ],
)
def test_detector(scratch: Database, model: str, kind: str, name: str | None) -> None:
    detector = create_detector(scratch, model, pixels=(4148, 4362), pixel_size=0.075)
    dcid = made.rotation(scratch, made.group(scratch), detectorId=detector)
    fields = collection_fields(scratch, dcid)
    assert (fields["ispyb_detectorclass"], fields["ispyb_detectorname"]) == (kind, name)
