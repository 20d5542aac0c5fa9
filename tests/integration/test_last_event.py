"""A client that leaves after the last event, before the engine has ended its answer: it was answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fixtures.door import STREAM, Door
from tests.fixtures.nursery import until
from tests.fixtures.raw_engine import HEALTHY, STREAM_HEAD, chunk, door_before

pytestmark = pytest.mark.faults
EVENTS = b"".join(
    b"data: %b\n\n" % payload
    for payload in (
        b'{"choices":[{"delta":{"content":"a"}}]}',
        b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}',
        b"[DONE]",
    )
)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every stream whole, and then nothing more: no end of the body."""
    while line := await reader.readline():
        while await reader.readline() != b"\r\n":
            pass
        if line.startswith(b"GET"):
            writer.write(HEALTHY)
        else:
            writer.write(STREAM_HEAD + chunk(EVENTS))
            await reader.read()
    writer.close()


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """In front of that engine."""
    async with door_before(tmp_path, answer) as door:
        yield door


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
