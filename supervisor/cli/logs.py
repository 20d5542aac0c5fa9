"""`llamavisor logs`: what an instance printed, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from supervisor.cli.completion import complete_instance
from supervisor.cli.options import FLAG, DataDirOption, JsonOption, UrlOption, ending

if TYPE_CHECKING:
    from rich.text import Text

    from supervisor.cli.client import Client
    from supervisor.cli.place import ServerPlace

LOGS_ENDING = ending(
    "llamavisor logs -f  # the default instance, until Ctrl-C",
    "llamavisor logs chat -n 1000 | grep -i error",
    "llamavisor logs chat -f --json  # one JSON object a line",
)
LINES_DEFAULT = 200
LINES_MAX = 100_000
LEVEL_STYLES = {"error": "red", "warn": "yellow"}
MILLISECONDS = 1_000


def logs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Name of the instance; left out: the default one.", autocompletion=complete_instance
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", metavar=FLAG, help="Stay, and print each new line.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, max=LINES_MAX, help="So many of the newest lines.")
    ] = LINES_DEFAULT,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print what an instance wrote to its standard output and error, oldest first."""
    import asyncio

    from supervisor.cli.place import find_server

    place = find_server(url, data_dir)
    try:
        asyncio.run(_print_logs(place, name, lines, follow=follow, as_json=json_output))
    except KeyboardInterrupt:
        # The ordinary way to leave.
        return


async def _print_logs(place: ServerPlace, name: str | None, lines: int, *, follow: bool, as_json: bool) -> None:
    from supervisor.cli.client import Client

    async with Client(place) as client:
        path = f"/admin/instances/{name or await _default_name(client)}/logs"
        if not follow:
            for entry in (await client.get(path, {"tail": lines}))["logs"]:
                _print_entry(entry, as_json=as_json)
            return
        async for event in client.follow(path, {"tail": lines, "follow": 1}):
            if event.type == "log":
                _print_entry(json.loads(event.data), as_json=as_json)


async def _default_name(client: Client) -> str:
    from supervisor.cli.outcome import UsageProblemError

    name = (await client.get("/admin/instances"))["default"]
    if name is None:
        raise UsageProblemError("No instance is configured.", remedy="Add one under `instances`, then reload.")
    return str(name)


def _print_entry(entry: Mapping[str, Any], *, as_json: bool) -> None:
    from supervisor.cli.output import print_json, stdout

    if as_json:
        print_json(entry, indent=None)
    else:
        stdout().print(line_text(entry), soft_wrap=True)


def line_text(entry: Mapping[str, Any]) -> Text:
    """One line: the local time of its arrival, then what was written, coloured by its level."""
    from rich.text import Text

    from supervisor.cli.output import printable

    at = datetime.fromtimestamp(entry["timestamp"] / MILLISECONDS).strftime("%H:%M:%S.%f")[:-3]
    style = LEVEL_STYLES.get(entry["level"], "")
    return Text.assemble((f"{at} ", "dim"), (printable(str(entry["message"])), style))
