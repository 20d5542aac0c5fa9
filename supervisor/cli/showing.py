"""An answer on its way to the person: rendered on a terminal, as it is into a pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import typer
from rich.text import Text

from supervisor.cli.answering import Answer, stream_answer
from supervisor.cli.client import Client
from supervisor.cli.output import printable, say, stderr, stdout
from supervisor.cli.place import ServerPlace
from supervisor.cli.screen import AnswerScreen


def show_answer(place: ServerPlace, body: Mapping[str, Any], answer: Answer, *, silent: bool = False) -> None:
    """Ask and show until the end. KeyboardInterrupt when the person stops it: `answer` then has what came before.

    `silent` shows nothing of the answer. NoServerError and RefusedError when there was no answer at all.
    """
    if silent:
        asyncio.run(_collect(place, body, answer))
    elif stdout().is_terminal:
        asyncio.run(_render(place, body, answer))
    else:
        asyncio.run(_pass_on(place, body, answer))


def show_end(answer: Answer) -> None:
    """How it ended: its figures, or the honest mark of an answer that was cut."""
    if answer.cut is None:
        stderr().print(Text(answer.account(), "dim"), soft_wrap=True)
        return
    mark = f"— cut off here: {printable(answer.cut)} —"
    stderr().print(Text(mark, "bold red"), soft_wrap=True)


async def _collect(place: ServerPlace, body: Mapping[str, Any], answer: Answer) -> None:
    async with Client(place) as client, aclosing(stream_answer(client, body, answer, _Once())) as pieces:
        async for _ in pieces:
            continue


async def _render(place: ServerPlace, body: Mapping[str, Any], answer: Answer) -> None:
    with AnswerScreen(stdout()) as screen:
        async with Client(place) as client, aclosing(stream_answer(client, body, answer, screen.wait)) as pieces:
            async for piece in pieces:
                screen.add(piece)


async def _pass_on(place: ServerPlace, body: Mapping[str, Any], answer: Answer) -> None:
    async with Client(place) as client, aclosing(stream_answer(client, body, answer, _Once())) as pieces:
        try:
            async for piece in pieces:
                typer.echo(piece, nl=False)
        finally:
            if answer.text and not answer.text.endswith("\n"):
                typer.echo()


class _Once:
    """Says what is waited for on standard error, the first time only: what changes belongs on a screen."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, words: str) -> None:
        if not self._said:
            self._said = True
            say(f"Waiting: {words}")
