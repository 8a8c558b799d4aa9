"""`parvis completion`: what makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

_HOW = {
    "bash": 'eval "$(parvis completion bash)"',
    "zsh": 'eval "$(parvis completion zsh)"',
    "fish": "parvis completion fish | source",
}


def complete_environments(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of an environment of the configuration."""
    from parvis.config import environment_names

    return [CompletionItem(name) for name in environment_names() if name.startswith(incomplete)]


def complete_recipes(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a recipe."""
    from parvis.config import Config
    from parvis.recipe.library import recipe_directories, recipes

    known = recipes(recipe_directories(Config.load()))
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]


def complete_services(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a service, in any case."""
    from parvis.service.registry import find_services

    return [CompletionItem(name) for name in find_services() if name.lower().startswith(incomplete.lower())]


@click.command(
    epilog="\b\n"
    + "\n".join(
        f"  {line:<40} in {place}"
        for line, place in zip(_HOW.values(), ("~/.bashrc", "~/.zshrc", "config.fish"), strict=True)
    )
)
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete these commands; put one of the lines below where it belongs."""
    made = get_completion_class(shell)
    if made is None:
        raise click.ClickException(f"click knows no completion for {shell}")
    click.echo(made(ctx.find_root().command, {}, "parvis", "_PARVIS_COMPLETE").source())
