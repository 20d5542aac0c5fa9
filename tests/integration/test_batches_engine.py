"""Batch work before the real engine: lists of prompts, drains, crashes, keys of requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from supervisor.gateway.accounting.callers import ANYONE
from supervisor.gateway.batch.batches import Batches
from supervisor.gateway.batch.objects import Batch, Order
from supervisor.gateway.calls import CHAT
from supervisor.process.states import State
from tests.fixtures.door import HELLO, STREAM, Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
HELD = {"prefill_seconds": 60, "prefill_burns": False, "parallel": 8}
KEYED = {"Idempotency-Key": "one-of-a-kind"}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


def batches_of(door: Door) -> Batches:
    """Its batch work."""
    return door.house.supervisor.batches


async def batch_of(door: Door, count: int) -> Batch:
    """A new batch of so many requests."""
    line: dict[str, Any] = {"method": "POST", "url": CHAT, "body": {**HELLO, "max_tokens": 4}}
    text = "".join(json.dumps({**line, "custom_id": str(number)}) + "\n" for number in range(count))
    async with batches_of(door).files.upload(ANYONE.project) as upload:
        await upload.write(text.encode())
        file = await upload.finish("a.jsonl", "batch")
    return await batches_of(door).create(Order(CHAT, file.id), ANYONE)


def now(door: Door, batch: Batch) -> Batch:
    """The batch as it is now."""
    return batches_of(door).get(batch.id, batch.project)


async def over(door: Door, batch: Batch) -> Batch:
    """The batch, once it is over."""
    await until(lambda: now(door, batch).is_over, "the end of the batch")
    return now(door, batch)


def results(door: Door, file_id: str | None) -> dict[str, Any]:
    """The results in a file, by their request's name; each is there once."""
    assert file_id is not None
    files = batches_of(door).files
    lines = [json.loads(raw) for raw in files.path_of(files.get(file_id, ANYONE.project)).read_bytes().splitlines()]
    named = {line["custom_id"]: line for line in lines}
    assert len(named) == len(lines)
    return named


# Lists of prompts


async def test_a_list_of_prompts_in_their_order_with_their_ids(door: Door) -> None:
    await door.open({"demo": DEMO})
    prompts = [{"prompt": f"Count to {number}.", "id": f"id-{number}"} for number in range(5)] + [{"prompt": "Hello"}]
    status, told, _ = await door.ask({"prompts": prompts, "model": "demo", "project_id": "default"}, "/v1/batch")
    assert status == 200
    assert [result["id"] for result in told["results"]] == [*(f"id-{number}" for number in range(5)), "6"]
    assert [result["prompt"] for result in told["results"]] == [prompt["prompt"] for prompt in prompts]
    assert (told["total"], told["completed"], told["failed"]) == (6, 6, 0)
    for result in told["results"]:
        assert result["content"]
        usage = result["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
        assert (result["status"], result["cost"]) == ("completed", None)
    assert told["total_tokens"] == sum(result["usage"]["total_tokens"] for result in told["results"])
    assert told["total_cost"] is None


async def test_a_prompt_that_fails_does_not_fail_the_others(door: Door) -> None:
    await door.open({"demo": DEMO})
    prompts = [{"prompt": "Hello"}, {"prompt": "word " * 5_000}]
    status, told, _ = await door.ask({"prompts": prompts}, "/v1/batch")
    assert (status, told["completed"], told["failed"]) == (200, 1, 1)
    assert "context" in told["results"][1]["error"]
    assert told["results"][1]["error_code"] == "exceed_context_size_error"


async def test_a_prompt_for_an_unknown_model_fails_alone_and_is_told_the_nearest(door: Door) -> None:
    await door.open({"demo": DEMO})
    prompts = [{"prompt": "Hello", "model": "demi"}, {"prompt": "Hello"}, {"prompt": "Hello", "model": "demo"}]
    for model, expected in ((None, ["failed", "completed", "completed"]), ("demi", ["failed", "failed", "completed"])):
        status, told, _ = await door.ask({"prompts": prompts, "model": model}, "/v1/batch")
        assert (status, [result["status"] for result in told["results"]]) == (200, expected)
        for result in told["results"]:
            if result["status"] == "failed":
                assert result["error_code"] == "model_not_found"
                assert "Did you mean `demo`?" in result["error"]
    status, told, _ = await door.ask({"prompts": prompts[:1]}, "/v1/batch")
    assert (status, told["failed"], told["total_cost"]) == (200, 1, 0)


async def test_prompts_go_where_the_router_says(door: Door) -> None:
    await door.open({"demo": DEMO}, sections={"routing": {"tiers": {"opus": "demo"}}})
    for model in ("opus", "large", "auto", ""):
        status, told, _ = await door.ask({"prompts": [{"prompt": "Hello"}], "model": model}, "/v1/batch")
        assert (status, told["completed"]) == (200, 1), (model, told)


async def test_prompts_that_are_late_have_failed(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs=HELD)})
    status, told, _ = await door.ask({"prompts": [{"prompt": "a"}] * 6, "timeout": 1}, "/v1/batch")
    assert (status, told["failed"]) == (200, 6)
    assert {result["error"] for result in told["results"]} == {"It was not answered within 1 s."}
    assert {result["error_code"] for result in told["results"]} == {"answer_deadline"}
    assert door.house.supervisor.gateway.active == 0
    assert door.outcomes("one") == {"timeout": 4}
    sent = [result["request_id"] for result in told["results"] if "request_id" in result]
    assert len(sent) == 4
    async with door.session.get(f"{door.url}/v1/requests/{sent[0]}") as response:
        receipt = await response.json()
    assert (receipt["outcome"], receipt["error_code"]) == ("timeout", "answer_deadline")


