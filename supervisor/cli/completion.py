"""`llamavisor completion`: the script that teaches a shell our commands and the names of instances."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from supervisor.cli.options import ending
from supervisor.errors import LlamavisorError

COMPLETION_ENDING = ending(
    'eval "$(llamavisor completion bash)"  # in ~/.bashrc',
    'eval "$(llamavisor completion zsh)"  # in ~/.zshrc, after compinit',
    "llamavisor completion fish > ~/.config/fish/completions/llamavisor.fish",
)
COMPLETE_VARIABLE = "_LLAMAVISOR_COMPLETE"


class Shell(StrEnum):
    """The shells that are taught."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    context: typer.Context, shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]
) -> None:
    """Print the script that makes a shell complete commands, options and names of instances."""
    root = context.find_root()
    # The library's own protocol: with this variable set, the program prints the script and ends.
    os.environ[COMPLETE_VARIABLE] = f"source_{shell.value}"
    root.command([], prog_name=root.info_name)


def complete_instance(incomplete: str) -> list[str]:
    """The names of the configured instances that begin with what is typed; none when the configuration cannot be read."""
    from supervisor.config import load_settings

    try:
        names = load_settings(None, environ=os.environ).settings.instances
    except LlamavisorError:
        return []
    return [name for name in names if name.startswith(incomplete)]
