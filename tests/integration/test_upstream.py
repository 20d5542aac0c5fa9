"""The connections to an engine: kept ones that turn out to be closed, and streams that are never kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from supervisor.gateway.upstream import Upstream
from supervisor.launch import Address, LaunchSpec

PATH = "/v1/completions"


class Engine:
    """A server that notes who asks, on which connection."""

    def __init__(self) -> None:
        self.peers: list[int] = []
        self.connection_headers: list[str | None] = []
        self.hangs_up = False

    async def answer(self, request: web.Request) -> web.Response:
        """Any request."""
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername")[1])
        self.connection_headers.append(request.headers.get("Connection"))
        if self.hangs_up:
            request.transport.abort()
        return web.json_response({"got": await request.text()})


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[tuple[Engine, Upstream]]:
    """A server, and the connections to it."""
    engine = Engine()
    app = web.Application()
    app.router.add_post(PATH, engine.answer)
    async with TestServer(app) as server:
        assert server.port is not None
        spec = LaunchSpec("command", Address(host="127.0.0.1", port=server.port))
        instance: Any = SimpleNamespace(generation=1, name="one")
        upstream = Upstream(instance, spec)
        yield engine, upstream
        await upstream.close()


async def post(upstream: Upstream, *, alone: bool = False) -> bytes:
    """One request to its end."""
    response = await upstream.post(PATH, b"{}", {"Content-Type": "application/json"}, alone=alone)
    assert response.status == 200
    return await response.read()


async def test_whole_answers_share_a_connection_and_streams_never_do(engine: tuple[Engine, Upstream]) -> None:
    server, upstream = engine
    for alone in (False, False, True, False, True):
        await post(upstream, alone=alone)
    assert len(set(server.peers)) == 3
    assert server.peers[0] == server.peers[1] == server.peers[3]
    assert server.connection_headers == [None, None, "close", None, "close"]


async def test_a_kept_connection_found_closed_before_the_first_byte_is_replaced(
    engine: tuple[Engine, Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, upstream = engine
    await post(upstream)
    connector = upstream._kept.connector
    assert connector is not None
    take = connector.connect

    async def take_closed(*arguments: Any, **options: Any) -> Any:
        connection = await take(*arguments, **options)
        assert connection.transport is not None
        connection.transport.close()
        return connection

    monkeypatch.setattr(connector, "connect", take_closed)
    await post(upstream)
    assert len(server.peers) == 2


async def test_a_connection_lost_after_the_first_byte_is_not_replaced(engine: tuple[Engine, Upstream]) -> None:
    server, upstream = engine
    await post(upstream)
    server.hangs_up = True
    with pytest.raises((aiohttp.ClientError, OSError)):
        await post(upstream)
    assert len(server.peers) == 2
