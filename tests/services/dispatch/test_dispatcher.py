"""The dispatcher: from a request to a started recipe, or to a clear refusal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from parvis.config import Config
from parvis.service.handling import handle
from parvis.service.testing import Run, run
from parvis.transport.base import Message
from parvis_services.dispatch.dispatcher import Dispatcher
from parvis_services.ispyb.collections import set_run_status
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.directories import Site
from parvis_services.ispyb.fields import message_fields
from sample_ispyb import load_sample

GRID = 6017405


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    sample = load_sample(f"sqlite:///{tmp_path_factory.mktemp('ispyb') / 'sample.sqlite'}")
    yield sample
    sample.close()


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Config:
    return Config(
        ispyb_url=f"sqlite:///{database.path}",
        storage={
            "zocalo.recipe_directory": str(tmp_path / "recipes"),
            "zocalo.dispatcher.logbook_location": str(tmp_path / "logbook"),
        },
    )


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A site's recipes."""
    directory = tmp_path / "recipes"
    directory.mkdir()
    write_recipe(
        directory / "mine.json", "filewatcher", pattern="{ispyb_image_directory}", dcid="{ispyb_dcid}"
    )
    write_recipe(directory / "other.json", "jsonlines", wavelength="{$REPLACE:ispyb_dc_info[wavelength]}")
    return directory


def write_recipe(file: Path, queue: str, **parameters: Any) -> None:
    file.write_text(json.dumps({"1": {"queue": queue, "parameters": parameters}, "start": [[1, []]]}))


def dispatch(
    config: Config, *recipes: str, message: Mapping[str, Any] | None = None, **parameters: Any
) -> Run:
    request = {"recipes": list(recipes), "parameters": parameters, **(message or {})}
    return run(Dispatcher, request, config=config)


def started(done: Run) -> dict[int, dict[str, Any]]:
    """Parameters of the nodes that were started, by number."""
    assert done.outcome.result == "done", done.outcome
    recipe = [orjson.loads(send.body) for send in done.outcome.sends]
    return {
        body["recipe-pointer"]: body["recipe"][str(body["recipe-pointer"])]["parameters"] for body in recipe
    }


def on_behalf_of(done: Run) -> str | None:
    assert done.outcome.result == "done", done.outcome
    return orjson.loads(done.outcome.sends[0].body)["environment"].get("parvis_user")


def test_the_recipe_says_on_whose_behalf_it_runs(config: Config, recipes: Path) -> None:
    request = {"recipes": ["mine"], "parameters": {"ispyb_dcid": GRID}}
    visit = message_fields(Database(config.ispyb_url or ""), {"ispyb_dcid": GRID}, site=Site())["ispyb_visit"]
    started_by = {"zocalo.go.user": "gda2"}
    assert on_behalf_of(run(Dispatcher, request, config=config, header=started_by)) == f"gda2@{visit}"
    assert on_behalf_of(run(Dispatcher, request, config=config)) == visit
    bare = Config(storage={**config.storage, "parvis.ispyb_url": None})
    request["parameters"] = {"ispyb_image_directory": "/data", "ispyb_dcid": 1}
    assert on_behalf_of(run(Dispatcher, request, config=bare, header=started_by)) == "gda2"
    assert on_behalf_of(run(Dispatcher, request, config=bare)) is None


def test_the_priority_of_the_request_is_that_of_the_messages(config: Config, recipes: Path) -> None:
    done = dispatch(config, "mine", ispyb_dcid=GRID, parvis_priority="8")
    assert [sent.environment["priority"] for sent in done.everything] == [8]
    assert [send.priority for send in done.outcome.sends] == [8]
    wrong = dispatch(config, "mine", ispyb_dcid=GRID, parvis_priority="high")
    expected = 'parvis_priority: priority must be a whole number from 0 to 9, it is "high"'
    assert wrong.outcome.reason.startswith(expected)


