"""Requests on their way are seen, and ended by who may do so: at the client, at the engine and in the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT, COMPLETIONS
from tests.fixtures.door import HELLO, STREAM, Cut, Door, events
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import GENEROUS_SECONDS
from tests.fixtures.slow_model import write_slow_llama
from web.waiting import PROGRESS_HEADER

ADMIN = "admin-key-of-the-server"
PATIENT = {"queue_seconds": 60.0, "comment_seconds": 0.1}
SHORT: Mapping[str, str] = {}
LONG = {PROGRESS_HEADER: "1"}
"""What the door does not do itself, aiohttp does."""
ENDLESS = {"prompt": "a", "max_tokens": 500, "stream": True, "ignore_eos": True}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_with(door: Door, instances: Mapping[str, Any], *, ready: bool = True) -> None:
    """A server with a key of its own, whose books are written at once."""
    storage = {"storage": {"write_seconds": 0.01}}
    await door.open(instances, ready=ready, gateway=PATIENT, sections=storage, api_key=ADMIN)
    door.session.headers["Authorization"] = f"Bearer {ADMIN}"


async def call(door: Door, method: str, path: str, body: object = None, key: str = ADMIN) -> tuple[int, Any]:
    """One request to the administration; its status and JSON."""
    headers = {"Authorization": f"Bearer {key}"}
    async with door.session.request(method, f"{door.url}{path}", json=body, headers=headers) as response:
        return response.status, await response.json()


async def in_flight(door: Door, key: str = ADMIN) -> list[dict[str, Any]]:
    """What the key sees of them."""
    return list((await call(door, "GET", "/v1/requests/in-flight", key=key))[1]["requests"])


async def seen(door: Door, stage: str, **facts: Any) -> dict[str, Any]:
    """The one request on its way, once it is at that stage, and its `facts` are so."""
    deadline = time.monotonic() + GENEROUS_SECONDS
    while time.monotonic() < deadline:
        for one in await in_flight(door):
            if one["stage"] == stage and facts.items() <= one.items():
                return one
        await asyncio.sleep(0.02)
    raise AssertionError(f"none is {stage} {facts}; there are {await in_flight(door)}")


async def streamed(door: Door, body: object, path: str, headers: Mapping[str, str]) -> list[Any]:
    """The events of a stream that does not end well, as far as they came; comments and names left out."""
    received = bytearray()
    async with door.session.post(f"{door.url}{path}", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        with pytest.raises(Cut) as cut:
            await door.rest(response, received)
    return events(b"\n\n".join(part for part in cut.value.body.split(b"\n\n") if part.startswith(b"data:")))


async def booked(door: Door, identity: str) -> dict[str, Any]:
    """The receipt of a request that has ended."""
    status, receipt = await call(door, "GET", f"/v1/requests/{identity}")
    assert status == 200, receipt
    return dict(receipt)


@pytest.mark.parametrize("headers", [SHORT, LONG], ids=["short", "long"])
async def test_a_stream_is_seen_and_cancelled(door: Door, tmp_path: Path, headers: Mapping[str, str]) -> None:
    engine = {"kind": "embedded", "parallel": 1, "ctx_size": 512, "threads": 1}
    await open_with(door, {"slow": {"engine": engine, "model": str(write_slow_llama(tmp_path / "slow.gguf"))}})
    client = asyncio.create_task(streamed(door, ENDLESS, COMPLETIONS, headers))
    one = await seen(door, "streaming", endpoint="slow", instance="slow", project="default", stream=True)
    while not one["completion_tokens"]:
        one = await seen(door, "streaming")
    assert one["seconds"] > 0
    assert await call(door, "DELETE", f"/v1/requests/in-flight/{one['id']}") == (
        200,
        {"id": one["id"], "cancelled": True},
    )
    assert (await client)[-1]["error"]["code"] == "cancelled"
    await door.until_engine("slow", "/slots", lambda slots: not slots[0]["is_processing"], "the slot to be free")
    receipt = await booked(door, one["id"])
    assert (receipt["outcome"], receipt["error_code"]) == ("cancelled", "cancelled")
    assert receipt["usage"]["completion_tokens"] >= one["completion_tokens"]
    assert await in_flight(door) == []
    assert (await call(door, "DELETE", f"/v1/requests/in-flight/{one['id']}"))[0] == 404
    assert door.outcomes("slow") == {"cancelled": 1}


@pytest.mark.parametrize("headers", [SHORT, LONG], ids=["short", "long"])
async def test_a_whole_answer_is_cancelled(door: Door, headers: Mapping[str, str]) -> None:
    await open_with(door, {"one": misbehaving(door.house.model, knobs={"token_interval_seconds": 60})})
    client = asyncio.create_task(refused(door, HELLO, headers))
    one = await seen(door, "sent", instance="one", surface="chat", stream=False, waiting=None)
    await call(door, "DELETE", f"/v1/requests/in-flight/{one['id']}")
    status, error, told = await client
    assert (status, error["code"], told["x-should-retry"]) == (409, "cancelled", "false")
    assert (await booked(door, one["id"]))["outcome"] == "cancelled"


async def refused(door: Door, body: object, headers: Mapping[str, str] = SHORT) -> tuple[int, Any, Mapping[str, str]]:
    """A chat to its end: status, error, headers."""
    async with door.session.post(f"{door.url}{CHAT}", json=body, headers=headers) as response:
        return response.status, (await response.json())["error"], response.headers


async def test_who_waits_for_a_model_is_seen_and_cancelled(door: Door) -> None:
    await open_with(door, {"one": misbehaving(door.house.model, knobs={"load_seconds": 300})}, ready=False)
    whole = asyncio.create_task(refused(door, HELLO))
    first = await seen(door, "waiting", stream=False, instance=None)
    assert (first["waiting"]["position"], first["waiting"]["state"]) == (1, "starting")
    stream = asyncio.create_task(streamed(door, STREAM, CHAT, LONG))
    second = await seen(door, "waiting", stream=True)
    for one in (first, second):
        assert (await call(door, "DELETE", f"/v1/requests/in-flight/{one['id']}"))[0] == 200
    status, error, _ = await whole
    assert (status, error["code"]) == (409, "cancelled")
    assert (await stream)[-1]["error"]["code"] == "cancelled"
    assert await in_flight(door) == []
    assert door.house.supervisor.gateway.active == 0
    for one in (first, second):
        receipt = await booked(door, one["id"])
        assert (receipt["outcome"], receipt["usage"]["total_tokens"]) == ("cancelled", 0)


async def test_a_key_sees_its_project_and_cancels_its_own(door: Door) -> None:
    await open_with(door, {"one": misbehaving(door.house.model, knobs={"token_interval_seconds": 60})})
    await call(door, "POST", "/admin/projects", {"name": "other"})
    owner, mate, stranger, reader = [
        (await call(door, "POST", "/admin/keys", {"label": label, "project": project, "scopes": [scope]}))[1]["key"]
        for label, project, scope in (
            ("owner", "default", "inference"), ("mate", "default", "inference"), ("stranger", "other", "inference"),
            ("reader", "other", "read"),
        )
    ]  # fmt: skip
    client = asyncio.create_task(refused(door, HELLO, {"Authorization": f"Bearer {owner}"}))
    one = await seen(door, "sent", key_label="owner")
    assert [len(await in_flight(door, key)) for key in (owner, mate, stranger, reader)] == [1, 1, 0, 1]
    path = f"/v1/requests/in-flight/{one['id']}"
    refusals = [(await call(door, "DELETE", path, key=key))[0] for key in (mate, stranger, reader)]
    assert refusals == [403, 404, 403]
    assert (await call(door, "DELETE", path, key=owner))[0] == 200
    assert (await client)[0] == 409
