"""Fault rows 12, 23 and 54, where two things happen at once: an end and another, a reload and its caller's end, a survivor and a stop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from supervisor.core import Supervisor
from supervisor.errors import NotAvailableError
from supervisor.process.states import State
from tests.fixtures.house import House, Unkillable, misbehaving, task_names
from tests.fixtures.nursery import GENEROUS_SECONDS, MISBEHAVING, until

pytestmark = pytest.mark.faults

COMMAND = {"kind": "command", "argv": [str(MISBEHAVING), "--port", "${PORT}"]}


def main_pid(house: House, name: str = "one") -> int:
    """The server's own process."""
    pid = house[name].snapshot().pid
    assert pid is not None
    return pid


def make_unkillable(house: House, name: str = "one") -> Unkillable:
    """From now on its process survives SIGKILL, as far as the supervisor can tell."""
    watch = house[name].watch
    assert watch is not None
    handle = Unkillable(watch.handle)
    watch.handle = handle  # type: ignore[assignment]
    return handle


async def reopen(house: House) -> None:
    """The next supervisor on the same data folder."""
    house.supervisor = await Supervisor.open(house.load(), house.data_folder, load=house.load)


async def test_row_54_the_end_of_one_generation_never_reaches_into_the_next(house: House) -> None:
    await house.open({"one": misbehaving(house.model)})
    await house.reach("one", State.READY)
    first = house["one"].watch
    assert first is not None
    os.kill(main_pid(house), signal.SIGKILL)
    await house.reach("one", State.CRASHED)
    await house.reach("one", State.READY)
    address = house["one"].address
    await first.end(graceful=True, kill_adopted=False)
    assert address is not None
    assert address.socket_path is not None
    assert address.socket_path.exists()
    assert house.states_told("one") == ["starting", "ready", "crashed", "starting", "ready"]


async def test_row_12_a_stop_of_what_cannot_be_killed_takes_over_from_the_crash(house: House) -> None:
    await house.open({"one": misbehaving(house.model, supervision={"retry_base_seconds": 30})})
    await house.reach("one", State.READY)
    handle = make_unkillable(house)
    os.kill(main_pid(house), signal.SIGKILL)
    await house.reach("one", State.ERROR)
    await house["one"].stop()
    await house.reach("one", State.ERROR)
    ends = [task for task in asyncio.all_tasks() if task.get_name().startswith("end:one")]
    assert len(ends) == 1
    handle.survives = False
    await until(lambda: not house["one"].remains, "the process to be gone at last")
    assert not any(name.startswith("end:one") for name in task_names())


async def test_row_12_that_it_cannot_be_killed_is_told_after_giving_up_too(house: House) -> None:
    await house.open({"one": misbehaving(house.model, supervision={"max_retries": 0})})
    await house.reach("one", State.READY)
    handle = make_unkillable(house)
    os.kill(main_pid(house), signal.SIGKILL)
    await until(lambda: house["one"].snapshot().to_wire()["reason"] == "unkillable", "the verdict")
    assert house.supervisor.events.history("one", limit=1)[-1].data["reason"] == "unkillable"
    handle.survives = False
    await until(lambda: not house["one"].remains, "the process to be gone at last")


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "changed"])
async def test_row_12_a_reload_does_not_forget_what_cannot_be_killed(house: House, removed: bool) -> None:
    await house.open({"one": misbehaving(house.model), "two": misbehaving(house.model)})
    await house.reach("one", State.READY)
    handle, pid = make_unkillable(house), main_pid(house)
    others = {"two": misbehaving(house.model)}
    house.configure(others if removed else {"one": misbehaving(house.model, knobs={"parallel": 3}), **others})
    await house.supervisor.reload()
    snapshot = house["one"].snapshot()
    assert (snapshot.state, snapshot.remains, snapshot.pid) == (State.ERROR, True, pid)
    with pytest.raises(NotAvailableError):
        await house["one"].start()
    assert len(house.processes()) == 2
    handle.survives = False
    if removed:
        await until(lambda: house.supervisor.fleet.names() == ["two"], "the instance to go with its process")
    else:
        await until(lambda: house["one"].state is State.INITIAL, "the new one to take its place")
        assert house.supervisor.fleet.names() == ["one", "two"]
        await house["one"].start()
        await house.reach("one", State.READY)


async def test_row_54_a_start_in_the_breath_of_its_removal_leaves_nothing(house: House) -> None:
    command = {**misbehaving(house.model, engine=COMMAND), "model": None}
    await house.open({"one": command, "two": misbehaving(house.model)})
    await house.reach("one", State.READY)
    one, starts = house["one"], []

    def start_again(state: State) -> None:
        if state is State.INITIAL:
            starts.append(asyncio.create_task(one.start(), name="a start too late"))

    one.on_change(start_again)
    house.configure({"two": misbehaving(house.model)})
    await house.supervisor.reload()
    (refusal,) = await asyncio.gather(*starts, return_exceptions=True)
    assert isinstance(refusal, NotAvailableError)
    await house.reach("two", State.READY)
    assert {found.identity.pid for found in house.processes()} == {main_pid(house, "two")}


