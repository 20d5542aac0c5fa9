"""The connections to an engine: kept ones that turn out to be closed, and streams that are never kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from supervisor.gateway import upstream as upstream_module
from supervisor.gateway.connection import Head
from supervisor.gateway.upstream import CannotConnectError, Upstream
from supervisor.launch import Address, LaunchSpec

PATH = "/v1/completions"
JSON = {"Content-Type": "application/json"}
GENEROUS_SECONDS = 20
POLL_SECONDS = 0.01
TRIES = 2_000


class Engine:
    """A server that notes who asks, on which connection."""

    def __init__(self) -> None:
        self.peers: list[int] = []
        self.connection_headers: list[str | None] = []
        self.hangs_up = False
        self.last_transport: asyncio.Transport

    async def answer(self, request: web.Request) -> web.Response:
        """Any request."""
        assert request.transport is not None
        self.last_transport = request.transport
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
        upstream.close()


class Asker:
    """Takes an answer."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_head(self, head: Head) -> None:
        """See `Receiver`."""
        self.status = head.status

    def on_body(self, data: bytes) -> None:
        """See `Receiver`."""
        self.body += data

    def on_end(self) -> None:
        """See `Receiver`."""
        self.over.set_result(None)

    def on_loss(self, error: Exception) -> None:
        """See `Receiver`."""
        self.over.set_exception(error)


async def post(upstream: Upstream, *, alone: bool = False) -> bytes:
    """One request to its end."""
    asker = Asker()
    if upstream.send_at_once(asker, PATH, b"{}", JSON, alone=alone) is None:
        await upstream.send(asker, PATH, b"{}", JSON, alone=alone)
    await asyncio.wait_for(asker.over, GENEROUS_SECONDS)
    assert asker.status == 200
    return asker.body


async def until_none_is_kept(upstream: Upstream) -> None:
    """Wait until no connection waits for a request."""
    for _ in range(TRIES):
        if not upstream.kept_count:
            return
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError("a connection is still kept")


async def test_whole_answers_share_a_connection_and_streams_never_do(engine: tuple[Engine, Upstream]) -> None:
    server, upstream = engine
    for alone in (False, False, True, False, True):
        await post(upstream, alone=alone)
    assert len(set(server.peers)) == 3
    assert server.peers[0] == server.peers[1] == server.peers[3]
    assert server.connection_headers == [None, None, "close", None, "close"]


async def test_a_kept_connection_that_the_engine_closed_is_replaced(engine: tuple[Engine, Upstream]) -> None:
    server, upstream = engine
    await post(upstream)
    server.last_transport.close()
    await until_none_is_kept(upstream)
    await post(upstream)
    assert len(set(server.peers)) == 2


async def test_a_connection_lost_after_the_first_byte_is_not_replaced(engine: tuple[Engine, Upstream]) -> None:
    server, upstream = engine
    await post(upstream)
    server.hangs_up = True
    with pytest.raises(ConnectionError):
        await post(upstream)
    assert len(server.peers) == 2


async def test_an_idle_connection_is_let_go_before_the_engine_closes_it(
    engine: tuple[Engine, Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "KEEP_ALIVE_SECONDS", 0.05)
    _, upstream = engine
    await post(upstream)
    assert upstream.kept_count == 1
    await until_none_is_kept(upstream)


async def test_what_nobody_asked_for_closes_the_connection(engine: tuple[Engine, Upstream]) -> None:
    server, upstream = engine
    await post(upstream)
    server.last_transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nwrong")
    await until_none_is_kept(upstream)
    assert await post(upstream) == b'{"got": "{}"}'


async def test_an_engine_that_takes_no_connection_is_told_apart() -> None:
    nobody: Any = SimpleNamespace(generation=1, name="nobody")
    lost = Upstream(nobody, LaunchSpec("command", Address(host="127.0.0.1", port=1)))
    with pytest.raises(CannotConnectError):
        await post(lost)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil it closes", b"until it closes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", None),
        (b"nonsense\r\n\r\n", None),
        (b"", None),
    ],
)
async def test_answers_of_every_shape(answer: bytes, outcome: bytes | None) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        one: Any = SimpleNamespace(generation=1, name="one")
        upstream = Upstream(one, LaunchSpec("command", Address(host="127.0.0.1", port=port)))
        if outcome is None:
            with pytest.raises(ConnectionError):
                await post(upstream)
        else:
            assert await post(upstream) == outcome
        upstream.close()
