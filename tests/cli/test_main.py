"""The command `parvis` itself: help, typing errors, exit codes, what it imports."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from parvis.cli import main
from parvis.cli.group import CommandTable
from parvis.cli.options import with_config
from parvis.config import Config, ConfigError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOCALO_CONFIG", "ZOCALO_DEFAULT_ENV", "PARVIS_ENVIRONMENT", "PARVIS_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> CommandTable:
    """A command table with one module of commands, found as those of the real one are."""
    (tmp_path / "made_commands.py").write_text("import click\n" + module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_commands", raising=False)
    table = {"try": ("made_commands:tried", "Try it."), "other": ("nowhere:other", "Never imported.")}
    return CommandTable(name="made", table=table, contributed="parvis.no_such_group")


def raising(error: str) -> str:
    return f"@click.command()\ndef tried():\n    raise {error}\n"


@pytest.mark.parametrize("option", ["-h", "--help", "-?"])
def test_help_names_all_commands(option: str):
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    for name in ("go", "service", "up", "broker", "recipe", "completion"):
        assert f"\n  {name} " in result.stdout


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("parvis ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["goo"], "Did you mean 'go'?"), (["go", "--recipes", "x"], "--recipe"), (["go", "-Z"], "-Z")],
)
def test_typing_error_gets_a_hint(arguments: list[str], hint: str):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert hint in result.stderr


def test_start_is_light():
    """Whatever a command needs is imported when it runs: a shell prompt must not wait for numpy."""
    heavy = ["numpy", "sqlalchemy", "pydantic", "rich", "yaml", "orjson", "textual", "h5py", "asyncio"]
    code = f"import sys, parvis.cli; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["monitor", "--once", "--for", "nan"],
        ["queue", "monitor", "--interval", "nan"],
        ["dlq", "purge", "1", "--wait", "NaN"],
        ["pickup", "--delay", "nan"],
        ["health", "--timeout", "nan"],
        ["shutdown", "x.1", "--wait", "nan"],
    ],
)
def test_what_is_no_number_of_seconds_is_a_wrong_option(arguments: list[str]):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert arguments[-2] in result.stderr
    assert "finite number" in result.stderr


def test_a_command_may_have_no_standard_output(tmp_path: Path):
    command = [sys.executable, "-m", "parvis", "logs", "--records", str(tmp_path)]
    words = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    result = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert "there are no records in" in result.stderr


def test_any_text_can_be_printed_in_any_encoding():
    asked = ["go", "--dry-run", "-v", "--no-dcid", "-r", "a", "-s", "x=\u2603"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "parvis", *asked]
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"\\u2603" in result.stdout


@pytest.mark.parametrize("command", ["go", "completion"])
def test_help_of_a_command_is_light(command: str):
    heavy = ["numpy", "sqlalchemy", "pydantic", "rich", "yaml", "orjson", "asyncio"]
    code = (
        "import sys\nfrom parvis.cli import main\n"
        f"try:\n    main(['{command}', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (
            "__import__('parvis.config').config.ConfigError('site.yml:\\n no such key')",
            2,
            "Error: site.yml: no such key\n",
        ),
        ("ZeroDivisionError('oh')", 1, "Error: ZeroDivisionError: oh (PARVIS_DEBUG=1 shows where)\n"),
        (
            "FileNotFoundError(2, 'No such file or directory', '/x')",
            1,
            "Error: /x: No such file or directory\n",
        ),
        ("KeyboardInterrupt", 130, "Interrupted.\n"),
        ("click.UsageError('wrong')", 2, "Error: wrong\n"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, code: int, says: str
):
    result = CliRunner().invoke(make(tmp_path, monkeypatch, raising(error)), ["try"])
    assert result.exit_code == code
    assert result.stderr.lstrip().endswith(says)
    assert "Traceback" not in result.output


def test_traceback_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARVIS_DEBUG", "1")
    result = CliRunner().invoke(make(tmp_path, monkeypatch, raising("ZeroDivisionError")), ["try"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_only_the_command_called_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    group = make(tmp_path, monkeypatch, "@click.command()\ndef tried():\n    click.echo('done')\n")
    result = CliRunner().invoke(group, ["try"])
    assert (result.exit_code, result.stdout) == (0, "done\n")
    assert "made_commands" in sys.modules
    assert "Never imported." in CliRunner().invoke(group, ["--help"]).stdout


TALKATIVE = """
import click, parvis.cli

@parvis.cli.main.command()
def talk():
    for _ in range(1000):
        click.echo("x" * 1000)

parvis.cli.main(["talk"])
"""


def test_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-c", TALKATIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""


CONTRIBUTED = """
import click

@click.command()
def good():
    "Do somebody else's thing."
    click.echo("theirs")
