"""Log records: on the terminal, as JSON, with the recipe ID, without secrets."""

import io
import json
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from parvis.config import Config, ConfigError, PikaSettings, StompSettings
from parvis.observe.gelf_message import read_gelf
from parvis.observe.logs import log_context, recipe_context, set_up_logging
from parvis.observe.site_logging import DowngradeFilter

LOGGER = "parvis.service.FileWatcher"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, filters = root.handlers[:], root.level, [handler.filters[:] for handler in root.handlers]
    yield
    set_up_logging(Config(), io.StringIO())  # takes its own earlier handlers away
    root.handlers[:] = handlers
    for handler, known in zip(handlers, filters, strict=True):
        handler.filters[:] = known
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(config: Config, stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    set_up_logging(config, stream)
    return stream


def test_line_has_time_level_service_recipe_and_message():
    out = logged(Config())
    with recipe_context("3f2a91c0-aaaa"):
        logging.getLogger(LOGGER).info("seen %d of %d", 3, 19)
    logging.getLogger(LOGGER).warning("outside")
    clock, level, service, recipe, message = out.getvalue().splitlines()[0].split(maxsplit=4)
    assert len(clock.split(":")) == 3
    assert (level, service, recipe, message) == ("INFO", "FileWatcher", "3f2a91c0", "seen 3 of 19")
    assert out.getvalue().splitlines()[1].split()[1:] == ["WARNING", "FileWatcher", "-", "outside"]
    assert "\x1b" not in out.getvalue()


def test_terminal_gets_colour_unless_it_is_unwanted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = logged(Config(), Terminal())
    logging.getLogger(LOGGER).error("red")
    assert "\x1b[31mred\x1b[0m" in out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    out = logged(Config(), Terminal())
    logging.getLogger(LOGGER).error("plain")
    assert "\x1b" not in out.getvalue()


def test_json_lines_carry_all_fields():
    out = logged(Config(log_format="json"))
    with recipe_context("abc"), log_context(workflows_service="DLS Filewatcher"):
        try:
            _ = 1 // 0
        except ZeroDivisionError:
            logging.getLogger(LOGGER).exception("no\ngood", extra={"dcid": 12})
    record = json.loads(out.getvalue())
    assert record["message"] == "no\ngood"
    assert record["recipe_ID"] == "abc"
    assert record["workflows_service"] == "DLS Filewatcher"
    assert record["dcid"] == 12
    assert "ZeroDivisionError" in record["exception"]
    assert record["time"].endswith("Z")


FORGED = "x.cbf\n12:00:00.000 ERROR    Dispatcher       -        all is lost"


def test_a_message_cannot_pass_for_another_record():
    out = logged(Config())
    log = logging.getLogger(LOGGER)
    with recipe_context("a\nb\x1b[2J"):
        log.info("no such file: %s", FORGED)
        log.info("second")
    first, rest, second = out.getvalue().splitlines()
    assert first.endswith(r"a\nb\x1b[2J no such file: x.cbf")
    assert rest == "    | 12:00:00.000 ERROR    Dispatcher       -        all is lost"
    assert second.endswith("second")


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\x1b", r"\x1b"),
        ("\r", r"\r"),
        ("\x0b", r"\x0b"),
        ("\x7f", r"\x7f"),
        ("\x9b", r"\x9b"),
        ("\x85", r"\x85"),
        ("\u2028", r"\u2028"),
        ("\u202e", r"\u202e"),
    ],
)
def test_control_characters_are_written_out(character: str, shown: str):
    out = logged(Config())
    logging.getLogger(LOGGER).info("a%sb", character)
    try:
        raise ValueError(f"c{character}d")
    except ValueError:
        logging.getLogger(LOGGER).exception("failed")
    logging.getLogger(LOGGER).info("3.5 \u00c5\tüß")
    assert character not in out.getvalue()
    assert f"a{shown}b" in out.getvalue()
    assert f"c{shown}d" in out.getvalue()
    assert "3.5 \u00c5\tüß" in out.getvalue()


def test_a_traceback_stays_readable():
    out = logged(Config())
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger(LOGGER).exception("failed")
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("failed")
    assert lines[1] == "    | Traceback (most recent call last):"
    assert all(line.startswith("    | ") for line in lines[1:])


def test_contexts_nest_end_and_stay_in_their_thread():
    out = logged(Config(log_format="json"))
    log = logging.getLogger(LOGGER)
    with recipe_context("outer"):
        with recipe_context("inner"):
            log.info("1")
        thread = threading.Thread(target=log.info, args=("2",))
        thread.start()
        thread.join()
        with recipe_context(None):
            log.info("3")
    log.info("4")
    found = {
        record["message"]: record.get("recipe_ID") for record in map(json.loads, out.getvalue().splitlines())
    }
    assert found == {"1": "inner", "2": None, "3": "outer", "4": None}


def test_field_of_the_record_itself_counts_more():
    out = logged(Config(log_format="json"))
    with recipe_context("ours"):
        logging.getLogger(LOGGER).info("x", extra={"recipe_ID": "theirs"})
    assert json.loads(out.getvalue())["recipe_ID"] == "theirs"