async def test_prompts_wait_for_the_limits_of_their_key(door: Door) -> None:
    await door.open(
        {"one": misbehaving(door.house.model)}, sections={"accounting": {"limits": {"project": {"concurrency": 1}}}}
    )
    prompts = {"prompts": [{"prompt": "a"}] * 2, "max_tokens": 3}
    status, told, _ = await door.ask(prompts, "/v1/batch")
    assert (status, told["completed"]) == (200, 2), told
    seen = (await door.at_engine("one", "/_control"))["last_request"]
    assert seen["body"]["max_tokens"] == 3


async def test_who_leaves_cancels_what_is_left(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs=HELD)})
    gateway = door.house.supervisor.gateway
    request = asyncio.create_task(door.ask({"prompts": [{"prompt": "a"}] * 9}, "/v1/batch"))
    await until(lambda: gateway.active == 4, "as many requests as batch work may")
    request.cancel()
    await until(lambda: gateway.active == 0, "all of them to be cancelled")
    assert door.outcomes("one") == {"client_gone": 4}
    assert batches_of(door).turns.own == 0


# Batches


async def test_row_61_a_batch_rests_while_the_server_drains_and_goes_on_after_the_next_start(
    door: Door, tmp_path: Path
) -> None:
    slow = {"token_interval_seconds": 0.01, "token_count": 5}
    first = Door(tmp_path)
    await first.open({"one": misbehaving(first.house.model, knobs=slow)})
    batch = await batch_of(first, 40)
    await until(lambda: now(first, batch).completed >= 4, "some results")
    first.house.supervisor.request_shutdown()
    drained = await first.house.supervisor.drain()
    await first.close()
    rested = now(first, batch)
    assert drained
    assert (rested.status, rested.failed) == ("in_progress", 0)
    assert 4 <= rested.completed < 40
    await door.open({"one": misbehaving(door.house.model, knobs=slow)})
    done = await over(door, batch)
    assert (done.status, done.completed, done.failed) == ("completed", 40, 0)
    assert results(door, done.output_file_id).keys() == {str(number) for number in range(40)}
    assert door.outcomes("one")["ok"] == 40 - rested.completed


