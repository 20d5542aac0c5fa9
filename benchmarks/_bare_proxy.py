"""What a user would write in an afternoon: an aiohttp server that passes POST requests on with `ClientSession`, with the usual tuning and no checks.

    python -m benchmarks._bare_proxy ADDRESS

ADDRESS is that of the engine: `HOST:PORT` or the path of a Unix socket. Prints `{"port", "pid"}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

ENGINE = web.AppKey("engine", str)
BASE_URL = web.AppKey("base_url", str)
SESSION = web.AppKey("session", aiohttp.ClientSession)
PASSED_ON = ("Content-Type",)


async def pass_on(request: web.Request) -> web.StreamResponse:
    """Pass a request on, and its answer back as it comes."""
    body = await request.read()
    headers = {"Content-Type": "application/json"}
    async with request.app[SESSION].post(request.app[BASE_URL] + request.path, data=body, headers=headers) as answer:
        given = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
        if answer.content_type != "text/event-stream":
            return web.Response(status=answer.status, body=await answer.read(), headers=given)
        response = web.StreamResponse(status=answer.status, headers=given)
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        return response


def connector_to(address: str) -> aiohttp.BaseConnector:
    """Connections to the engine, unlimited, kept."""
    return aiohttp.UnixConnector(address, limit=0) if "/" in address else aiohttp.TCPConnector(limit=0)


async def session(app: web.Application) -> AsyncIterator[None]:
    """The one client session."""
    async with aiohttp.ClientSession(
        connector=connector_to(app[ENGINE]),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=2**16,
    ) as opened:
        app[SESSION] = opened
        yield


async def serve(address: str) -> None:
    """Serve until ended."""
    app = web.Application()
    app[ENGINE] = address
    app[BASE_URL] = "http://engine" if "/" in address else f"http://{address}"
    app.cleanup_ctx.append(session)
    app.router.add_post("/v1/{tail:.*}", pass_on)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024).start()
    print(json.dumps({"port": runner.addresses[0][1], "pid": os.getpid()}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
