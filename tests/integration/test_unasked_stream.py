"""An engine that streams to who asked for a whole answer: the client gets all of it or an error, never its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT
from supervisor.gateway.connection import READ_AHEAD_BYTES
from supervisor.storage.records import TokenSource, TokenUsage, UsageRecord
from tests.fixtures.door import HELLO, Door
from tests.fixtures.raw_engine import HEALTHY, LAST_CHUNK, STREAM_HEAD, chunk, door_before

EVENTS = (
    b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"a" * READ_AHEAD_BYTES),
    b'data: {"choices":[{"delta":{"content":"b"}}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n',
    b"data: [DONE]\n\n",
)
WAYS = pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["short way", "long way"])


@pytest_asyncio.fixture
async def door(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    """In front of an engine that sends so many of the events, whatever it is asked."""
    count = getattr(request, "param", len(EVENTS))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            if line.startswith(b"GET"):
                writer.write(HEALTHY)
                continue
            writer.write(STREAM_HEAD)
            for event in EVENTS[:count]:
                writer.write(chunk(event))
                await writer.drain()
                # So that they are read one by one.
                await asyncio.sleep(0.01)
            writer.write(LAST_CHUNK)
            break
        writer.close()

    async with door_before(tmp_path, answer) as door:
        yield door


def listen(door: Door) -> list[UsageRecord]:
    """What will be booked."""
    records: list[UsageRecord] = []
    door.house.supervisor.office.bookkeeper.on_settled.append(records.append)
    return records


@WAYS
async def test_it_gets_every_event(door: Door, headers: dict[str, str]) -> None:
    records = listen(door)
    async with door.session.post(f"{door.url}{CHAT}", json=HELLO, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert await response.read() == b"".join(EVENTS)
    settlement = records[0].settlement
    assert settlement is not None
    assert (settlement.outcome, settlement.usage) == ("ok", TokenUsage(3, 2, 0, TokenSource.ENGINE))


@WAYS
@pytest.mark.parametrize("door", [2], indirect=True, ids=["without its end"])
async def test_what_is_not_whole_is_an_error(door: Door, headers: dict[str, str]) -> None:
    async with door.session.post(f"{door.url}{CHAT}", json=HELLO, headers=headers) as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "incomplete_answer"
    assert door.outcomes("one") == {"cut": 1}


async def test_a_surface_that_reads_the_answer_says_that_it_cannot(door: Door) -> None:
    records = listen(door)
    status, answer, _ = await door.ask({**HELLO, "project_id": "default"})
    assert (status, answer["error"]["code"]) == (502, "incomplete_answer")
    assert [one.settlement and one.settlement.usage.completion_tokens for one in records] == [2]
