"""`llamavisor models`: what is served, and what lies in the folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor.cli.options import ConfigOption, DataDirOption, JsonOption, UrlOption, ending

if TYPE_CHECKING:
    from rich.table import Table

    from supervisor.cli.place import ServerPlace
    from supervisor.models.discovery import FoundModels

MODELS_ENDING = ending(
    "llamavisor models  # what is served, and what could be",
    "llamavisor models --json | jq -r '.found[].path'",
)
COLUMNS = ("model", "architecture", "parameters", "quantisation", "context", "template", "size")
NOTHING = "–"


def models(
    config: ConfigOption = None, json_output: JsonOption = False, url: UrlOption = None, data_dir: DataDirOption = None
) -> None:
    """List the models that are served now, and the GGUF files in `models.folders` of the configuration.

    Without a running server only the files are listed.
    """
    import asyncio

    from supervisor.cli.outcome import NoServerError
    from supervisor.cli.output import print_json, say
    from supervisor.cli.place import find_server
    from supervisor.config import load_settings
    from supervisor.models.discovery import find_models

    folders = load_settings(config, environ=os.environ).settings.models.folders
    found = find_models(folders)
    try:
        served = asyncio.run(_served(find_server(url, data_dir)))
    except NoServerError as error:
        served = []
        say(f"{error.message} Only files are listed.")
    if json_output:
        print_json({"served": served, **_found_to_wire(found)})
    else:
        _show(served, found, folders)


async def _served(place: ServerPlace) -> list[dict[str, Any]]:
    """The models of every instance, each with the instance's name and state."""
    from supervisor.cli.client import Client

    async with Client(place) as client:
        picture = await client.get("/admin/instances")
    return [
        {"instance": instance["instance"], "status": instance["status"], **model}
        for instance in picture["instances"]
        for model in instance["models"]
    ]


def _found_to_wire(found: FoundModels) -> dict[str, Any]:
    from supervisor.models.catalog import model_from_file

    return {
        "found": [{**model_from_file(file).to_wire(), "path": str(file.path)} for file in found.models],
        "companions": [{"path": str(file.path), "kind": file.kind} for file in found.companions],
        "unreadable": [
            {"path": str(path), "code": error.code, "message": str(error)} for path, error in found.unreadable
        ],
        "cut_short": found.cut_short,
    }


def _show(served: Sequence[Mapping[str, Any]], found: FoundModels, folders: Sequence[Path]) -> None:
    from rich.text import Text

    from supervisor.cli.output import printable, stdout, warn

    console = stdout()
    if served:
        console.print(_table("Served now", served, "instance"))
    wire = _found_to_wire(found)
    if wire["found"]:
        console.print(_table("In the folders", wire["found"], "path"))
    elif folders:
        console.print(Text(f"No GGUF file lies in {', '.join(map(str, folders))}.", "dim"), soft_wrap=True)
    else:
        console.print(Text("No folders are searched: `models.folders` names them.", "dim"), soft_wrap=True)
    for companion in wire["companions"]:
        console.print(Text(f"{companion['kind']}: {printable(companion['path'])}", "dim"), soft_wrap=True)
    for unreadable in wire["unreadable"]:
        warn(unreadable["message"])
    if found.cut_short is not None:
        warn(f"The search ended early: {found.cut_short}.")


def _table(title: str, rows: Sequence[Mapping[str, Any]], last: str) -> Table:
    from rich.table import Table

    table = Table(*COLUMNS, last, title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*_cells(row), _last_cell(row, last), style="dim" if row.get("status") == "initial" else "")
    return table


def _last_cell(row: Mapping[str, Any], last: str) -> str:
    from supervisor.cli.output import printable

    return f"{row['instance']} ({row['status']})" if last == "instance" else printable(str(row[last]))


def _cells(model: Mapping[str, Any]) -> list[str]:
    from supervisor.cli.formatting import quantity, size
    from supervisor.cli.output import printable

    known = model.get("metadata", {})
    context, template = known.get("context_length"), known.get("has_chat_template")
    return [
        printable(str(model["name"])),
        printable(str(known.get("architecture") or NOTHING)),
        quantity(known.get("parameter_count")),
        printable(str(known.get("quantisation") or NOTHING)),
        f"{context:,}" if context else NOTHING,
        NOTHING if template is None else "yes" if template else "no",
        size(model["size"]) if model["size"] else NOTHING,
    ]
