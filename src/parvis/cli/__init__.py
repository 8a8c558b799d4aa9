"""The command `parvis`. Only click is imported here: each command imports what it needs when it is called."""

from __future__ import annotations

import click

from parvis.cli.environments import environments_option
from parvis.cli.group import CommandTable

_COMMANDS = {
    "go": ("parvis.cli.go:go", "Start recipes for a data collection."),
    "service": ("parvis.cli.service:service", "Run a service."),
    "up": ("parvis.cli.up:up", "Run several services, supervised, in one terminal."),
    "broker": ("parvis.cli.broker:broker", "Run a message broker for this machine."),
    "monitor": ("parvis.cli.monitor:monitor", "Show who is there and what they are doing."),
    "shutdown": ("parvis.cli.shutdown:shutdown", "Stop services, and see them go."),
    "web": ("parvis.cli.web:web", "Show what goes on to browsers."),
    "queue": ("parvis.cli.queue:queue", "Show queues, look into them, and move what is in them."),
    "dlq": ("parvis.cli.dlq:dlq", "See why messages died, change them, send them in again."),
    "pickup": ("parvis.cli.pickup:pickup", "Send what was stored while the broker was away."),
    "logs": ("parvis.cli.logs:logs", "Search log records, and follow them."),
    "collect": ("parvis.cli.collect:collect", "Take log records and hops, and keep them."),
    "trace": ("parvis.cli.trace:trace", "Show what became of a recipe, and where it stands."),
    "health": ("parvis.cli.health:health", "Check that all is well that services need."),
    "config": ("parvis.cli.config:config", "Check the configuration, and show what is in force."),
    "recipe": ("parvis.cli.recipe:recipe", "Check, draw and show recipes."),
    "rabbitmq": ("parvis.cli.rabbitmq:rabbitmq", "Set a RabbitMQ up."),
    "completion": ("parvis.cli.completion:completion", "Print what makes a shell complete these commands."),
}


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from parvis import __version__

        click.echo(f"parvis {__version__}")
        ctx.exit()


@click.group(
    cls=CommandTable,
    table=_COMMANDS,
    contributed="parvis.commands",
    context_settings={"help_option_names": ["-h", "--help", "-?"], "max_content_width": 100},
    epilog="`parvis COMMAND --help` says more, with examples.",
)
@environments_option
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(ctx: click.Context, environments: tuple[str, ...]) -> None:
    """Coordinate data analysis: recipes, messages, services."""
    ctx.meta["parvis.environments"] = environments
