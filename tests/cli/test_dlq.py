"""`parvis dlq` on all brokers: what it shows, and what becomes of dead letters."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from dead_letter_world import World
from parvis.transport.base import Send
from running import Listener, recipe_message
from sample_services import Multiplier
from waiting import wait_until


def letters(world: World, *words: str) -> list[Any]:
    """What `parvis dlq list` tells programs."""
    run = world.parvis("dlq", "list", "--json", *words)
    found = json.loads(run.stdout)
    assert run.exit_code == (1 if found["letters"] else 0), run.output
    return found["letters"]


def await_letters(world: World, count: int) -> list[Any]:
    wait_until(lambda: len(letters(world)) == count, 15, f"{count} dead letters")
    return letters(world)


def files(world: World) -> list[Path]:
    return sorted((world.directory / "dead").rglob("msg-*"))


def good(run: Result) -> Result:
    assert run.exit_code == 0, run.output
    return run


def fail_twice(world: World) -> None:
    """Two messages die: 13 is rejected, and at 15 an exception is raised."""
    for number in (13, 15):
        world.transport.send(recipe_message("multiply", {"number": number}, retries=0))


def test_from_nothing_to_results(every_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = every_world
    run = good(world.parvis("dlq", "list"))
    assert run.stdout == "No DLQ messages found\n"
    assert good(world.parvis("dlq", "purge", "--all", "--yes")).stderr == "There are no dead letters.\n"
    results = Listener(world.transport, "results")
    with world.hosting(Multiplier):
        fail_twice(world)
        first, second = await_letters(world, 2)
        assert {first["reason"], second["reason"]} == {
            "13 is no good",
            "ZeroDivisionError: 15 is a surprise",
        }
        run = world.parvis("dlq", "list")
        assert run.exit_code == 1
        assert f"DLQ for {world.whole('multiply')} contains 2 entries\n" in run.stdout
        assert run.stdout.endswith("Total of 2 DLQ messages found\n")

        shown = good(world.parvis("dlq", "show", "--reason", "/zero.*surprise/")).stdout
        places = [shown.index(what) for what in ("is a surprise", "Traceback", "1 multiply", '"number": 15')]
        assert places == sorted(places)

        run = good(world.parvis("dlq", "purge", "--reason", "13 IS NO", "--yes"))
        (file,) = files(world)
        dump = json.loads(file.read_text())
        assert dump["message"]["payload"] == {"number": 13}
        assert dump["header"]["parvis-reason"] == "13 is no good"
        assert [one["reason"] for one in letters(world)] == ["ZeroDivisionError: 15 is a surprise"]

        # What dies again says that it has been here before.
        good(world.parvis("dlq", "reinject", "--yes", "--remove", str(file)))
        assert files(world) == []
        again = {one["reason"]: one for one in await_letters(world, 2)}["13 is no good"]
        assert (again["reinjected"], again["tries"]) == (1, 1)
        assert again["identity"] in (first["identity"], second["identity"])

        # The other one is mended, and ends where it should.
        editor = world.directory / "an editor.py"
        editor.write_text(
            "import json, sys\nfile = sys.argv[-1]\ncontent = json.load(open(file))\n"
            "content['payload']['number'] = 16\njson.dump(content, open(file, 'w'))\n"
        )
        monkeypatch.setenv("EDITOR", f"{sys.executable} '{editor}' --wait")
        (surprise,) = letters(world, "--reason", "surprise")
        good(world.parvis("dlq", "edit", "--yes", surprise["identity"]))
        (message,) = results.wait_for(1)
        assert results.payloads() == [{"number": 32}]
        assert message.headers.get("parvis-attempts") is None
        (before,) = files(world)
        assert json.loads(before.read_text())["message"]["payload"] == {"number": 15}

        # From the queue, in one step.
        good(world.parvis("dlq", "reinject", "--all", "--yes"))
        wait_until(lambda: [one["reinjected"] for one in letters(world)] == [2], 15, "it to die once more")


def test_looking_takes_nothing(every_world: World) -> None:
    world = every_world
    with world.hosting(Multiplier):
        fail_twice(world)
        await_letters(world, 2)
    good(world.parvis("dlq", "export", "--all"))
    good(world.parvis("dlq", "show", "1"))
    good(world.parvis("dlq", "reinject", "--all", "--dry-run"))
    assert len(letters(world)) == len(files(world)) == 2
    dead = Listener(world.transport)
    world.transport.subscribe(world.dead("multiply"), dead.messages.append, prefetch=9, absolute=True)
    dead.wait_for(2)


def test_chosen_letters_leave_and_others_stay_in_order(every_world: World) -> None:
    world = every_world
    with world.hosting(Multiplier):
        world.transport.send(*(recipe_message("multiply", {"number": 13, "n": n}) for n in range(40)))
        found = await_letters(world, 40)
    wanted = [one["identity"] for one in found if one["payload"]["n"] in (0, 7, 8, 39)]
    good(world.parvis("dlq", "purge", "--yes", *wanted))
    kept = [one["payload"]["n"] for one in letters(world)]
    assert (sorted(kept) if world.kind == "rabbitmq" else kept) == [
        n for n in range(40) if n not in (0, 7, 8, 39)
    ]
    assert len(files(world)) == 4


def test_what_will_happen_is_said_before(world: World) -> None:
    with world.hosting(Multiplier):
        fail_twice(world)
        world.transport.send(recipe_message("multiply", {"number": "many"}))
        await_letters(world, 3)
        run = good(world.parvis("dlq", "reinject", "--all", "--dry-run"))
        assert f"3 dead letters → {world.whole('multiply')} (1 listening)" in run.stdout
    run = good(world.parvis("dlq", "reinject", "1", "--dry-run"))
    assert f"nobody listens to {world.whole('multiply')} now" in run.stdout
    run = world.parvis("dlq", "reinject", "1")
    assert run.exit_code == 2
    assert "--yes" in run.stderr
    run = good(world.parvis("dlq", "reinject", "1", "--dry-run", "-d", world.whole("elsewhere"), "--json"))
    (prospect,) = json.loads(run.stdout)
    assert prospect["queue"] == world.whole("elsewhere")
    assert any("is for queue multiply" in warning for warning in prospect["warnings"])


def test_service_is_asked_what_it_thinks_of_it(world: World) -> None:
    message = recipe_message("sweeper", {"file": 1})
    world.transport.send(_dead(world, message, "per_image_analysis"))
    run = good(world.parvis("dlq", "reinject", "1", "--dry-run"))
    assert "PerImageAnalysis would reject it again: payload: file" in run.stdout


def _dead(world: World, message: Send, queue: str, **headers: str) -> Send:
    """A dead letter that somebody else made."""
    told = {**message.headers, "original-destination": f"/queue/{world.whole(queue)}", **headers}
    return Send(world.dead(queue), message.body, told, absolute=True)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["-q", "multiply"], 2),
        (["-q", "gather"], 1),
        (["-q", "nothing"], 0),
        (["--service", "multiplier"], 1),
        (["--reason", "cold"], 1),
        (["--reason", "/^it was (cold|wet)$/"], 2),
        (["--older", "1h"], 1),
        (["--newer", "1h"], 2),
        (["--recipe", "test-re"], 3),
        (["--recipe", "other"], 0),
        (["-n", "elsewhere"], 0),
        (["-n", ""], 3),
    ],
)
def test_letters_are_chosen(world: World, options: list[str], count: int) -> None:
    message = recipe_message("multiply", {"number": 1})
    world.transport.send(
        _dead(world, message, "multiply", **{"parvis-reason": "it was cold", "parvis-service": "Multiplier"}),
        _dead(world, message, "multiply", **{"parvis-reason": "it was wet"}),
        _dead(world, message, "gather", **{"parvis-time": "2020-01-01T00:00:00+00:00"}),
    )
    assert len(letters(world, *options)) == count


def test_letters_of_other_programs_say_what_they_can(world: World) -> None:
    world.transport.send(
        _dead(world, Send("x", b"not JSON"), "work", dlqDeliveryFailureCause="it was thrown away")
    )
    world.transport.send(Send("DLQ.bare", b'{"a": 1}', absolute=True))
    first, second = letters(world, "-n", "")
    if first["queue"] != "DLQ.bare":
        first, second = second, first
    assert (first["origin"], first["reason"], first["payload"]) == ("bare", "nobody said why", {"a": 1})
    assert (second["origin"], second["reason"], second["payload"]) == (
        world.whole("work"),
        "it was thrown away",
        "not JSON",
    )
    listener = Listener(world.transport, "work")
    good(world.parvis("dlq", "reinject", "--yes", "-q", "work"))
    (message,) = listener.wait_for(1)
    assert (message.body, message.headers["dlq-reinjected"]) == (b"not JSON", "True")
    assert "dlqDeliveryFailureCause" not in message.headers


EVIL = "\x1b]0;owned\x07\x1b[2J\u202eevil [bold]mark-up[/bold]\r\n" * 3


def test_hostile_letters_do_a_terminal_no_harm(world: World) -> None:
    headers = {
        "parvis-reason": EVIL,
        "parvis-traceback": EVIL,
        "parvis-service": EVIL,
        "parvis-host": EVIL,
        "parvis-route": EVIL,
        "parvis-result": EVIL,
        "parvis-time": EVIL,
        "parvis-tries": "9" * 5000,
        "parvis-reinjections": "-1",
        "parvis-id": EVIL,
        EVIL: EVIL,
    }
    nested: Any = "[" * 100_000
    for body in (EVIL.encode(), nested.encode(), b"\xff\x00" * 50, b"x" * 2_000_000):
        world.transport.send(Send(world.dead("work"), body, headers, absolute=True))
    world.transport.send(
        Send(world.dead("work"), b'{"recipe": 1}', {"workflows-recipe": "True"}, absolute=True)
    )
    assert len(letters(world)) == 5
    for words in (
        ["list"],
        ["list", "--all"],
        ["show", "--full", "-q", "work"],
        ["reinject", "--dry-run", "--all"],
    ):
        run = world.parvis("dlq", *words)
        assert run.exception is None or isinstance(run.exception, SystemExit)
        assert all(sign.isprintable() or sign == "\n" for sign in run.output), words
    good(world.parvis("dlq", "purge", "--all", "--yes"))
    assert len(files(world)) == 5
    assert {file.parent.parent for file in files(world)} == {world.directory / "dead"}
    good(world.parvis("dlq", "reinject", "--yes", "-d", world.dead("work"), *map(str, files(world))))
    bodies = {len(one["payload"]) if isinstance(one["payload"], str) else 0 for one in letters(world)}
    assert {2_000_000, 100, 100_000} - bodies == {2_000_000}, "of one that is too long the beginning is shown"


def test_more_than_can_be_looked_at_is_taken_in_turns(world: World) -> None:
    message = recipe_message("multiply", {"number": 1})
    letter = _dead(world, message, "multiply", **{"parvis-reason": "it was cold"})
    world.transport.send(*[letter] * 1300)
    run = good(world.parvis("dlq", "purge", "--all", "--yes", "--json"))
    assert len(json.loads(run.stdout)["done"]) == 1300
    assert "only the first 1000 of 1300" in run.stderr
    assert len(files(world)) == 1300
    assert letters(world) == []


def test_what_dies_again_does_not_go_round_and_round(world: World) -> None:
    with world.hosting(Multiplier):
        fail_twice(world)
        await_letters(world, 2)
        good(world.parvis("dlq", "reinject", "--all", "--yes"))
        await_letters(world, 2)
    assert {one["reinjected"] for one in letters(world)} == {1}


def test_edited_letters_are_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    message = recipe_message("per_image_analysis", {"file": "/data/1.cbf"}, parameters={"d_min": 2})
    world.transport.send(_dead(world, message, "per_image_analysis"))

    def edit(change: str, *words: str) -> Result:
        editor = world.directory / "edit.py"
        editor.write_text(f"import json, sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n{change}\n")
        monkeypatch.setenv("VISUAL", f"{sys.executable} {editor}")
        return world.parvis("dlq", "edit", "1", "--yes", *words)

    run = edit("file.write_text('{')")
    assert (run.exit_code, "it is not JSON" in run.stderr) == (1, True), run.output
    run = edit("file.write_text('{}')")
    assert (run.exit_code, '"payload" and "parameters"' in run.stderr) == (1, True), run.output
    run = edit("file.write_text(file.read_text().replace('\"/data/1.cbf\"', '7'))")
    assert (run.exit_code, "PerImageAnalysis would reject it again" in run.stderr) == (1, True), run.output
    run = edit("sys.exit(3)")
    assert (run.exit_code, "exit code 3" in run.stderr) == (1, True), run.output
    run = edit("pass")
    assert (run.exit_code, "Nothing is changed" in run.stderr) == (0, True), run.output
    monkeypatch.setenv("VISUAL", "no-such-editor; touch /tmp/owned")
    run = world.parvis("dlq", "edit", "1", "--yes")
    assert (run.exit_code, "cannot be started" in run.stderr) == (1, True), run.output
    assert len(letters(world)) == 1

    good(edit("file.write_text(file.read_text().replace('1.cbf', '2.cbf'))", "--keep"))
    (changed,) = letters(world)
    assert (changed["payload"], changed["parameters"]) == ({"file": "/data/2.cbf"}, {"d_min": 2})
    (before,) = files(world)
    assert json.loads(before.read_text())["message"]["payload"] == {"file": "/data/1.cbf"}
    listener = Listener(world.transport, "per_image_analysis")
    good(edit("file.write_text(file.read_text().replace('2.cbf', '3.cbf'))"))
    listener.wait_for(1)
    assert listener.payloads() == [{"file": "/data/3.cbf"}]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is not JSON"),
        ("[1]", "is no dead letter"),
        ('{"header": 3, "message": 1}', "is no dead letter"),
        ('{"header": {}, "message": {}}', "does not say which queue it died in"),
        ('{"header": {"destination": "/queue/evil name\\n"}, "message": {}}', "does not say which queue"),
        ('{"exported": {"encoding": "base64"}, "header": {}, "message": "?"}', "not base64"),
    ],
)
def test_files_that_are_none(world: World, content: str, problem: str) -> None:
    file = world.directory / "letter"
    file.write_text(content)
    run = world.parvis("dlq", "reinject", "--yes", str(file))
    assert run.exit_code == 1
    assert problem in run.output.replace("\n", " ")
    assert "Traceback" not in run.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["purge"], 2, "--all"),
        (["show"], 2, "or by options; `parvis dlq list`"),
        (["show", "1"], 1, "no dead letter '1'"),
        (["purge", "-q", "nobody"], 1, "no such dead letter"),
        (["list", "--reason", "/(/"], 2, "no regular expression"),
        (["list", "--older", "soon"], 2, "no length of time"),
        (["reinject", "/nowhere/at-all"], 1, "No such file"),
        (["reinject", "-d", "a b", "1"], 2, "cannot name a queue"),
    ],
)
def test_called_wrongly(world: World, words: list[str], code: int, said: str) -> None:
    run = world.parvis("dlq", *words)
    assert (run.exit_code, said.casefold() in run.stderr.casefold()) == (code, True), run.output


def test_names_of_files_from_the_standard_input(world: World) -> None:
    message = recipe_message("work", {"n": 1})
    world.transport.send(_dead(world, message, "work"))
    good(world.parvis("dlq", "purge", "--all", "--yes"))
    listener = Listener(world.transport, "work")
    names = "\n".join(map(str, files(world)))
    good(world.parvis("dlq", "reinject", "--yes", "-", input=names))
    listener.wait_for(1)


def test_people_are_asked(world: World) -> None:
    listener = Listener(world.transport, "work")
    world.transport.send(_dead(world, recipe_message("work", {"n": 1}), "work"))
    for answer, expected in ((b"n\n", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "parvis", "dlq", "reinject", "1"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        os.close(theirs)
        os.write(ours, answer)
        said = process.communicate(timeout=30)[0].decode()
        os.close(ours)
        assert "Send 1 dead letter in again?" in said
        assert said.index("1 dead letter → ") < said.index("Send 1 dead letter")
        assert process.returncode == expected, said
        assert len(letters(world)) == expected
    listener.wait_for(1)
