"""A client that leaves after the last event, before the engine has ended its answer: it was answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fixtures.door import STREAM, Door
from tests.fixtures.nursery import until

pytestmark = pytest.mark.faults
EVENTS = b"".join(
    b"data: %b\n\n" % payload
    for payload in (
        b'{"choices":[{"delta":{"content":"a"}}]}',
        b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}',
        b"[DONE]",
    )
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every stream whole, and then nothing more: no end of the body."""
    while line := await reader.readline():
        while await reader.readline() != b"\r\n":
            pass
        if line.startswith(b"GET"):
            writer.write(HEALTHY)
        else:
            writer.write(HEAD + b"%x\r\n%b\r\n" % (len(EVENTS), EVENTS))
            await reader.read()
    writer.close()


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """In front of that engine."""
    door = Door(tmp_path)
    engine = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{engine.sockets[0].getsockname()[1]}"
    await door.open({"one": {"url": url, "engine": {"kind": "command"}}})
    yield door
    await door.close()
    engine.close()


async def test_who_leaves_after_the_last_event_was_answered(door: Door) -> None:
    async with door.post(STREAM) as response:
        while b"[DONE]" not in await response.content.readany():
            pass
        receipt = response.headers["x-llamavisor-request-id"]
        response.close()
    await until(lambda: door.outcomes("one"), "the outcome")
    assert door.outcomes("one") == {"ok": 1}
    async with door.session.get(f"{door.url}/v1/requests/{receipt}") as told:
        record = await told.json()
    assert (record["outcome"], record["usage"]["prompt_tokens"], record["usage"]["source"]) == ("ok", 3, "engine")
