"""The same request costs the same whole, streamed and in a batch; one that its client cuts costs its prompt and what had come."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from supervisor.gateway.accounting.callers import DEFAULT_PROJECT
from supervisor.gateway.calls import CHAT, COMPLETIONS
from supervisor.storage.accounts import Budget, BudgetUnit, Period
from tests.fixtures.door import Door, events

PRICES = {"demo": {"input": "1000", "output": "2000"}}
"""A prompt token costs 1,000 micro-units, a completion token 2,000."""
TEXT = "What is the capital of France ? Tell me a story about ninety-nine naïve 🦙 llamas and their 東京 friends ."
WORDS = TEXT.split(" ")
TRIES = 500


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """The demo model, which has a price."""
    door = Door(tmp_path)
    await door.open(
        {"demo": {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}},
        gateway={"queue_seconds": 30.0},
        sections={"storage": {"write_seconds": 0.01}, "accounting": {"prices": PRICES}},
    )
    yield door
    await door.close()


def requests(count: int, seed: int) -> list[dict[str, Any]]:
    """Requests of all lengths that are answered the same every time."""
    chance = random.Random(seed)
    return [
        {
            "model": "demo",
            "messages": [{"role": "user", "content": " ".join(chance.choices(WORDS, k=chance.randint(1, 60)))}],
            "max_tokens": chance.randint(1, 40),
            "temperature": 0,
            "seed": 1,
            "cache_prompt": chance.random() < 0.5,
        }
        for _ in range(count)
    ]


async def receipt(door: Door, response: aiohttp.ClientResponse) -> dict[str, Any]:
    """What the books say, once it is settled."""
    url = f"{door.url}/v1/requests/{response.headers['x-llamavisor-request-id']}"
    for _ in range(TRIES):
        async with door.session.get(url) as told:
            record: dict[str, Any] = await told.json()
        if record["outcome"] is not None:
            return record
        await asyncio.sleep(0.02)
    raise AssertionError("never settled")


def bill(record: dict[str, Any]) -> tuple[int, int, int]:
    """Prompt, completion and cost, which must be that of the tokens."""
    usage = record["usage"]
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    assert record["cost"]["micros"] == prompt * 1_000 + completion * 2_000
    return prompt, completion, record["cost"]["micros"]


async def asked(door: Door, body: dict[str, Any], path: str = CHAT) -> dict[str, Any]:
    """The receipt of a request that was answered to its end."""
    async with door.post(body, path) as response:
        await response.read()
        assert response.status == 200
        return await receipt(door, response)


async def batch(door: Door, bodies: list[dict[str, Any]]) -> None:
    """Have them answered as lines of a file."""
    lines = [
        {"custom_id": str(number), "method": "POST", "url": CHAT, "body": body} for number, body in enumerate(bodies)
    ]
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", "\n".join(map(json.dumps, lines)), filename="lines.jsonl")
    upload = door.session.post(f"{door.url}/v1/files", data=form, headers={"X-Requested-With": "test"})
    async with upload as response:
        file = await response.json()
        assert response.status == 200, file
    plan = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    _, told, _ = await door.ask(plan, "/v1/batches")
    for _ in range(TRIES):
        async with door.session.get(f"{door.url}/v1/batches/{told['id']}") as response:
            told = await response.json()
        if told["status"] == "completed":
            assert told["request_counts"]["completed"] == len(bodies)
            return
        await asyncio.sleep(0.02)
    raise AssertionError(told)


async def test_the_same_request_costs_the_same_whole_streamed_and_in_a_batch(door: Door) -> None:
    bodies = requests(12, seed=7)
    whole = [bill(await asked(door, body)) for body in bodies]
    assert [bill(await asked(door, {**body, "stream": True})) for body in bodies] == whole
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    assert [bill(await asked(door, {**body, **with_usage})) for body in bodies] == whole
    await batch(door, bodies)
    async with door.session.get(f"{door.url}/admin/requests?limit={len(bodies)}") as response:
        found = (await response.json())["requests"]
    assert {one["batch_id"] is not None for one in found} == {True}
    assert sorted(map(bill, found)) == sorted(whole)


async def test_a_stream_that_its_client_cuts_costs_its_prompt_and_what_had_come(door: Door) -> None:
    for number, body in enumerate(requests(8, seed=9)):
        prompt, _, _ = bill(await asked(door, {**body, "max_tokens": 1}))
        endless = {**body, "stream": True, "max_tokens": 100_000, "ignore_eos": True}
        seen = b""
        async with door.post(endless) as response:
            while seen.count(b'"content":"') < number:
                seen += await response.content.readany()
            response.close()
        record = await receipt(door, response)
        assert record["outcome"] == "client_gone"
        assert record["usage"]["source"] == "counted"
        billed_prompt, completion, _ = bill(record)
        assert billed_prompt == prompt
        assert completion >= seen.count(b'"content":"')


PROMPTS = ["The capital of France", "Once upon", [5, 6, 7], "Goodbye", "Who are"]
SEVERAL = [
    (CHAT, {"messages": [{"role": "user", "content": TEXT}], "n": 2}, 2),
    (COMPLETIONS, {"prompt": "Once upon a time", "n": 2}, 2),
    (COMPLETIONS, {"prompt": PROMPTS}, 1),
    (COMPLETIONS, {"prompt": PROMPTS[:2], "n": 2}, 2),
]


@pytest.mark.parametrize(("path", "several", "choices"), SEVERAL)
async def test_several_answers_cost_what_each_of_them_costs(
    door: Door, path: str, several: dict[str, Any], choices: int
) -> None:
    body = {**several, "max_tokens": 9, "temperature": 0}
    prompt, completion = 0, 0
    for one in several["prompt"] if isinstance(several.get("prompt"), list) else [several.get("prompt")]:
        single = {**body, "n": 1} if one is None else {**body, "n": 1, "prompt": one}
        paid = bill(await asked(door, single, path))
        prompt, completion = prompt + paid[0], completion + paid[1] * choices
    status, answer, headers = await door.ask(body, path)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert answer["choices"] == (await door.at_engine("demo", path, body))["choices"]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
    for fields in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}):
        assert bill(await asked(door, {**body, **fields}, path))[:2] == (prompt, completion)
    assert b"prompt_progress" not in await door.stream({**body, "stream": True}, path)


async def test_several_answers_that_their_client_cuts_cost_what_had_come_of_each(door: Door) -> None:
    body = {"prompt": PROMPTS[:2], "max_tokens": 100_000, "ignore_eos": True, "stream": True}
    seen = b""
    async with door.post(body, COMPLETIONS) as response:
        while not all(f'"index":{index},'.encode() in seen for index in (0, 1)):
            seen += await response.content.readany()
        response.close()
    record = await receipt(door, response)
    prompts = [bill(await asked(door, {"prompt": prompt, "max_tokens": 1}, COMPLETIONS))[0] for prompt in PROMPTS[:2]]
    prompt, completion, _ = bill(record)
    assert (record["usage"]["source"], prompt) == ("counted", sum(prompts))
    assert completion >= sum(1 for told in events(seen[: seen.rfind(b"}\n\n") + 3]) if told["choices"][0]["text"])


async def test_every_prompt_of_a_list_is_held_back(door: Door) -> None:
    budget = Budget(DEFAULT_PROJECT, Period.DAY, BudgetUnit.TOKENS, 700)
    door.house.supervisor.office.bookkeeper.ledger.set_budgets([budget])
    body = {"prompt": ["Once"] * 10}
    status, refusal, _ = await door.ask(body, COMPLETIONS)
    assert (status, refusal["error"]["code"]) == (429, "insufficient_quota")
    status, answer, _ = await door.ask({**body, "max_tokens": 1}, COMPLETIONS)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 10)


async def test_one_prompt_that_cannot_be_served_refuses_the_list_and_costs_nothing(door: Door) -> None:
    # The third waits for one of two slots: by then, the engine has begun its stream.
    body = {"prompt": ["Once", "Once", "word " * 9_000], "max_tokens": 4}
    status, refusal, headers = await door.ask(body, COMPLETIONS)
    assert (status, "context" in refusal["error"]["message"]) == (400, True)
    async with door.session.get(f"{door.url}/v1/requests/{headers['x-llamavisor-request-id']}") as told:
        record = await told.json()
    assert (record["outcome"], bill(record)) == ("refused", (0, 0, 0))
