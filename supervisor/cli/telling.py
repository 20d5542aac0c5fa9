"""Ask the running server, and tell its answer: as it is in JSON, or in words and tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from supervisor.cli.client import Client, Query
from supervisor.cli.output import print_json, printable, stdout
from supervisor.cli.place import ServerPlace

NOTHING = "–"


def get(place: ServerPlace, path: str, query: Query | None = None) -> Any:
    """What the server answers to a GET."""
    return asked(place, lambda client: client.get(path, query))


def asked(place: ServerPlace, question: Callable[[Client], Awaitable[Any]]) -> Any:
    """What the server answers to a question; RefusedError when it refuses."""

    async def ask() -> Any:
        async with Client(place) as client:
            return await question(client)

    return asyncio.run(ask())


def tell_words(answer: Any, words: str, *, as_json: bool) -> None:
    """Tell it in words."""
    if as_json:
        print_json(answer)
    else:
        stdout().print(printable(words), soft_wrap=True)


def tell_table(
    answer: Any, columns: Iterable[str], rows: Iterable[Iterable[str]], empty: str, *, as_json: bool
) -> None:
    """Tell it as a table (without a head where no column has a name); in the words `empty` when it has no row."""
    if as_json:
        print_json(answer)
        return
    names = tuple(columns)
    table = Table(*names, box=None, pad_edge=False, show_header=any(names))
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    stdout().print(table if table.row_count else Text(empty, "dim"), soft_wrap=not table.row_count)


def count(number: int) -> str:
    """A number for people."""
    return f"{number:,}"
