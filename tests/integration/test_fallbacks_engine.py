"""A model that cannot serve, and the one that stands in for it: what the client gets, and what the books say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.process.states import State
from supervisor.storage.records import TokenUsage, UsageRecord
from tests.fixtures.door import HELLO, STREAM, Cut, Door, events
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until

pytestmark = pytest.mark.faults
LATER = {"retry_base_seconds": 30}
WATTS = 1_000.0
ONE = {"max_in_flight": 1}
CHAIN = {"queue_seconds": 0, "fallbacks": {"big": ["small"], "small": ["smallest"]}}
RESENDS = {"fallback_resends": True}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_with(
    door: Door, knobs: Mapping[str, Any], small: Mapping[str, Any] | None = None, gateway: Mapping[str, Any] = RESENDS
) -> None:
    """`big` with those knobs, `small` behind it, and `smallest` behind that one."""
    instances = {
        name: misbehaving(door.house.model, knobs=given, supervision=LATER)
        for name, given in {"big": knobs, "small": small or {}, "smallest": {}}.items()
    }
    await door.open(instances, gateway={**CHAIN, **gateway}, sections={"energy": {"busy_watts": WATTS}})


async def receipt(door: Door, headers: Mapping[str, str]) -> Any:
    """What the books say of an answer."""
    async with door.session.get(f"{door.url}/v1/requests/{headers['x-llamavisor-request-id']}") as response:
        return await response.json()


@pytest.mark.parametrize("long_way", [False, True], ids=["short way", "long way"])
@pytest.mark.parametrize(
    ("knobs", "code"),
    [({"stream_fault": "kill", "fault_after": 0}, "engine_died"), ({"chat_status": 500}, "engine_error")],
    ids=["killed", "500"],
)
async def test_another_model_answers_and_the_books_say_why(
    door: Door, knobs: dict[str, Any], code: str, *, long_way: bool
) -> None:
    await open_with(door, knobs)
    headers = {"Idempotency-Key": "once"} if long_way else {}
    async with door.session.post(
        f"{door.url}/v1/chat/completions", json={**HELLO, "model": "big"}, headers=headers
    ) as response:
        assert response.status == 200, await response.text()
        assert response.headers["x-llamavisor-fallback"] == f"small; {code}"
        told = await receipt(door, response.headers)
    assert told["outcome"] == "ok"
    assert told["endpoint"] == "big"
    assert told["instance"] == "small"
    assert told["route_reason"] == f"fallback: small; {code}"
    assert door.outcomes("small") == {"ok": 1}
    assert sum(door.outcomes("big").values()) == 1


@pytest.mark.parametrize(
    "knobs", [{"stream_fault": "kill", "fault_after": 0}, {"chat_status": 500}], ids=["killed", "500"]
)
async def test_what_an_engine_has_got_is_not_sent_again_unless_it_is_wanted(door: Door, knobs: dict[str, Any]) -> None:
    await open_with(door, knobs, gateway={})
    status, refusal, headers = await door.ask({**HELLO, "model": "big"})
    assert status in (500, 502), refusal
    assert "x-llamavisor-fallback" not in headers
    assert door.outcomes("small") == {}
    await door.house["big"].stop()
    await door.house.reach("big", State.INITIAL)
    status, _, headers = await door.ask({**HELLO, "model": "big"})
    assert status == 200
    assert headers["x-llamavisor-fallback"].startswith("small; ")


async def test_a_stream_that_has_not_begun_is_taken_over_and_one_that_has_is_not(door: Door) -> None:
    await open_with(door, {"stream_fault": "kill", "fault_after": 0})
    assert events(await door.stream({**STREAM, "model": "big"}))[-1] == "[DONE]"
    await door.house.reach("big", State.CRASHED)
    await door.at_engine("small", "/_control", {"stream_fault": "kill", "fault_after": 3})
    with pytest.raises(Cut):
        await door.stream({**STREAM, "model": "small"})
    assert door.outcomes("smallest") == {}


async def test_the_chain_is_followed_to_its_end_and_the_first_reason_is_told(door: Door) -> None:
    fatal = {"stream_fault": "kill", "fault_after": 0}
    await open_with(door, fatal, fatal)
    status, _, headers = await door.ask({**HELLO, "model": "big"})
    assert status == 200
    assert (await receipt(door, headers))["instance"] == "smallest"
    for name in ("big", "small"):
        await door.house.reach(name, State.CRASHED)
    await door.house["smallest"].stop()
    await door.house.reach("smallest", State.INITIAL)
    status, refusal, _ = await door.ask({**HELLO, "model": "big"})
    assert status == 503
    assert "big" in refusal["error"]["message"]
    gateway = door.house.supervisor.gateway
    assert gateway.active == 0


DIES = {"stream_fault": "kill", "fault_after": 0}
FAILS = {"chat_status": 500}
WORKS = {"prefill_seconds": 0.05}


@pytest.mark.parametrize(
    ("big", "small", "status", "code", "outcome"),
    [
        (FAILS, {}, 500, "server_error", "engine_error"),
        (DIES, FAILS, 502, "engine_died", "engine_died"),
    ],
    ids=["500, no place", "killed, 500"],
)
async def test_where_nobody_can_serve_the_first_reason_is_told_and_booked(
    door: Door, big: Any, small: Any, status: int, code: str, outcome: str
) -> None:
    await open_with(door, {**big, **WORKS}, {**small, **WORKS})
    for name in ("smallest",) if small else ("small", "smallest"):
        await door.house[name].stop()
        await door.house.reach(name, State.INITIAL)
    records: list[UsageRecord] = []
    door.house.supervisor.office.bookkeeper.on_settled.append(records.append)
    told, refusal, headers = await door.ask({**HELLO, "model": "big"})
    assert (told, refusal["error"]["code"]) == (status, code), refusal
    assert "x-llamavisor-fallback" not in headers
    settlement = records[0].settlement
    assert settlement is not None
    assert (settlement.outcome, settlement.instance, settlement.route_reason) == (outcome, "big", None)
    worked_seconds = WORKS["prefill_seconds"] * [big, small].count(DIES)
    assert (settlement.energy_millijoules or 0) > WATTS * 1_000 * worked_seconds
    assert door.house.supervisor.gateway.active == 0


async def test_who_leaves_while_a_fallback_is_waited_for_has_left(door: Door) -> None:
    instances = {"big": misbehaving(door.house.model, knobs=FAILS), "small": {**misbehaving(door.house.model), **ONE}}
    await door.open(instances, gateway={"queue_seconds": 60, "fallbacks": {"big": ["small"]}, **RESENDS})
    records: list[UsageRecord] = []
    supervisor = door.house.supervisor
    supervisor.office.bookkeeper.on_settled.append(records.append)
    await door.at_engine("small", "/_control", {"prefill_seconds": 60, "prefill_burns": False})
    holder = asyncio.create_task(door.ask({**HELLO, "model": "small"}))
    await door.until_engine("small", "/_control", lambda seen: seen["requests"] == 1, "the place to be taken")
    client = asyncio.create_task(door.ask({**HELLO, "model": "big"}))
    await until(lambda: supervisor.gateway.admission.waiting, "it to wait for the fallback")
    client.cancel()
    await until(lambda: records, "the record")
    settlement = records[0].settlement
    assert settlement is not None
    assert (settlement.outcome, settlement.instance, settlement.usage) == ("client_gone", "big", TokenUsage())
    holder.cancel()
    await asyncio.wait([client, holder])


async def test_a_request_that_is_wrong_is_wrong_everywhere(door: Door) -> None:
    await open_with(door, {"chat_status": 400})
    status, _, headers = await door.ask({**HELLO, "model": "big"})
    assert status == 400
    assert "x-llamavisor-fallback" not in headers
    assert door.outcomes("small") == {}