async def test_row_61_a_shutdown_in_a_hurry_is_no_result_of_a_line(door: Door, tmp_path: Path) -> None:
    first = Door(tmp_path)
    await first.open({"one": misbehaving(first.house.model, knobs=HELD)})
    batch = await batch_of(first, 6)
    await until(lambda: first.house.supervisor.gateway.active == 4, "lines to be on their way")
    await first.close()
    await door.open({"one": misbehaving(door.house.model)})
    done = await over(door, batch)
    assert (done.status, done.completed, done.failed) == ("completed", 6, 0)


async def test_a_batch_waits_for_an_engine_that_comes_back(door: Door) -> None:
    await door.open({"demo": DEMO})
    os.kill(door.house["demo"].pids()[0], signal.SIGKILL)
    await door.house.reach("demo", State.CRASHED)
    done = await over(door, await batch_of(door, 6))
    assert (done.status, done.completed, done.failed) == ("completed", 6, 0)


async def test_a_model_that_is_busy_is_in_no_others_way(door: Door) -> None:
    await door.open({"held": misbehaving(door.house.model, knobs=HELD), "one": misbehaving(door.house.model)})
    batch = await batch_of(door, 8)
    await until(lambda: door.house.supervisor.gateway.active == 4, "as many lines as batch work may")
    status, told, _ = await door.ask({"prompts": [{"prompt": "a"}], "model": "one", "timeout": 30}, "/v1/batch")
    assert (status, told["completed"]) == (200, 1)
    await batches_of(door).cancel(batch.id, batch.project)
    await over(door, batch)
    assert door.outcomes("held") == {"cancelled": 4}


async def test_clients_come_before_batches(door: Door) -> None:
    slow = {"prefill_seconds": 0.1, "prefill_burns": False}
    one = {**misbehaving(door.house.model, knobs=slow), "max_in_flight": 1}
    await door.open({"one": one}, gateway={"queue_seconds": 60.0})
    admission = door.house.supervisor.gateway.admission
    batch = await batch_of(door, 60)
    await until(lambda: door.house.supervisor.gateway.active == 1, "a line to have the only place")
    client = asyncio.create_task(door.ask(HELLO))
    await until(lambda: admission.waiting_for("one") == 1, "the client to wait")
    before = now(door, batch).completed
    assert (await client)[0] == 200
    # The line that had the place, and the one that came after the client.
    assert now(door, batch).completed <= before + 2
    await batches_of(door).cancel(batch.id, batch.project)
    done = await over(door, batch)
    assert (done.status, done.completed + done.failed) == ("cancelled", 60)
    told = results(door, done.error_file_id)
    assert {line["error"]["code"] for line in told.values()} == {"batch_cancelled"}


# Keys of requests


async def keyed(door: Door, body: object, **headers: str) -> tuple[int, bytes, Any]:
    """A chat with a key."""
    async with door.session.post(f"{door.url}{CHAT}", json=body, headers={**KEYED, **headers}) as response:
        return response.status, await response.read(), response.headers


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
async def test_a_request_sent_again_with_its_key_is_answered_once(door: Door, body: dict[str, Any]) -> None:
    await door.open({"demo": DEMO})
    status, first, headers = await keyed(door, body)
    assert status == 200
    assert "idempotent-replayed" not in headers
    status, again, told = await keyed(door, body)
    assert (status, again) == (200, first)
    assert told["idempotent-replayed"] == "true"
    assert told["Content-Type"] == headers["Content-Type"]
    assert told["X-Request-Id"] != headers["X-Request-Id"]
    assert told["X-Llamavisor-Request-Id"] == headers["X-Llamavisor-Request-Id"]
    assert door.outcomes("demo") == {"ok": 1}
    status, other, _ = await keyed(door, {**body, "max_tokens": 3})
    assert (status, json.loads(other)["error"]["code"]) == (422, "idempotency_key_reused")


