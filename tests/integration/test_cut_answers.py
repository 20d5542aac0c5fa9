"""What an answer costs that never came: its prompt, where it was its client who did not wait; nothing, where the engine failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.gateway.calls import MESSAGES
from supervisor.storage.records import TokenSource, TokenUsage, UsageRecord
from tests.fixtures.door import HELLO, STREAM, Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.raw_engine import HEALTHY, STREAM_HEAD, chunk, door_before

SILENT = {"prefill_seconds": 60, "prefill_burns": False}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_with(door: Door, **knobs: Any) -> list[UsageRecord]:
    """One engine; what will be booked."""
    await door.open({"one": misbehaving(door.house.model, knobs=knobs, supervision={"retry_base_seconds": 30})})
    records: list[UsageRecord] = []
    door.house.supervisor.office.bookkeeper.on_settled.append(records.append)
    return records


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
async def test_who_leaves_before_the_first_word_pays_the_prompt_as_it_was_estimated(door: Door, body: Any) -> None:
    records = await open_with(door, **SILENT)

    async def ask() -> None:
        async with door.post(body) as response:
            await response.read()

    client = asyncio.create_task(ask())
    await door.until_engine("one", "/_control", lambda seen: seen["requests"] == 1, "the request to be there")
    client.cancel()
    await asyncio.wait([client])
    await until(lambda: records, "the record")
    settlement = records[0].settlement
    assert settlement is not None
    assert (settlement.outcome, settlement.usage.source) == ("client_gone", TokenSource.COUNTED)
    assert settlement.usage.prompt_tokens > settlement.usage.completion_tokens == 0


async def a_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Of every stream the beginning, as Anthropic's events tell it."""
    usage = b'"usage":{"input_tokens":15,"cache_read_input_tokens":3,"output_tokens":0}'
    while line := await reader.readline():
        while await reader.readline() != b"\r\n":
            pass
        if line.startswith(b"GET"):
            writer.write(HEALTHY)
            continue
        writer.write(STREAM_HEAD + chunk(b'data: {"type":"message_start","message":{%b}}\n\n' % usage))
        writer.write(chunk(b'data: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'))
        await reader.read()
    writer.close()


async def test_a_prompt_of_which_the_engine_has_told_is_not_estimated(tmp_path: Path) -> None:
    async with door_before(tmp_path, a_message) as door:
        records: list[UsageRecord] = []
        door.house.supervisor.office.bookkeeper.on_settled.append(records.append)
        async with door.post({**STREAM, "max_tokens": 9}, MESSAGES) as response:
            while b"content_block_delta" not in await response.content.readany():
                pass
            response.close()
        await until(lambda: records, "the record")
    settlement = records[0].settlement
    assert settlement is not None
    assert (settlement.outcome, settlement.usage) == ("client_gone", TokenUsage(18, 1, 3, TokenSource.COUNTED))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("knobs", "outcome"),
    [
        ({"chat_status": 400}, "refused"),
        ({"chat_status": 500}, "engine_error"),
        ({"stream_fault": "kill", "fault_after": 0}, "engine_died"),
    ],
    ids=["400", "500", "killed"],
)
async def test_what_the_engine_did_not_do_costs_nothing(door: Door, knobs: dict[str, Any], outcome: str) -> None:
    records = await open_with(door, **knobs)
    status, answer, _ = await door.ask(HELLO)
    assert status >= 400
    settlement = records[0].settlement
    assert settlement is not None
    assert (settlement.outcome, settlement.usage) == (outcome, TokenUsage())
    assert settlement.error_code == answer["error"]["code"]


async def test_how_far_a_stream_is_is_noted_from_its_first_word_on(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a SIGKILL of the supervisor leaves of it: more than half of what came, in few lines of the journal."""
    records = await open_with(door, stream_text="abcde" * 600)
    journal = door.house.supervisor.office.bookkeeper.journal
    noted: list[TokenUsage] = []
    note = journal.note

    def seen(request_id: str, usage: TokenUsage) -> None:
        note(request_id, usage)
        noted.append(usage)

    monkeypatch.setattr(journal, "note", seen)
    await door.stream(STREAM)
    counts = [usage.completion_tokens for usage in noted]
    assert counts == sorted(counts)
    assert counts[-1] > 600 - 256
    assert len(noted) <= 9 + 600 // 256
    assert all(usage.prompt_tokens and usage.source is TokenSource.COUNTED for usage in noted)
    settlement = records[0].settlement
    assert settlement is not None
    assert settlement.usage.completion_tokens == 600


async def test_a_short_stream_that_is_not_settled_costs_what_came(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    await open_with(door, stream_fault="stall", fault_after=11, token_count=20)
    journal = door.house.supervisor.office.bookkeeper.journal
    noted: list[TokenUsage] = []
    monkeypatch.setattr(journal, "note", lambda _, usage: noted.append(usage))
    async with door.post(STREAM) as response:
        received = bytearray()
        while b"token10 " not in received:
            received += await response.content.readany()
        assert 11 / 2 < noted[-1].completion_tokens <= 11
        assert len(noted) <= 4
