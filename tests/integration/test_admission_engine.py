"""Admission before real engines: what is let through, what a crash and a stop do to those who wait, what an engine tells of its slots."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from supervisor.clock import SystemClock
from supervisor.config.gateway_settings import GatewaySettings
from supervisor.engines.embedded import SERVER_FILE
from supervisor.errors import NotAvailableError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Admission
from supervisor.gateway.admission.loads import NoLoads
from supervisor.gateway.admission.places import Place
from supervisor.gateway.admission.pool import Pool
from supervisor.gateway.admission.slots import UNKNOWN_SLOTS, configured_slots
from supervisor.process.states import State
from tests.fixtures.house import QUICK, House
from tests.fixtures.nursery import GENEROUS_SECONDS, until

# One thread each: engines that share a core spin for one another.
DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo", "supervision": QUICK}
ASK = {"prompt": "The capital of", "max_tokens": 4, "temperature": 0}


class Desk:
    """Admission to the instances of a house, and clients that use their places for real requests."""

    def __init__(self, folder: Path) -> None:
        self.house = House(folder)
        self.admission: Admission
        self.most_at_once: dict[str, int] = {}

    async def open(self, instances: dict[str, Any], **settings: Any) -> Pool:
        """Start everything and wait until it is ready."""
        await self.house.open(instances)
        fleet, clock = self.house.supervisor.fleet, SystemClock()
        self.admission = Admission(
            GatewaySettings(**settings),
            lambda name: configured_slots(fleet.settings_of(name)),
            NoLoads(fleet.get, clock),
            clock,
        )
        for name in instances:
            await self.house.reach(name, State.READY)
        return self.admission.pool(fleet.instances())

    async def client(self, pool: Pool, project: str = "p") -> int:
        """Wait for a place, send a request, and say what the engine's answer was."""
        async with self.admission.place(pool, Caller(project)) as place:
            name = place.instance.name
            self.most_at_once[name] = max(self.most_at_once.get(name, 0), self.admission.in_flight(name))
            address = place.instance.address
            assert address is not None
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(address.socket_path))) as session,
                session.post(
                    f"{address.base_url}/v1/completions", json=ASK, headers={"Connection": "close"}
                ) as response,
            ):
                await response.read()
                return response.status

    async def wait(self, pool: Pool, clients: int) -> list[asyncio.Task[Place]]:
        """Clients that wait."""
        tasks = [asyncio.create_task(self.admission.wait(pool, Caller(f"p{number}"))) for number in range(clients)]
        await until(lambda: self.admission.waiting() == clients, "everybody to wait")
        return tasks

    async def close(self) -> None:
        """The oracle of the house speaks last."""
        await self.admission.close()
        await self.house.close()


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Not open yet."""
    desk = Desk(tmp_path)
    yield desk
    await desk.close()


async def test_two_slots_and_64_clients_never_have_more_than_four_requests_in_flight(desk: Desk) -> None:
    pool = await desk.open({"demo": DEMO})
    async with asyncio.timeout(GENEROUS_SECONDS):
        statuses = await asyncio.gather(*(desk.client(pool, f"p{number % 3}") for number in range(64)))
    assert statuses == [200] * 64
    assert desk.most_at_once == {"demo": 4}
    assert desk.house["demo"].requests_active == 0


async def test_two_replicas_share_the_requests(desk: Desk) -> None:
    pool = await desk.open({"one": DEMO, "two": DEMO})
    async with asyncio.timeout(GENEROUS_SECONDS):
        statuses = await asyncio.gather(*(desk.client(pool) for _ in range(16)))
    assert statuses == [200] * 16
    assert desk.most_at_once == {"one": 4, "two": 4}


async def test_an_engine_whose_slots_the_settings_do_not_tell_is_asked(desk: Desk, tmp_path: Path) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{SERVER_FILE}" "$@"\n')
    binary.chmod(0o700)
    own = {"kind": "llama-server", "binary": str(binary), "extra_args": ["--parallel", "3"]}
    pool = await desk.open({"own": {**DEMO, "engine": own}})
    assert desk.admission.limit("own") == 2 * UNKNOWN_SLOTS
    await until(lambda: desk.admission.limit("own") == 6, "the engine to tell of its three slots")
    assert desk.admission.limit("own") == pool.places


async def test_a_crash_while_twenty_wait_is_waited_out_by_all(desk: Desk) -> None:
    pool = await desk.open({"demo": DEMO})
    held = [await desk.admission.wait(pool, Caller()) for _ in range(4)]
    waiting = await desk.wait(pool, 20)
    os.kill(desk.house["demo"].pids()[0], signal.SIGKILL)
    await desk.house.reach("demo", State.CRASHED, State.STARTING)
    for place in held:
        place.failed()
        place.leave()
    async with asyncio.timeout(GENEROUS_SECONDS):
        for task in asyncio.as_completed(waiting):
            with await task as place:
                assert place.generation == 2
                assert place.instance.state is State.READY


async def test_giving_up_while_twenty_wait_is_told_to_all(desk: Desk) -> None:
    pool = await desk.open({"demo": {**DEMO, "supervision": {**QUICK, "max_retries": 0}}})
    held = [await desk.admission.wait(pool, Caller()) for _ in range(4)]
    waiting = await desk.wait(pool, 20)
    os.kill(desk.house["demo"].pids()[0], signal.SIGKILL)
    async with asyncio.timeout(GENEROUS_SECONDS):
        errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert {error.code for error in errors if isinstance(error, NotAvailableError)} == {"signal"}
    assert len(errors) == 20
    for place in held:
        place.leave()


async def test_row_55_a_stop_while_twenty_wait_is_told_to_all(desk: Desk) -> None:
    pool = await desk.open({"demo": DEMO})
    held = [await desk.admission.wait(pool, Caller()) for _ in range(4)]
    waiting = await desk.wait(pool, 20)
    await desk.house["demo"].stop()
    late = asyncio.create_task(desk.admission.wait(pool, Caller()))
    async with asyncio.timeout(GENEROUS_SECONDS):
        errors = await asyncio.gather(*waiting, late, return_exceptions=True)
    assert [error.code for error in errors if isinstance(error, NotAvailableError)] == ["initial"] * 21
    for place in held:
        place.leave()
    assert desk.admission.waiting() == 0