async def test_a_flat_request_sent_again_with_its_key_is_answered_once(door: Door) -> None:
    await door.open({"demo": DEMO})
    flat = {**HELLO, "project_id": "default"}
    status, first, headers = await keyed(door, flat)
    assert (status, "idempotent-replayed" in headers) == (200, False)
    status, again, headers = await keyed(door, flat)
    assert (status, again, headers["idempotent-replayed"]) == (200, first, "true")
    assert door.outcomes("demo") == {"ok": 1}


async def test_the_dialect_is_part_of_the_request(door: Door) -> None:
    await door.open({"demo": DEMO})
    assert (await keyed(door, HELLO))[0] == 200
    status, other, _ = await keyed(door, HELLO, **{"X-Llamavisor-Dialect": "flat"})
    assert (status, json.loads(other)["error"]["code"]) == (422, "idempotency_key_reused")


async def post_keyed(door: Door, path: str, **body: Any) -> tuple[int, bytes, bool]:
    """A request with the key: its status, its answer, and whether that is the one before."""
    async with door.session.post(f"{door.url}{path}", headers=KEYED, **body) as response:
        return response.status, await response.read(), "idempotent-replayed" in response.headers


async def uploaded(door: Door, text: str) -> tuple[int, bytes, bool]:
    """A file sent with the key, in a form whose boundary is never the same."""
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", text.encode(), filename="a.jsonl")
    door.session.headers["X-Requested-With"] = "test"
    return await post_keyed(door, "/v1/files", data=form)


async def test_files_batches_lists_and_tokens_are_made_once(door: Door) -> None:
    await door.open({"demo": DEMO})
    line = json.dumps({"custom_id": "1", "method": "POST", "url": CHAT, "body": HELLO})
    file = await uploaded(door, line)
    assert (file[0], await uploaded(door, line)) == (200, (200, file[1], True))
    assert (await uploaded(door, line + "\n"))[0] == 422
    order = {"input_file_id": json.loads(file[1])["id"], "endpoint": CHAT, "completion_window": "24h"}
    for path, body, other in (
        ("/v1/batches", order, {**order, "metadata": {}}),
        ("/v1/batch", {"prompts": [{"prompt": "Hello"}]}, {"prompts": [{"prompt": "Bye"}]}),
        ("/v1/tokenize", {"text": "Hello"}, {"text": "Bye"}),
    ):
        status, first, was_before = await post_keyed(door, path, json=body)
        assert (status, was_before) == (200, False), first
        assert await post_keyed(door, path, json=body) == (200, first, True)
        assert (await post_keyed(door, path, json=other))[0] == 422
    assert len(batches_of(door).files.all_of(ANYONE.project)) == 1
    (batch,) = batches_of(door).all_of(ANYONE.project)
    await over(door, batch)


async def test_a_key_in_flight_is_a_conflict_and_free_when_its_client_left(door: Door) -> None:
    slow = misbehaving(door.house.model, knobs={"token_interval_seconds": 0.05, "token_count": 10_000})
    await door.open({"one": slow})
    first = asyncio.create_task(keyed(door, STREAM))
    await until(lambda: door.house.supervisor.gateway.active == 1, "the first to be on its way")
    status, told, headers = await keyed(door, STREAM)
    assert (status, json.loads(told)["error"]["code"]) == (409, "idempotency_in_flight")
    assert headers["Retry-After"] == "1"
    first.cancel()
    await until(lambda: door.outcomes("one") == {"client_gone": 1}, "the first to be gone")
    second = asyncio.create_task(keyed(door, STREAM))
    await until(lambda: door.house.supervisor.gateway.active == 1, "the second to be on its way")
    second.cancel()
    await until(lambda: door.outcomes("one") == {"client_gone": 2}, "the second to be gone")


async def test_a_stream_that_was_cut_is_not_replayed(door: Door) -> None:
    figures = {"retry_base_seconds": 30}
    late = misbehaving(door.house.model, knobs={"stream_fault": "kill"}, supervision=figures)
    await door.open({"late": late})
    with pytest.raises(aiohttp.ClientPayloadError):
        await keyed(door, STREAM)
    status, _, headers = await keyed(door, STREAM)
    assert status == 503
    assert "idempotent-replayed" not in headers
