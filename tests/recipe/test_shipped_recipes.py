"""The shipped recipes, filled in with what the metadata database says of a data collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from made_ispyb import grid, group, insert, rotation, sample, session
from parvis.config import shipped_recipes
from parvis.recipe.fit import misfits
from parvis.recipe.graph import Recipe
from parvis.recipe.template import fill_recipe, placeholders
from parvis.service.registry import contracts
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.fields import message_fields
from parvis_services.ispyb.schema import CORE_TABLES, create_schema


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('ispyb') / 'ispyb.sqlite'}")
    create_schema(database, tables=CORE_TABLES)
    session(database)  # samples belong to its proposal
    return database


def filled(name: str, database: Database, dcid: int) -> Recipe:
    parameters: dict[str, Any] = {"ispyb_dcid": dcid, "gda_host": "i03-control", "gda_port": "9876"}
    recipe = Recipe.from_json((shipped_recipes() / f"{name}.json").read_bytes())
    return fill_recipe(recipe, parameters | message_fields(database, parameters))


def misfits_of(recipe: Recipe) -> list[str]:
    """Whatever a service would refuse of a filled recipe."""
    found: list[str] = []
    for node in recipe.nodes.values():
        contract = contracts()[node.queue or ""]
        assert isinstance(node.parameters, dict)
        keys = {key: node.extra[key] for key in contract.node_keys if key in node.extra}
        found += [
            f"{node.place}: {misfit}" for misfit in misfits(contract.parameters, node.parameters | keys)
        ]
    return found


@pytest.mark.parametrize("has_sample", [True, False])
@pytest.mark.parametrize("name", sorted(path.stem for path in shipped_recipes().glob("*.json")))
def test_a_filled_recipe_is_what_the_services_expect(name: str, has_sample: bool, database: Database) -> None:
    in_group = group(database, sample=sample(database) if has_sample else None)
    dcid = grid(database, in_group) if "gridscan" in name else rotation(database, in_group)
    recipe = filled(name, database, dcid)
    assert placeholders(recipe.to_dict()) == set()
    assert misfits_of(recipe) == []


def test_the_grid_scan_recipe_says_what_the_database_says(database: Database) -> None:
    dcid = grid(database, group(database, experiment="Mesh3D"), steps=(5, 4), comments="a grid")
    nodes = filled("per-image-analysis-gridscan", database, dcid).nodes
    watched: Any = nodes[1].parameters
    assert Path(watched["pattern"]).name == "grid_1_%04d.cbf"
    assert (watched["pattern-start"], watched["pattern-end"]) == ("1", "20")
    centring: Any = nodes[5].parameters
    assert centring["dcid"] == str(dcid)
    assert centring["experiment_type"] == "Mesh3D"
    assert centring["comment"] == "a grid"
    assert centring["output"].endswith("/xray-centering/Dials5AResults.json")
    assert (nodes[5].extra["gridinfo"]["steps_x"], nodes[5].extra["gridinfo"]["steps_y"]) == (5, 4)
    told: Any = nodes[4].parameters
    assert told == {"dcid": str(dcid), "host": "i03-control", "port": "9876"}


def test_a_pin_with_several_samples_reaches_the_centring(database: Database) -> None:
    container = insert(database, "Container", code="puck", priorityPipelineId=None)
    first = sample(database, containerId=container, location="3", subLocation=1, loopType="multipin_6x50+157")
    second = sample(
        database, containerId=container, location="3", subLocation=2, loopType="multipin_6x50+157"
    )
    dcid = grid(database, group(database, sample=first), BLSAMPLEID=first)
    recipe = filled("per-image-analysis-gridscan", database, dcid)
    centring: Any = recipe.nodes[5].parameters
    assert centring["sample_id"] == first
    assert centring["loop_type"] == "multipin_6x50+157"
    assert centring["msp_sample_ids"] == {"1": first, "2": second}
    assert misfits_of(recipe) == []
