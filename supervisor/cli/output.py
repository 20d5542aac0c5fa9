"""What commands print: text and tables for people, JSON for programs, errors on standard error."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from supervisor.errors import LlamavisorError

if TYPE_CHECKING:
    from rich.console import Console

# A pipe has no width; tables that are cut at 80 columns help nobody behind it.
PIPE_WIDTH_COLUMNS = 200


@cache
def stdout() -> Console:
    """Standard output: colours only on a terminal, and not when NO_COLOR is set. Never interprets markup or emoji codes in what it prints."""
    return _console(stderr=False)


@cache
def stderr() -> Console:
    """Standard error, as `stdout`."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    is_pipe = not stream.isatty() and "COLUMNS" not in os.environ
    width = PIPE_WIDTH_COLUMNS if is_pipe else None
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """`value` as JSON on standard output; `indent=None` for one line each."""
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def say(text: str) -> None:
    """One line to the person, on standard error, so that standard output holds nothing but data."""
    stderr().print(printable(text), soft_wrap=True)


def warn(text: str) -> None:
    """As `say`, marked as a warning."""
    stderr().print("warning:", style="yellow", end=" ")
    say(text)


def complain(error: LlamavisorError, *, as_json: bool = False) -> None:
    """An expected failure: what happened and what to do, never a traceback. In JSON it has the shape that it has over HTTP."""
    if as_json:
        from supervisor.gateway.openai_errors import error_body

        typer.echo(json.dumps(error_body(error), ensure_ascii=False), err=True)
        return
    stderr().print("error:", style="bold red", end=" ")
    say(str(error))


def printable(text: str) -> str:
    """`text` without what could move the cursor, recolour or rewrite the terminal: it may come from a model, a log or another server.

    Tabs and ends of lines stay; any other control or invisible formatting character is spelt out, as `\\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else _spelt(char) for char in text)


def _is_harmless(char: str) -> bool:
    """Spaces of every width and the joiners of emoji and scripts are ordinary text, though Python calls them unprintable."""
    return char in "\t\n\u200c\u200d" or char.isprintable() or unicodedata.category(char) == "Zs"


def _spelt(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
