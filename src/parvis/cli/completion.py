"""`parvis completion`: what makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": 'eval "$(parvis completion bash)"',
    "zsh": 'eval "$(parvis completion zsh)"',
    "fish": "parvis completion fish | source",
}


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
