"""The servers of the fan-out benchmark, each in a process of its own.

    python -m benchmarks._fanout_server llamavisor|plain DATA_FOLDER

`llamavisor` is the whole supervisor with its web server; `plain` an aiohttp application with python-socketio as it comes, whose `emit` sends the
same message. Prints `{"port"}`; for each line of standard input, `"memory"` is answered with `{"rss_bytes"}`, `"emit"` sends one status change to
all and is answered with `{"began_ns"}` (CLOCK_MONOTONIC) before it does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import socketio
from aiohttp import web

from benchmarks._processes import raise_descriptor_limit, rss_bytes
from supervisor.config import load_settings
from supervisor.core import Supervisor
from web.server import WebServer

INSTANCE = "one"
BACKLOG = 1_024
TAIL_LINES = 4
Emit = Callable[[dict[str, Any]], Awaitable[None]]


async def open_supervisor(data_folder: Path) -> Supervisor:
    """A supervisor with one instance that is not started."""
    configuration = data_folder / "config.json"
    engine = {"kind": "command", "argv": ["true", "${SOCKET}"], "openai": False}
    configuration.write_text(
        json.dumps({"server": {"port": 0}, "instances": {INSTANCE: {"engine": engine, "autostart": False}}})
    )
    return await Supervisor.open(load_settings(configuration, environ={}), data_folder / "data")


def status(supervisor: Supervisor) -> dict[str, Any]:
    """A status of about one kilobyte, each time another, as after a crash."""
    tail = [secrets.token_hex(32) for _ in range(TAIL_LINES)]
    return {**supervisor.fleet.get(INSTANCE).snapshot().to_wire(), "stderrTail": tail}


async def start_llamavisor(supervisor: Supervisor) -> tuple[int, Emit]:
    """Our own web server; a status goes the way that all statuses go."""
    server = WebServer(supervisor)
    await server.start()

    async def emit(data: dict[str, Any]) -> None:
        supervisor.events.publish("llama_status", data, instance=INSTANCE)

    return server.port, emit


async def start_plain(supervisor: Supervisor) -> tuple[int, Emit]:
    """python-socketio on aiohttp, everything at its default."""
    app = web.Application()
    io = socketio.AsyncServer(async_mode="aiohttp")
    io.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG).start()

    async def emit(data: dict[str, Any]) -> None:
        message = {"type": "llama_status", "data": data, "timestamp": 0, "epoch": supervisor.events.epoch, "seq": 1}
        await io.emit("llamaStatus", message)

    return int(runner.addresses[0][1]), emit


async def obey(supervisor: Supervisor, emit: Emit) -> None:
    """Do what standard input says, until its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if json.loads(line) == "memory":
            gc.collect()
            say({"rss_bytes": rss_bytes(os.getpid())})
        else:
            data = status(supervisor)
            say({"began_ns": time.monotonic_ns()})
            await emit(data)


def say(message: object) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def serve(kind: str, data_folder: Path) -> None:
    """Serve until standard input ends."""
    supervisor = await open_supervisor(data_folder)
    try:
        start = start_llamavisor if kind == "llamavisor" else start_plain
        port, emit = await start(supervisor)
        say({"port": port})
        await obey(supervisor, emit)
    finally:
        await supervisor.close()


if __name__ == "__main__":
    raise_descriptor_limit()
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
