"""`-e`: the option of all commands together and of each by itself. Only click is imported here."""

from __future__ import annotations

import click

from parvis.cli.completion import complete_environments

#: `-e`, given to the command as a tuple `environments`.
environments_option = click.option(
    "-e",
    "--environment",
    "environments",
    metavar="ENV",
    multiple=True,
    shell_complete=complete_environments,
    help="Environment of the configuration to use, such as live or test. May be repeated.",
)