async def test_row_53_a_reload_goes_on_when_the_one_who_asked_for_it_leaves(house: House) -> None:
    await house.open({"one": misbehaving(house.model, knobs={"term_delay_seconds": 0.5})})
    await house.reach("one", State.READY)
    house.configure({"one": misbehaving(house.model, knobs={"parallel": 3}), "two": misbehaving(house.model)})
    asked = asyncio.create_task(house.supervisor.reload(), name="who asked")
    await house.reach("one", State.STOPPING)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await until(lambda: house.supervisor.fleet.names() == ["one", "two"], "the reload to be done")
    await house.reach("one", State.READY)
    await house.reach("two", State.READY)


async def test_row_61_a_reload_under_way_when_the_end_comes_leaves_nothing(house: House) -> None:
    await house.open({"one": misbehaving(house.model, knobs={"term_delay_seconds": 0.5})})
    await house.reach("one", State.READY)
    house.configure({"one": misbehaving(house.model, knobs={"parallel": 3}), "two": misbehaving(house.model)})
    reload = asyncio.create_task(house.supervisor.reload(), name="reload under way")
    await house.reach("one", State.STOPPING)
    await house.supervisor.close()
    await asyncio.gather(reload, return_exceptions=True)
    assert not house.processes()


async def test_row_61_who_is_shutting_down_does_not_reload(house: House) -> None:
    await house.open({"one": misbehaving(house.model)})
    house.supervisor.request_shutdown()
    house.configure({"two": misbehaving(house.model)})
    with pytest.raises(NotAvailableError) as refusal:
        await house.supervisor.reload()
    assert refusal.value.code == "shutting_down"
    assert house.supervisor.fleet.names() == ["one"]


async def test_row_23_a_survivor_that_is_stopped_at_once_is_stopped(house: House) -> None:
    await house.open({"one": misbehaving(house.model, survive_supervisor=True)})
    await house.reach("one", State.READY)
    await house.supervisor.close()
    await reopen(house)
    await asyncio.gather(house.supervisor.fleet.start("one"), house.supervisor.fleet.stop("one"))
    await house.reach("one", State.INITIAL)
    assert not house.processes()


async def test_row_23_a_survivor_whose_model_is_gone_is_not_lost_sight_of(house: House) -> None:
    await house.open({"one": misbehaving(house.model, survive_supervisor=True)})
    await house.reach("one", State.READY)
    await house.supervisor.close()
    away = house.model.rename(house.folder / "away.gguf")
    await reopen(house)
    await house.supervisor.start()
    await house.reach("one", State.ERROR)
    away.rename(house.model)
    await until(lambda: not house["one"].remains, "its process to be ended")
    assert not house.processes()
    await house["one"].start()
    await house.reach("one", State.READY)
    assert len(house.processes()) == 1


async def test_row_61_a_survivor_that_is_being_stopped_does_not_survive(house: House) -> None:
    knobs = {"term_delay_seconds": 0.5}
    await house.open({"one": misbehaving(house.model, knobs=knobs, survive_supervisor=True)})
    await house.reach("one", State.READY)
    await house["one"].stop()
    await house.supervisor.close()
    assert not house.processes()
    assert not any(name.startswith("stop:") for name in task_names())


async def test_row_12_who_lets_go_of_a_process_no_longer_kills_it(house: House) -> None:
    figures = {"stop_grace_seconds": 0.5}
    await house.open({"one": misbehaving(house.model, knobs={"ignore_term": True}, supervision=figures)})
    await house.reach("one", State.READY)
    watch = house["one"].watch
    assert watch is not None
    assert watch.handle is not None
    stop = asyncio.create_task(watch.handle.terminate(GENEROUS_SECONDS), name="a stop of somebody's")
    await until(lambda: any(name.startswith("stop:") for name in task_names()), "the climb to begin")
    watch.handle.close()
    await asyncio.gather(stop, return_exceptions=True)
    await until(lambda: not any(name.startswith("stop:") for name in task_names()), "the climb to end")
    # The instance has lost sight of it: what is left is found by its environment when the supervisor closes.
    assert len(house.processes()) == 1


@pytest.mark.parametrize("before", [True, False], ids=["before the stop", "during the stop"])
async def test_row_61_who_is_hurried_gets_no_grace(house: House, before: bool) -> None:
    figures = {"stop_grace_seconds": 600}
    await house.open({"one": misbehaving(house.model, knobs={"ignore_term": True}, supervision=figures)})
    await house.reach("one", State.READY)
    if before:
        house.supervisor.hurry()
    await house["one"].stop()
    if not before:
        house.supervisor.hurry()
    await house.reach("one", State.INITIAL)
