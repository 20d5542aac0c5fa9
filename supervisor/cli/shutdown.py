"""The work of `llamavisor shutdown`, with a supervisor or without one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from supervisor.cli.client import Client
from supervisor.cli.outcome import NoServerError
from supervisor.cli.output import stderr, stdout
from supervisor.cli.place import ServerPlace, find_server
from supervisor.data_folder import DataFolder, default_data_folder, read_run_id
from supervisor.fleet.sweep import end_leftovers
from supervisor.process.posix import Identity

CHECK_SECONDS = 0.05


def shut_down(url: str | None, data_dir: Path | None, *, everything: bool, wait: bool) -> None:
    """Ask the server to end, and wait until it is gone. `everything`: with no server, end what it left behind on the data folder."""
    try:
        asyncio.run(_ask(find_server(url, data_dir), everything=everything, wait=wait))
    except NoServerError:
        # A server at an address that was named is elsewhere; its folder is not ours to sweep.
        if not everything or url is not None:
            raise
        ended = asyncio.run(_sweep(data_dir or default_data_folder()))
        stdout().print(f"No supervisor runs. Processes that it had left behind and that were ended: {ended}.")
    else:
        stdout().print("The server has ended." if wait else "The server was asked to end.")


async def _ask(place: ServerPlace, *, everything: bool, wait: bool) -> None:
    # Before the question: afterwards the process id might be somebody else's.
    identity = Identity.of(place.pid) if place.pid is not None else None
    async with Client(place) as client:
        await client.post("/admin/shutdown", {"all": 1} if everything else None)
        if wait:
            with stderr().status("waiting for running answers and engines to end"):
                await _until_gone(client, identity)


async def _until_gone(client: Client, identity: Identity | None) -> None:
    # Another program's end is no event of ours to wait for.
    while identity.is_alive() if identity is not None else await _answers(client):  # noqa: ASYNC110
        await asyncio.sleep(CHECK_SECONDS)


async def _answers(client: Client) -> bool:
    try:
        await client.get("/admin/instances")
    except NoServerError:
        return False
    return True


async def _sweep(path: Path) -> int:
    """How many processes were ended. DataFolderInUseError while a supervisor has the folder, answering or not."""
    if read_run_id(path) is None:
        return 0
    folder = DataFolder(path)
    folder.open()
    try:
        return await end_leftovers(folder.run_id, keep=())
    finally:
        folder.close()