def test_a_recipe_is_filled_with_what_the_database_says(config: Config, recipes: Path) -> None:
    done = dispatch(config, "mine", ispyb_dcid=GRID)
    assert started(done) == {
        1: {
            "pattern": "/dls/i03/data/2021/cm28170-1/xraycentring/screening/TestLysozyme/Lys_6/",
            "dcid": str(GRID),
        }
    }
    (send,) = done.outcome.sends
    assert send.destination == "filewatcher"
    UUID(orjson.loads(send.body)["environment"]["ID"])


def test_several_recipes_run_as_one(config: Config, recipes: Path) -> None:
    done = dispatch(config, "mine", "other", ispyb_dcid=GRID)
    assert started(done)[2] == {"wavelength": pytest.approx(0.976254)}


def test_a_custom_recipe_is_run(config: Config, recipes: Path) -> None:
    custom = {"1": {"queue": "q", "parameters": {"own": "{mine}"}}, "start": [[1, []]]}
    done = dispatch(config, message={"custom_recipe": custom}, mine="hello")
    assert started(done) == {1: {"own": "hello"}}


def test_recipes_that_come_with_parvis_are_found_beside_those_of_the_site(
    config: Config, recipes: Path
) -> None:
    (parameters,) = started(dispatch(config, "per-image-analysis-gridscan", ispyb_dcid=GRID)).values()
    assert parameters["pattern-end"] == "480"


def test_the_guid_of_the_request_is_the_recipe_id_and_names_the_directories(
    config: Config, recipes: Path, tmp_path: Path
) -> None:
    guid = str(uuid4())
    write_recipe(recipes / "dirs.json", "q", directory="{ispyb_results_directory}")
    done = dispatch(config, "dirs", ispyb_dcid=GRID, guid=guid)
    assert started(done)[1]["directory"].endswith(f"/{guid}")
    assert orjson.loads(done.outcome.sends[0].body)["environment"]["ID"] == guid
    entry = next((tmp_path / "logbook").rglob(guid[2:]))
    assert entry.parent.name == guid[:2]
    sections = (
        "Incoming message header:",
        "Incoming message body:",
        "Parsed message body:",
        "Recipe object:",
    )
    assert [entry.read_text().count(section) for section in sections] == [1, 1, 1, 1]


def test_site_and_message_say_what_recipes_are_filled_with(config: Config, recipes: Path) -> None:
    write_recipe(recipes / "gda.json", "q", host="{gda_host}", beam="{beam}")
    config.storage["parvis.recipe_parameters"] = {"beam": "site", "gda_host": "i03-control"}
    assert started(dispatch(config, "gda"))[1] == {"host": "i03-control", "beam": "site"}
    assert started(dispatch(config, "gda", beam="message"))[1]["beam"] == "message"


@pytest.mark.parametrize(
    ("names", "parameters", "complaint"),
    [
        (["mine"], {"ispyb_dcid": 999999999}, "999999999"),
        (["mine"], {"ispyb_dcid": "many"}, "ispyb_dcid"),
        (["../../etc/passwd"], {}, "../../etc/passwd"),
        (["/etc/passwd"], {}, "/etc/passwd"),
        ([".hidden"], {}, ".hidden"),
        (["nowhere"], {}, "nowhere"),
        ([], {}, "no recipe"),
        (["mine"], {"guid": "../../../tmp/x"}, "guid"),
        (["mine"], {"ispyb_process": 123456789}, "123456789"),
        (["mine"], {"parvis_watch": "processing_recipe"}, "parvis_watch"),
    ],
)
def test_a_request_that_cannot_be_met_is_rejected_with_what_is_wrong(
    config: Config, recipes: Path, names: list[str], parameters: dict[str, Any], complaint: str
) -> None:
    done = dispatch(config, *names, **parameters)
    assert done.outcome.result == "reject"
    assert complaint in done.outcome.reason


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{ispyb_dcid.__class__}", "__class__"),
        ("{ispyb_dc_info[nothing]}", "nothing"),
        ("{ispyb_dcid:>200000000}", "200000000"),
    ],
)
def test_a_recipe_with_a_bad_placeholder_is_rejected(
    config: Config, recipes: Path, text: str, complaint: str
) -> None:
    write_recipe(recipes / "bad.json", "q", text=text)
    done = dispatch(config, "bad", ispyb_dcid=GRID)
    assert done.outcome.result == "reject"
    assert complaint in done.outcome.reason


