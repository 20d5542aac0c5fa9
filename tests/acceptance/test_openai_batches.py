"""The stock `openai` package against files and batches, with the real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types import Batch

from tests.fixtures.door import Door

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
OVER = ("completed", "failed", "expired", "cancelled")
POLL_SECONDS = 0.02
TRIES = 1_000


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


@pytest_asyncio.fixture
async def client(door: Door) -> AsyncIterator[Callable[..., openai.AsyncOpenAI]]:
    """Makes clients of the open door that do not try again."""
    clients: list[openai.AsyncOpenAI] = []

    def make() -> openai.AsyncOpenAI:
        clients.append(openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0))
        return clients[-1]

    yield make
    for each in clients:
        await each.close()


def line(custom_id: str, url: str = "/v1/chat/completions", **body: Any) -> str:
    """One request of an input file."""
    chat = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 8}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {**chat, **body}}) + "\n"


async def over(api: openai.AsyncOpenAI, batch_id: str) -> Batch:
    """The batch, once it is over."""
    for _ in range(TRIES):
        batch = await api.batches.retrieve(batch_id)
        if batch.status in OVER:
            return batch
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError(f"the batch is {batch.status}, with {batch.request_counts}")


async def results(api: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a result file."""
    assert file_id is not None
    return [json.loads(each) for each in (await api.files.content(file_id)).text.splitlines()]


async def test_a_batch_from_upload_to_answers(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"demo": DEMO})
    api = client()
    text = "".join(line(f"line-{number}") for number in range(6))
    text += line("bad", temperature=9) + line("unknown", model="nobody") + line("streams", stream=True)
    uploaded = await api.files.create(file=("requests.jsonl", text.encode()), purpose="batch")
    assert (uploaded.filename, uploaded.purpose, uploaded.bytes) == ("requests.jsonl", "batch", len(text.encode()))
    assert (await api.files.content(uploaded.id)).text == text
    created = await api.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"what": "a test"},
    )
    assert (created.status, created.metadata) == ("validating", {"what": "a test"})
    batch = await over(api, created.id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 9, "completed": 6, "failed": 3}
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.completed_at or 0)
    answers = {each["custom_id"]: each for each in await results(api, batch.output_file_id)}
    assert sorted(answers) == [f"line-{number}" for number in range(6)]
    for each in answers.values():
        assert each["error"] is None
        assert each["response"]["status_code"] == 200
        assert each["response"]["body"]["choices"][0]["message"]["content"]
    failures = {each["custom_id"]: each["response"] for each in await results(api, batch.error_file_id)}
    told = {name: (each["status_code"], each["body"]["error"]["code"]) for name, each in failures.items()}
    bad = (400, "invalid_request")
    assert told == {"bad": bad, "unknown": (404, "model_not_found"), "streams": bad}


async def test_files_are_listed_shown_and_deleted(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"demo": {**DEMO, "autostart": False}}, ready=False)
    api = client()
    made = [await api.files.create(file=(f"{number}.jsonl", b"x"), purpose="batch") for number in range(3)]
    listed = [file.id async for file in api.files.list(limit=2)]
    assert listed == [file.id for file in reversed(made)]
    assert [file.id async for file in api.files.list(order="asc")] == [file.id for file in made]
    assert (await api.files.retrieve(made[0].id)).filename == "0.jsonl"
    assert (await api.files.delete(made[0].id)).deleted
    with pytest.raises(openai.NotFoundError) as gone:
        await api.files.retrieve(made[0].id)
    assert gone.value.code == "file_not_found"
    with pytest.raises(openai.BadRequestError) as purpose:
        await api.files.create(file=("a.jsonl", b"x"), purpose="fine-tune")
    assert purpose.value.param == "purpose"
    assert len([file async for file in api.files.list()]) == 2


async def test_a_file_that_is_none_fails_its_batch(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"demo": {**DEMO, "autostart": False}}, ready=False)
    api = client()
    text = line("a") + "{" + "\n" + line("a") + line("b", url="/v1/embeddings")
    uploaded = await api.files.create(file=("a.jsonl", text.encode()), purpose="batch")
    created = await api.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    batch = await over(api, created.id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.errors is not None
    told = [(fault.line, fault.code) for fault in batch.errors.data or []]
    assert told == [(2, "invalid_json_line"), (3, "duplicate_custom_id"), (4, "mismatched_url")]
    with pytest.raises(openai.ConflictError) as late:
        await api.batches.cancel(batch.id)
    assert late.value.code == "state_conflict"


async def test_a_batch_is_cancelled_and_listed(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"demo": {**DEMO, "autostart": False}}, ready=False)
    api = client()
    text = "".join(line(f"line-{number}") for number in range(5))
    uploaded = await api.files.create(file=("a.jsonl", text.encode()), purpose="batch")
    order: Any = {
        "input_file_id": uploaded.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    first, second = await api.batches.create(**order), await api.batches.create(**order)
    await api.files.delete(uploaded.id)
    assert [batch.id async for batch in api.batches.list(limit=1)] == [second.id, first.id]
    await api.batches.cancel(first.id)
    batch = await over(api, first.id)
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    if batch.request_counts is not None and batch.request_counts.total:
        failures = await results(api, batch.error_file_id)
        assert sorted(each["custom_id"] for each in failures) == [f"line-{number}" for number in range(5)]
    with pytest.raises(openai.NotFoundError):
        await api.batches.create(**order)
