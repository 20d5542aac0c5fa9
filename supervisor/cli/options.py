"""What commands have in common: their options, and the end of their help. Light: every start of the program imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supervisor.cli.outcome import EXIT_CODES_TEXT

# Without it the help would show a type after each switch, as if it took a value.
FLAG = ""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file; left out: $LLAMAVISOR_CONFIG, ./config.json (or .yaml, .toml), then the user's configuration folder.",
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        envvar="LLAMAVISOR_DATA_DIR",
        help="Folder of the server's data: logs, lock, address. Left out: the platform's folder for user data.",
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="LLAMAVISOR_URL",
        help="Address of the running server; left out: the one that its data folder tells, then http://127.0.0.1:3000.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print JSON, for programs.")]


def ending(*examples: str) -> str:
    """The end of a command's help: `examples` (a command line, two spaces, `# what it does`), and the exit codes.

    Paragraphs, because the help's renderer joins the lines of one.
    """
    return "\n\n".join(["Examples:", *(f"  {example}" for example in examples), EXIT_CODES_TEXT])
