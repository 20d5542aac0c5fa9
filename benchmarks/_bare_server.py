"""The least that a server like ours is made of: aiohttp and python-socketio in one process, nothing else. Prints `{"port", "pid"}`."""

from __future__ import annotations

import asyncio
import json
import os

import socketio
from aiohttp import web


async def serve() -> None:
    """Serve until ended."""
    app = web.Application()
    socketio.AsyncServer(async_mode="aiohttp").attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"port": runner.addresses[0][1], "pid": os.getpid()}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
