"""Fault rows 4-6 and 8-12: how a running server ends, and what must be left of it: nothing."""

from __future__ import annotations

import os
import signal

import pytest

from supervisor.errors import StateConflictError
from supervisor.process.states import State
from tests.fixtures.house import House, Unkillable, misbehaving
from tests.fixtures.nursery import until

pytestmark = pytest.mark.faults


def main_pid(house: House) -> int:
    """The server's own process."""
    pid = house["one"].snapshot().pid
    assert pid is not None
    return pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_row_04_death_when_ready_is_noticed_and_mended(house: House, number: signal.Signals) -> None:
    await house.open({"one": misbehaving(house.model)})
    await house.reach("one", State.READY)
    first = main_pid(house)
    os.kill(first, number)
    crashed = await house.reach("one", State.CRASHED)
    assert crashed.headline() == f"crashed — killed by signal {number.value} — retry 1/5"
    await house.reach("one", State.READY)
    assert main_pid(house) != first
    assert house["one"].snapshot().last_crash is not None


async def test_row_05_death_during_a_stop_is_a_stop(house: House) -> None:
    await house.open({"one": misbehaving(house.model, knobs={"ignore_term": True})})
    await house.reach("one", State.READY)
    await house["one"].stop()
    os.kill(main_pid(house), signal.SIGKILL)
    await house.reach("one", State.INITIAL)
    assert house.states_told("one") == ["starting", "ready", "stopping", "initial"]


async def test_row_06_an_exit_with_code_zero_is_a_crash_too(house: House) -> None:
    knobs = {"exit_after_ready_seconds": 0.3, "exit_code": 0}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"retry_base_seconds": 30})})
    snapshot = await house.reach("one", State.CRASHED)
    assert snapshot.to_wire()["exitCode"] == 0
    assert "exited with code 0" in snapshot.headline()


async def test_row_08_a_server_that_ignores_term_is_killed_after_the_grace(house: House) -> None:
    figures = {"stop_grace_seconds": 0.3}
    await house.open({"one": misbehaving(house.model, knobs={"ignore_term": True}, supervision=figures)})
    await house.reach("one", State.READY)
    assert await house.supervisor.fleet.stop_and_wait("one") is State.INITIAL
    assert not house.processes()


async def test_row_08_twin_a_server_that_takes_its_time_within_the_grace_is_not_killed(house: House) -> None:
    knobs = {"term_delay_seconds": 0.5}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"stop_grace_seconds": 20})})
    await house.reach("one", State.READY)
    handle = house["one"].watch.handle if house["one"].watch is not None else None
    assert handle is not None
    await house.supervisor.fleet.stop_and_wait("one")
    assert handle.exited.result().signal is None


async def test_row_09_a_frozen_server_is_noticed_and_killed(house: House) -> None:
    figures = {"probe_deadline_seconds": 0.3, "retry_base_seconds": 30}
    await house.open({"one": misbehaving(house.model, supervision=figures)})
    await house.reach("one", State.READY)
    os.kill(main_pid(house), signal.SIGSTOP)
    snapshot = await house.reach("one", State.CRASHED)
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "unresponsive"
    await until(lambda: not house.processes(), "the frozen process to be killed")


async def test_row_10_a_daemon_that_fled_is_swept(house: House) -> None:
    """One that also shed its environment is ended with the supervisor at the latest: see `test_rows_shutdown.py`."""
    await house.open({"one": misbehaving(house.model, knobs={"daemon": True})})
    await house.reach("one", State.READY)
    assert len(house.processes()) == 2
    await house.supervisor.fleet.stop_and_wait("one")
    assert not house.processes()


async def test_row_11_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_stop(house: House) -> None:
    knobs = {"fork_grandchild": True, "grandchild_ignores_term": True}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"retry_base_seconds": 30})})
    await house.reach("one", State.READY)
    os.kill(main_pid(house), signal.SIGKILL)
    await house.reach("one", State.CRASHED)
    assert await house.supervisor.fleet.stop_and_wait("one") is State.INITIAL
    assert not house.processes()


async def test_row_12_what_cannot_be_killed_is_an_error_and_keeps_its_slot(house: House) -> None:
    await house.open({"one": misbehaving(house.model)})
    await house.reach("one", State.READY)
    watch = house["one"].watch
    assert watch is not None
    real = watch.handle
    watch.handle = Unkillable(real)  # type: ignore[assignment]
    snapshot = (await house["one"].stop(), await house.reach("one", State.ERROR))[1]
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "unkillable"
    with pytest.raises(StateConflictError):
        await house["one"].start()
    watch.handle.survives = False  # type: ignore[union-attr]
    await until(lambda: not house["one"].snapshot().remains, "the process to be gone at last")
    await house["one"].start()
    await house.reach("one", State.READY)
