"""Fault rows 13, 14, 17, 18, 29, 30: a process that is there and does not serve; each with the slow but healthy twin that is left alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from supervisor.clock import SystemClock
from supervisor.process.states import State
from tests.fixtures.house import House, misbehaving
from tests.fixtures.nursery import GENEROUS_SECONDS, until

pytestmark = pytest.mark.faults

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 400, "stream": True}


@asynccontextmanager
async def talking_to(house: House) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the instance's own socket."""
    address = house["one"].address
    assert address is not None
    assert address.socket_path is not None
    connector = aiohttp.UnixConnector(path=str(address.socket_path))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        yield session


async def control(house: House, **knobs: object) -> None:
    """Change how the server misbehaves."""
    async with talking_to(house) as session, session.post("/_control", data=json.dumps(knobs)) as answer:
        assert answer.status == 200


@asynccontextmanager
async def a_request_under_way(house: House) -> AsyncIterator[None]:
    """One chat request to the server, counted as passed through our door."""

    async def ask() -> None:
        async with talking_to(house) as session, session.post("/v1/chat/completions", json=CHAT) as answer:
            async for _ in answer.content:
                pass

    traffic = house["one"].traffic
    traffic.active += 1
    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        traffic.active -= 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("health", ["hang", "trickle"])
async def test_row_13_a_health_page_that_hangs_or_trickles_has_a_total_deadline(house: House, health: str) -> None:
    figures = {"probe_deadline_seconds": 0.3, "retry_base_seconds": 30}
    await house.open({"one": misbehaving(house.model, supervision=figures)})
    await house.reach("one", State.READY)
    await control(house, health=health)
    snapshot = await house.reach("one", State.CRASHED)
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "unresponsive"


async def test_row_13_another_instance_is_not_affected(house: House) -> None:
    figures = {"probe_deadline_seconds": 0.3, "retry_base_seconds": 30}
    hanging = misbehaving(house.model, knobs={"health": "trickle"}, supervision=figures)
    await house.open({"one": hanging, "two": misbehaving(house.model)})
    await house.reach("two", State.READY)
    await house.supervisor.fleet.stop_and_wait("two")
    assert house["one"].state is State.STARTING
    await house.supervisor.fleet.stop_and_wait("one")


async def test_row_14_a_flapping_health_page_restarts_nothing(house: House) -> None:
    await house.open({"one": misbehaving(house.model)})
    await house.reach("one", State.READY)
    await control(house, health="flap")
    probes = 0
    async with talking_to(house) as session:
        while probes < 40:
            async with session.get("/_control") as answer:
                seen = await answer.json(content_type=None)
            probes = seen["health"]
            await asyncio.sleep(0.05)
    assert house.states_told("one") == ["starting", "ready"]


@pytest.mark.parametrize("metrics_too", [False, True])
async def test_row_17_a_wedged_decoder_is_noticed_although_health_is_fine(house: House, metrics_too: bool) -> None:
    figures = {"wedge_seconds": 0.8, "wedge_busy_seconds": 60, "probe_deadline_seconds": 0.3, "retry_base_seconds": 30}
    knobs = {"token_interval_seconds": 0.05, "metrics_while_wedged": metrics_too}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision=figures)})
    await house.reach("one", State.READY)
    async with a_request_under_way(house):
        await control(house, decode="wedge_idle")
        snapshot = await house.reach("one", State.CRASHED)
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "wedged"


async def test_row_17_twin_a_slow_but_steady_decoder_is_left_alone(house: House) -> None:
    figures = {"wedge_seconds": 0.8, "wedge_busy_seconds": 60}
    knobs = {"token_interval_seconds": 0.4, "token_count": 8}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision=figures)})
    await house.reach("one", State.READY)
    async with a_request_under_way(house):
        await asyncio.sleep(3)
    assert house.states_told("one") == ["starting", "ready"]


async def test_row_17_twin_one_request_that_hangs_while_others_are_served_is_left_alone(house: House) -> None:
    """No counter moves and a request is active; only the canary knows better."""
    figures = {"wedge_seconds": 0.5, "wedge_busy_seconds": 60, "liveness_misses": 1_000}
    knobs = {"stream_fault": "stall", "fault_after": 1, "parallel": 4}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision=figures)})
    await house.reach("one", State.READY)
    canaries = 0
    async with a_request_under_way(house), talking_to(house) as session, asyncio.timeout(GENEROUS_SECONDS):
        while canaries < 2:
            async with session.get("/_control") as answer:
                canaries = (await answer.json(content_type=None))["canaries"]
            await asyncio.sleep(0.05)
    assert house.states_told("one") == ["starting", "ready"]


async def test_row_18_a_long_prefill_is_not_taken_for_a_wedge(house: House) -> None:
    # Who burns a core on a busy machine may miss probes; that is another row.
    figures = {"wedge_seconds": 0.6, "wedge_busy_seconds": 60, "probe_deadline_seconds": 0.3, "liveness_misses": 1_000}
    knobs = {"prefill_seconds": 3.0, "prefill_burns": True}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision=figures)})
    await house.reach("one", State.READY)
    async with a_request_under_way(house):
        await asyncio.sleep(2.5)
    assert house.states_told("one") == ["starting", "ready"]


async def test_row_29_a_jump_of_the_wall_clock_changes_nothing(house: House) -> None:
    clock = JumpingClock()
    await house.open({"one": misbehaving(house.model)}, clock=clock)
    await house.reach("one", State.READY)
    for offset in (86_400.0, -86_400.0):
        clock.offset = offset
        seen = clock.reads
        await until(lambda seen=seen: clock.reads > seen + 5, "some more looks at the clock")  # type: ignore[misc]
    assert house.states_told("one") == ["starting", "ready"]


class JumpingClock(SystemClock):
    """The real clock, whose wall time can be set."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.reads = 0

    def wall(self) -> float:
        """See `Clock.wall`."""
        return time.time() + self.offset

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        self.reads += 1
        return super().monotonic()


async def test_row_30_a_pause_of_the_server_within_the_misses_is_forgiven(house: House) -> None:
    figures = {"liveness_interval_seconds": 0.5, "liveness_misses": 6, "probe_deadline_seconds": 0.5}
    await house.open({"one": misbehaving(house.model, supervision=figures)})
    await house.reach("one", State.READY)
    pid = house["one"].snapshot().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(1.0)
    os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(1.5)
    assert house.states_told("one") == ["starting", "ready"]


async def test_row_30_a_pause_of_the_supervisor_itself_condemns_nobody(house: House) -> None:
    figures = {"wedge_seconds": 0.8, "wedge_busy_seconds": 0.8, "probe_deadline_seconds": 0.3}
    knobs = {"token_interval_seconds": 0.2, "token_count": 1_000}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision=figures)})
    await house.reach("one", State.READY)
    async with a_request_under_way(house):
        for _ in range(2):
            # Nothing of ours runs meanwhile, as in a suspended machine or a stopped supervisor.
            time.sleep(1.5)  # noqa: ASYNC251
            await asyncio.sleep(0.7)
    assert house.states_told("one") == ["starting", "ready"]
