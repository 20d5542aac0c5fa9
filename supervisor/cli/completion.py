"""`llamavisor completion`: the script that teaches a shell our commands and the names of instances, projects and keys."""

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
# Nobody waits longer for a word to be completed.
ANSWER_SECONDS = 2.0


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


def complete_project(context: typer.Context, incomplete: str) -> list[str]:
    """The names of the running server's projects that begin with what is typed; none when it does not answer."""
    return _told(context, "/admin/projects", "projects", "name", incomplete)


def complete_key(context: typer.Context, incomplete: str) -> list[str]:
    """As `complete_project`, the ids of its keys."""
    return _told(context, "/admin/keys", "keys", "id", incomplete)


def complete_running(context: typer.Context, incomplete: str) -> list[str]:
    """As `complete_project`, the ids of the requests that are on their way."""
    return _told(context, "/v1/requests/in-flight", "requests", "id", incomplete)


def _told(context: typer.Context, path: str, member: str, field: str, incomplete: str) -> list[str]:
    import asyncio

    from supervisor.cli.client import Client
    from supervisor.cli.place import find_server

    async def ask() -> list[str]:
        async with asyncio.timeout(ANSWER_SECONDS), Client(find_server(context.params.get("url"), data_dir)) as client:
            return [str(one[field]) for one in (await client.get(path))[member]]

    data_dir = context.params.get("data_dir")
    try:
        return [name for name in asyncio.run(ask()) if name.startswith(incomplete)]
    except (LlamavisorError, TimeoutError):
        return []
