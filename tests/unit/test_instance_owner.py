"""The owner task of an instance: nobody else's fault ends it, and whoever is removed takes no more requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supervisor.errors import NotAvailableError, StateConflictError
from supervisor.process.figures import Figures
from supervisor.process.instance import Instance, Profile
from supervisor.process.messages import Answered
from supervisor.process.output import LogWriter, OutputCapture
from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import State
from supervisor.testing import FakeClock, FakeWatch


def make(watches: list[FakeWatch], told: list[State]) -> Instance:
    """An instance whose processes are faked; it tells its states to `told`."""
    clock, nothing = FakeClock(), None

    def watch(**lent: Any) -> FakeWatch:
        watches.append(FakeWatch(**lent))
        return watches[-1]

    def publish(snapshot: InstanceSnapshot) -> None:
        told.append(snapshot.state)

    output = OutputCapture("one", None, ring_lines=1, file_bytes=1, files=1, clock=clock, writer=LogWriter())
    parts: Any = nothing
    return Instance(Profile("one", "command"), Figures(), parts, output, clock, publish, watch=watch)


async def test_a_listener_that_fails_stands_in_nobodys_way(caplog: pytest.LogCaptureFixture) -> None:
    watches: list[FakeWatch] = []
    told: list[State] = []
    instance = make(watches, told)
    instance.open()

    def fail(_state: State) -> None:
        raise RuntimeError("a fault of somebody else's")

    heard: list[tuple[int, State]] = []
    instance.on_change(fail)
    for number in range(5):
        instance.on_change(lambda state, number=number: heard.append((number, state)))  # type: ignore[misc]
    async with asyncio.timeout(5):
        assert (await instance.start()).state is State.STARTING
        assert [watch.begun for watch in watches] == [True]
        assert (await instance.stop()).state is State.STOPPING
    assert "a fault of somebody else's" in caplog.text
    assert heard == [(number, state) for state in (State.STARTING, State.STOPPING) for number in range(5)]
    await instance.close()


async def test_who_is_retired_stops_and_does_not_start() -> None:
    watches: list[FakeWatch] = []
    instance = make(watches, [])
    instance.open()
    await instance.start()
    instance.retire()
    for request in (instance.start, instance.restart):
        with pytest.raises(NotAvailableError):
            await request()
    assert (await instance.stop()).state is State.STOPPING
    watches[0].settle()
    async with asyncio.timeout(5):
        await instance.wait_gone()
        assert await instance.wait_for({State.INITIAL}) is State.INITIAL
    await instance.close()


async def test_who_is_busy_is_not_unloaded_whatever_was_seen_before() -> None:
    watches: list[FakeWatch] = []
    told: list[State] = []
    instance = make(watches, told)
    instance.open()
    await instance.start()
    watches[0].report(Answered(1))
    await instance.wait_for({State.READY}, 5)
    asked = asyncio.create_task(instance.unload(frozenset({State.READY}), "idle"))
    with instance.serving():
        with pytest.raises(StateConflictError, match="1 request"):
            await asked
        assert instance.state is State.READY
    with pytest.raises(StateConflictError):
        await instance.unload(frozenset({State.STARTING}), "idle")
    assert (await instance.unload(frozenset({State.READY}), "idle")).state is State.STOPPING
    watches[0].settle()
    await instance.wait_for({State.INITIAL}, 5)
    assert told.count(State.STOPPING) == 1
    await instance.close()


async def test_who_is_held_takes_no_requests_and_its_listeners_are_told() -> None:
    watches: list[FakeWatch] = []
    instance = make(watches, [])
    instance.open()
    heard: list[tuple[State, bool]] = []
    await instance.start()
    watches[0].report(Answered(1))
    await instance.wait_for({State.READY}, 5)
    instance.on_change(lambda state: heard.append((state, instance.accepts_requests)))
    for hold in (True, True, False):
        instance.hold(hold=hold)
    assert heard == [(State.READY, False), (State.READY, True)]
    await instance.close()
