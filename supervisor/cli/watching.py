"""The work of `llamavisor status`: the table, once or live."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from rich.live import Live

from supervisor.cli.board import Board
from supervisor.cli.client import Client
from supervisor.cli.outcome import NoServerError
from supervisor.cli.output import print_json, stdout
from supervisor.cli.place import ServerPlace

REDRAWS_A_SECOND = 4
RECONNECT_SECONDS = 1.0


def show_status(place: ServerPlace, *, once: bool, as_json: bool) -> None:
    """Print the instances; a live table on a terminal, which Ctrl-C ends."""
    console = stdout()
    if as_json:
        print_json(asyncio.run(_picture(place)))
    elif once or not console.is_terminal:
        console.print(Board(asyncio.run(_picture(place))).table())
    else:
        try:
            asyncio.run(_live(place))
        except KeyboardInterrupt:
            # The ordinary way to leave.
            return


async def _picture(place: ServerPlace) -> Any:
    async with Client(place) as client:
        return await client.get("/admin/instances")


async def _live(place: ServerPlace) -> None:
    async with Client(place) as client:
        board = Board(await client.get("/admin/instances"))
        with Live(get_renderable=board.table, console=stdout(), refresh_per_second=REDRAWS_A_SECOND):
            while True:
                await _follow(client, board)
                await asyncio.sleep(RECONNECT_SECONDS)


async def _follow(client: Client, board: Board) -> None:
    """Keep the board true until the stream ends; what happened in between comes first when the next one begins."""
    try:
        async for event in client.follow("/events", last_event_id=board.cursor):
            board.take(event.type, json.loads(event.data)["data"])
            board.cursor = event.id
    except NoServerError as error:
        board.note = f"{error.message} Trying again; what is shown may be out of date."
    else:
        board.note = "The server ended the connection. Trying again; what is shown may be out of date."
