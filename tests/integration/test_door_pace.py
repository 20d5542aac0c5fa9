"""A client that does not read: nothing more is taken for it from an engine than fits into the buffers (row 42)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT
from tests.fixtures.door import HELLO, STREAM, Door
from tests.fixtures.nursery import GENEROUS_SECONDS, until
from tests.fixtures.raw_engine import HEALTHY, LAST_CHUNK, STREAM_HEAD, chunk, door_before

pytestmark = pytest.mark.faults
# More than the kernel keeps for a connection.
LARGE = b"a" * 7_500_000
EVENT = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Engine:
    """Its whole answers are large; a stream begins with a large event, and goes on when `goes_on` says so."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get"):
                    writer.write(HEALTHY)
                elif b'"stream"' in await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0])):
                    writer.write(STREAM_HEAD + chunk(EVENT % LARGE))
                    await self.goes_on.wait()
                    writer.write(chunk(EVENT % b"b") + chunk(DONE) + LAST_CHUNK)
                else:
                    writer.write(WHOLE_HEAD % (len(LARGE) + 2) + b"[%b]" % LARGE)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest_asyncio.fixture
async def engine() -> Engine:
    """A fresh one."""
    return Engine()


@pytest_asyncio.fixture
async def door(tmp_path: Path, engine: Engine) -> AsyncIterator[Door]:
    """In front of that engine."""
    async with door_before(tmp_path, engine.serve) as door:
        yield door
        engine.goes_on.set()


@pytest_asyncio.fixture
async def client(door: Door) -> AsyncIterator[socket.socket]:
    """It reads when it is told to."""
    with socket.create_connection(("127.0.0.1", door.web.port)) as client:
        client.setblocking(False)
        yield client


def request(door: Door, body: Any) -> bytes:
    """A request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{door.web.port}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def everything(client: socket.socket) -> bytes:
    """All that comes until the end of a stream."""
    received = bytearray()
    async with asyncio.timeout(GENEROUS_SECONDS):
        while not received.endswith(LAST_CHUNK):
            received += await asyncio.get_running_loop().sock_recv(client, 1_000_000)
    return bytes(received)


async def test_the_next_request_waits_until_the_answer_before_it_is_read(
    door: Door, engine: Engine, client: socket.socket
) -> None:
    engine.goes_on.set()
    await asyncio.get_running_loop().sock_sendall(client, request(door, HELLO) + request(door, STREAM))
    await until(lambda: door.outcomes("one") == {"ok": 1}, "the first answer")
    shared = door.web._door
    assert shared is not None
    (connection,) = shared.connections
    assert connection._task is None
    assert not connection.is_idle
    assert (await everything(client)).count(LARGE) == 2
    assert door.outcomes("one") == {"ok": 2}


async def test_a_stream_whose_first_event_is_large_waits_for_its_client(
    door: Door, engine: Engine, client: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, request(door, STREAM))
    begun = await loop.sock_recv(client, 1)
    (exchange,) = door.house.supervisor.gateway._exchanges
    assert exchange.listening_since is None, "more is taken from the engine"
    engine.goes_on.set()
    assert (begun + await everything(client)).count(LARGE) == 1
    assert door.outcomes("one") == {"ok": 1}