@pytest.mark.parametrize("payload", [[1, 2], "text", {"parameters": [1]}, {"recipes": "mine"}])
def test_a_message_that_is_no_request_is_rejected(config: Config, recipes: Path, payload: Any) -> None:
    assert run(Dispatcher, payload, config=config).outcome.result == "reject"


def test_a_recipe_that_is_no_json_is_rejected(config: Config, recipes: Path) -> None:
    (recipes / "broken.json").write_text('{"1": {')
    done = dispatch(config, "broken")
    assert done.outcome.result == "reject"
    assert "line 1" in done.outcome.reason


def test_a_database_that_is_away_is_tried_again(config: Config, recipes: Path, tmp_path: Path) -> None:
    away = Config(ispyb_url=f"sqlite:///{tmp_path / 'none' / 'there.sqlite'}", storage=config.storage)
    assert dispatch(away, "mine", ispyb_dcid=GRID).outcome.result == "retry"


@pytest.fixture
def running_collection(database: Database) -> Iterator[int]:
    """A data collection that has not ended."""
    table = database.table("DataCollection")
    with database.writing() as connection:
        connection.execute(table.update().where(table.c.dataCollectionId == GRID).values(runStatus=None))
    yield GRID
    set_run_status(database, GRID)


def test_a_recipe_waits_for_the_end_of_its_data_collection(
    config: Config, recipes: Path, database: Database, running_collection: int
) -> None:
    parameters: dict[str, Any] = {"ispyb_dcid": running_collection, "ispyb_wait_for_runstatus": 1}
    (checkpoint,) = dispatch(config, "mine", **parameters).checkpoints
    assert checkpoint.delay == 2
    again = checkpoint.payload
    assert again["recipes"] == ["mine"]
    assert again["parameters"]["dispatcher_expiration"] > time.time() + 100
    set_run_status(database, running_collection)
    done = run(Dispatcher, again, config=config)
    assert started(done)[1]["dcid"] == str(running_collection)
    assert orjson.loads(done.outcome.sends[0].body)["environment"]["ID"] == again["parameters"]["guid"]


def test_a_request_comes_back_to_the_queue_it_came_by(
    config: Config, recipes: Path, running_collection: int
) -> None:
    parameters = {"ispyb_dcid": running_collection, "ispyb_wait_for_runstatus": 1}
    body = orjson.dumps({"recipes": ["mine"], "parameters": parameters})
    dispatcher = Dispatcher(config)
    dispatcher.start()
    outcome = handle(dispatcher, Message("queue.of.a.trial", body, {}, message_id="1", subscription=1))
    dispatcher.stop()
    (send,) = outcome.sends
    assert (send.destination, send.delay) == ("queue.of.a.trial", 2)


def test_a_data_collection_that_does_not_end_in_time_is_given_up(
    config: Config, recipes: Path, running_collection: int
) -> None:
    late: dict[str, Any] = {
        "ispyb_dcid": running_collection,
        "ispyb_wait_for_runstatus": "1",
        "dispatcher_expiration": 1000.0,
    }
    done = dispatch(config, "mine", **late)
    assert done.outcome.result == "reject"
    assert "not ready in time" in done.outcome.reason
    told = dispatch(config, "mine", **late, dispatcher_error_queue="complaints")
    (send,) = told.outcome.sends
    assert send.destination == "complaints"
    assert orjson.loads(send.body)["recipes"] == ["mine"]


def test_who_waits_for_the_results_hears_of_a_refusal(config: Config, recipes: Path) -> None:
    topic = f"transient.go.{uuid4()}"
    done = dispatch(config, "nowhere", parvis_watch=topic)
    (send,) = done.outcome.sends
    assert (send.destination, send.kind) == (topic, "topic")
    assert "nowhere" in orjson.loads(send.body)["parvis-error"]