"""


def test_commands_of_others_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "wardrobe.py").write_text(CONTRIBUTED)
    information = tmp_path / "wardrobe-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: wardrobe\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[parvis.commands]\nzgood = wardrobe:good\nzbad = no_such_module:bad\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert CliRunner().invoke(main, ["zgood"]).stdout == "theirs\n"
    text = CliRunner().invoke(main, ["--help"]).stdout
    assert "Do somebody else's thing." in text
    assert "cannot be loaded: ModuleNotFoundError" in text
    assert CliRunner().invoke(main, ["zbad"]).exit_code == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_PARVIS_COMPLETE" in result.stdout


def complete(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    result = CliRunner().invoke(main, [], prog_name="parvis", env={"_PARVIS_COMPLETE": "bash_complete"})
    return [entry.partition(",")[2] for entry in result.stdout.splitlines()]


def test_shell_completes_commands_recipes_and_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my-archive.json").write_text("{}")
    site = tmp_path / "site.yml"
    site.write_text("version: 1\nenvironments: {live: [], test: []}\n")
    monkeypatch.setenv("ZOCALO_CONFIG", str(site))
    monkeypatch.setenv("PARVIS_RECIPE_DIRECTORY", str(tmp_path))
    assert complete("parvis g", monkeypatch) == ["go"]
    assert complete("parvis go -r my", monkeypatch) == ["my-archive"]
    assert complete("parvis go -e li", monkeypatch) == ["live"]
    assert complete("parvis -e li", monkeypatch) == ["live"]
    assert complete("parvis recipe check my", monkeypatch) == ["my-archive"]


def test_shell_completes_services_and_files(monkeypatch: pytest.MonkeyPatch):
    assert complete("parvis service -s filew", monkeypatch) == ["FileWatcher"]
    assert complete("parvis up Dispatcher filew", monkeypatch) == ["FileWatcher"]
    completed = CliRunner().invoke(
        main,
        [],
        prog_name="parvis",
        env={"_PARVIS_COMPLETE": "bash_complete", "COMP_WORDS": "parvis go -f my", "COMP_CWORD": "3"},
    )
    assert completed.stdout == "file,my\n"


def all_commands(group: click.Group, *names: str) -> Iterator[list[str]]:
    context = click.Context(group)
    yield [*names]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from all_commands(command, *names, name)
        else:
            yield [*names, name]


@pytest.mark.parametrize("command", list(all_commands(main)), ids=" ".join)
def test_help_fits_a_terminal(command: list[str]):
    lines = CliRunner().invoke(main, [*command, "-h"], terminal_width=80).stdout.splitlines()
    assert lines
    assert [line for line in lines if len(line) > 80] == []


def configured(*arguments: str, logs: bool = False) -> Config:
    """The configuration that a command with `with_config` is given."""
    found: list[Config] = []

    @click.group()
    @click.option("-e", "environments", multiple=True)
    @click.pass_context
    def group(ctx: click.Context, environments: tuple[str, ...]) -> None:
        ctx.meta["parvis.environments"] = environments

    @group.command()
    @with_config(logs=logs)
    def show(config: Config) -> None:
        found.append(config)

    group.main(list(arguments), standalone_mode=False)
    return found[0]


@pytest.fixture
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site.yml"
    site.write_text(
        "version: 1\nb: {plugin: stomp, host: h, port: 1, username: u, password: p, prefix: z}\n"
        "environments: {live: [b], test: [b], third: [b]}\n"
    )
    monkeypatch.setenv("ZOCALO_CONFIG", str(site))


@pytest.mark.usefixtures("_site")
def test_environment_before_and_after_the_command():
    config = configured("-e", "third", "show", "-e", "live", "--test")
    assert config.environments == ("third", "live", "test")


@pytest.mark.usefixtures("_site")
def test_options_make_the_configuration(tmp_path: Path):
    conf = tmp_path / "stomp.conf"
    conf.write_text("[stomp]\nhost = fromfile\nport = 5\nusername = me\npassword = 100%sure\nprefix = pre\n")
    stomp_options = ["--stomp-conf", str(conf), "--stomp-host", "option"]
    config = configured("show", "-e", "live", *stomp_options, "-vv", "--log-format", "json", logs=True)
    stomp = config.stomp
    assert (stomp.host, stomp.port) == ("option", 5)
    assert (stomp.username, stomp.password, stomp.prefix) == ("me", "100%sure", "pre")
    assert (config.verbosity, config.log_format) == (2, "json")


def test_password_on_the_command_line_gets_a_warning(capsys: pytest.CaptureFixture[str]):
    assert configured("show", "--stomp-pass", "s3cret", "--stomp-user", "x").stomp.password == "s3cret"
    err = capsys.readouterr().err
    assert "PARVIS_STOMP_PASSWORD" in err
    assert "s3cret" not in err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read"),
        ("host = x\n", "not an ini file"),
        ("[rabbit]\nhost = x\n", "no section"),
        (b"\xff", "not an ini"),
    ],
)
def test_bad_stomp_conf_is_an_error(tmp_path: Path, content: str | bytes | None, says: str):
    conf = tmp_path / "stomp.conf"
    if content is not None:
        conf.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=says):
        configured("show", "--stomp-conf", str(conf))


def test_other_transports_are_refused_with_advice():
    with pytest.raises(ConfigError, match=r"OfflineTransport.*StompTransport and PikaTransport.*-t"):
        configured("show", "-t", "OfflineTransport").transport()
    assert configured("show", "-t", "StompTransport").transport().namespace == "zocalo"