@pytest.mark.parametrize(("verbosity", "seen"), [(0, ["info"]), (1, ["debug", "info"])])
def test_verbosity_adds_debugging(verbosity: int, seen: list[str]):
    out = logged(Config(verbosity=verbosity, log_format="json"))
    logging.getLogger("parvis_services.x").debug("debug")
    logging.getLogger("somebody.else").info("not ours")
    logging.getLogger(LOGGER).info("info")
    assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == seen


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_taken_out(log_format: str):
    config = Config(
        log_format=log_format,
        stomp=StompSettings(password="hunter22"),
        pika=PikaSettings("h", 1, "u", "correct*horse", "v"),
    )
    out = logged(config)
    log = logging.getLogger(LOGGER)
    log.info("log-in with %s failed", "hunter22")
    try:
        raise RuntimeError(
            "mysql+pymysql://gda:tOps3cret@db:3306/ispyb and correct*horse, also redis://x:a@b4cde@r/0"
        )
    except RuntimeError:
        log.exception("down")
    for secret in ("hunter22", "tOps3cret", "correct*horse", "b4cde"):
        assert secret not in out.getvalue()
    assert "log-in with *** failed" in out.getvalue()
    assert "mysql+pymysql://***@db:3306/ispyb" in out.getvalue()


def test_the_default_password_is_no_secret():
    out = logged(Config())
    logging.getLogger(LOGGER).info("name or password is wrong")
    assert "name or password is wrong" in out.getvalue()


def test_message_whose_arguments_do_not_fit_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own would raise
    out = logged(Config())
    logging.getLogger(LOGGER).info("%d", "x")
    logging.getLogger(LOGGER).info("next")
    assert "next" in out.getvalue()


def test_setting_up_again_replaces():
    logged(Config())
    out = logged(Config())
    logging.getLogger(LOGGER).info("once")
    assert out.getvalue().count("once") == 1


SITE: dict[str, Any] = {
    "filters": {
        "calm": {"()": "zocalo.configuration.plugin_logging.DowngradeFilter", "only_below": "CRITICAL"}
    },
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": "", "filters": ["calm"], "formatter": "f"}
    },
    "formatters": {"f": {"format": "%(levelname)s %(message)s"}},
    "root": {"handlers": ["file"], "level": "WARNING"},
    "verbose": [{"loggers": {"parvis": {"level": "INFO"}}}, {"loggers": {"site": {"level": "DEBUG"}}}],
    "loggers": {"parvis": {"level": "ERROR"}},
}


@pytest.mark.parametrize(
    ("verbosity", "lines"),
    [
        (0, ["WARNING broken", "CRITICAL dead"]),
        (1, ["INFO hello", "WARNING broken", "CRITICAL dead"]),
        (2, ["INFO hello", "WARNING broken", "CRITICAL dead", "DEBUG ours"]),
    ],
)
def test_site_says_what_is_logged_where(tmp_path: Any, verbosity: int, lines: list[str]):
    file = tmp_path / "site.log"
    site = SITE | {"handlers": {"file": SITE["handlers"]["file"] | {"filename": str(file)}}}
    logged(Config(logging=site, verbosity=verbosity))
    log = logging.getLogger(LOGGER)
    log.info("hello")
    log.error("broken")
    log.critical("dead")
    logging.getLogger("site").debug("ours")
    assert file.read_text().splitlines() == lines
    logging.getLogger("site").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verbose": {"root": {}}}, "verbose must be a list"),
        ({"verbose": [{"handlers": {}}]}, "verbose, entry 1 is incremental and so cannot have handlers"),
        ({"incremental": True}, "cannot have filters, formatters, handlers"),
        ({"version": 3}, "does not work: Unsupported version"),
        ({"handlers": {"file": {"class": "no.such.Handler"}}}, "does not work: .*file"),
    ],
)
def test_what_is_wrong_with_it_is_said(change: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=says):
        set_up_logging(Config(logging=SITE | change), io.StringIO())


def test_downgrade_bounds_must_be_in_order():
    with pytest.raises(ValueError, match="lower level"):
        DowngradeFilter("ERROR", only_below="ERROR")


def test_repr_of_a_configuration_has_no_secret():
    assert "hunter22" not in repr(replace(Config(), stomp=StompSettings(password="hunter22")))


def test_the_collector_is_sent_records_without_secrets() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(10)
        address = f"127.0.0.1:{collector.getsockname()[1]}"
        storage = {"parvis.records.collector": address, "parvis.graylog.token": "s3cret-token"}
        set_up_logging(Config(storage=storage), io.StringIO())
        with recipe_context("8e2e8e3c-1"):
            logging.getLogger("parvis.service.Test").debug("too little")
            logging.getLogger("parvis.service.Test").info("asked with s3cret-token")
        one = read_gelf(collector.recv(65_536))
    assert (one.message, one.recipe_id) == ("asked with ***", "8e2e8e3c-1")


@pytest.mark.parametrize("address", ["here", "here:", ":1", "here:x", "here:70000"])
def test_an_address_of_a_collector_is_checked(address: str) -> None:
    with pytest.raises(ConfigError, match=r"parvis\.records\.collector must be host:port"):
        set_up_logging(Config(storage={"parvis.records.collector": address}), io.StringIO())
