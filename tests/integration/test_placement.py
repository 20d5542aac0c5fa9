"""Models that load when they are wanted and yield when others are: real engines, real processes, one placer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.config import InstanceSettings
from supervisor.errors import InstanceNotFoundError, LlamavisorError, NotAvailableError
from supervisor.fleet.placement.memory import MachineMemory, estimate
from supervisor.fleet.placement.placer import Placer
from supervisor.fleet.placement.resources import HOST
from supervisor.models.gguf import read_gguf_header
from supervisor.process.states import State
from supervisor.process.usage import memory_of
from tests.fixtures.gguf_files import write_tiny_llama
from tests.fixtures.house import QUICK, House, misbehaving
from tests.fixtures.nursery import GENEROUS_SECONDS, until
from tests.fixtures.slow_model import write_slow_llama

MIB = 1024**2
GROUPS = {"big": {"exclusive": True}}
EMBEDDED: dict[str, Any] = {"model": "demo", "engine": {"ctx_size": 512, "threads": 1}, "autostart": False}


class Waiter:
    """Somebody who waits for an instance, and what became of it."""

    def __init__(self, house: House, name: str) -> None:
        self.failures: list[LlamavisorError] = []
        self.withdraw: Callable[[], None] = house.supervisor.placer.want(name, self.failures.append)


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A supervisor over real processes; nothing of it may be left after the test."""
    house = House(tmp_path)
    yield house
    await house.oracle()
    await house.close()


def placer(house: House) -> Placer:
    return house.supervisor.placer


def state(house: House, name: str) -> State:
    """The state of an instance now."""
    return house[name].state


def unloaded(house: House, name: str) -> str | None:
    """Why an instance was unloaded, as it tells."""
    shot = house[name].snapshot()
    assert shot.headline() == f"initial — unloaded: {shot.unloaded}"
    assert shot.explanation() == f"{name} was unloaded: {shot.unloaded}. The next request for it loads it."
    return shot.unloaded


def told(house: House, kind: str) -> list[dict[str, Any]]:
    """The `data` of every event of a kind."""
    return [dict(event.data) for event in house.supervisor.events.since(0) or () if event.type == kind]


def on_demand(house: House, **more: Any) -> dict[str, Any]:
    """A misbehaving instance that starts when it is wanted."""
    return misbehaving(house.model, **{"autostart": False} | more)


async def want(house: House, name: str) -> Waiter:
    """Wait for an instance until it is ready."""
    waiter = Waiter(house, name)
    await house.reach(name, State.READY)
    return waiter


async def test_two_that_exclude_one_another_take_turns(house: House) -> None:
    member = {**EMBEDDED, "group": ["big"]}
    await house.open({"a": member, "b": member}, groups=GROUPS)
    (await want(house, "a")).withdraw()
    (await want(house, "b")).withdraw()
    assert state(house, "a") is State.INITIAL
    assert len(house.processes()) == 1
    [event] = told(house, "evicted")
    assert (event["instance"], event["reason"], event["for"]) == ("a", "group", "b")
    assert house.states_told("a") == ["starting", "ready", "stopping", "initial"]
    assert unloaded(house, "a") == "it made room for b"


async def test_the_busy_finish_first_and_no_request_gets_in_between(house: House) -> None:
    member = on_demand(house, group=["big"])
    await house.open({"a": member, "b": member}, groups=GROUPS, memory={"patience_seconds": 600})
    (await want(house, "a")).withdraw()
    with house["a"].serving():
        waiter = Waiter(house, "b")
        await until(lambda: placer(house).waits_for("b"), "b to wait for its turn")
        lack = placer(house).waits_for("b")
        assert lack is not None
        assert (lack.reason, "1 busy" in lack.text) == ("group", True)
        assert state(house, "a") is State.READY
    placer(house).used("a")
    await house.reach("b", State.READY)
    assert not waiter.failures
    assert state(house, "a") is State.INITIAL


async def test_patience_has_an_end_then_the_busy_take_no_new_requests(house: House) -> None:
    member = on_demand(house, group=["big"])
    await house.open({"a": member, "b": member}, groups=GROUPS, memory={"patience_seconds": 0.2})
    (await want(house, "a")).withdraw()
    with house["a"].serving():
        waiter = Waiter(house, "b")
        assert house["a"].accepts_requests
        await until(lambda: not house["a"].accepts_requests, "a to be held")
        assert state(house, "a") is State.READY
        waiter.withdraw()
        await until(lambda: house["a"].accepts_requests, "a to be let go when nobody waits any more")
        Waiter(house, "b")
        await until(lambda: not house["a"].accepts_requests, "a to be held again")
    placer(house).used("a")
    await house.reach("b", State.READY)


async def test_a_load_that_nobody_waits_for_any_more_is_cancelled(house: House) -> None:
    await house.open({"a": on_demand(house, knobs={"load_seconds": 600})})
    first, second = Waiter(house, "a"), Waiter(house, "a")
    await house.reach("a", State.STARTING)
    await until(lambda: house["a"].pids(), "the process to be there")
    first.withdraw()
    third = Waiter(house, "a")
    second.withdraw()
    third.withdraw()
    await house.reach("a", State.INITIAL)
    assert not house.processes()
    assert [event["reason"] for event in told(house, "load_cancelled")] == ["no_waiters"]
    assert unloaded(house, "a") == "nobody waited for it any more"
    assert not [*first.failures, *second.failures, *third.failures]


async def test_twin_a_load_that_somebody_waits_for_goes_on(house: House) -> None:
    await house.open({"a": on_demand(house, knobs={"load_seconds": 0.3})})
    first = Waiter(house, "a")
    await house.reach("a", State.STARTING)
    second = Waiter(house, "a")
    first.withdraw()
    await house.reach("a", State.READY)
    second.withdraw()
    assert not told(house, "load_cancelled")


async def test_the_idle_are_unloaded_when_their_time_is_over_and_the_busy_are_not(house: House) -> None:
    resting = on_demand(house, ttl_seconds=0.2)
    await house.open({"a": resting, "b": resting})
    (await want(house, "a")).withdraw()
    with house["a"].serving():
        (await want(house, "b")).withdraw()
        await house.reach("b", State.INITIAL)
        assert state(house, "a") is State.READY
    placer(house).used("a")
    await house.reach("a", State.INITIAL)
    assert [(event["instance"], event["reason"]) for event in told(house, "unloaded")] == [("b", "idle"), ("a", "idle")]
    assert unloaded(house, "a") == "idle for 0.2 s"
    (await want(house, "a")).withdraw()
    await house.reach("a", State.INITIAL)


async def test_what_does_not_fit_makes_room_and_what_never_fits_is_told_why(house: House) -> None:
    sizes = {"a": 60, "b": 60, "huge": 500}
    instances = {name: on_demand(house, memory_bytes=size * MIB) for name, size in sizes.items()}
    await house.open(instances, memory={"limit_bytes": 100 * MIB})
    (await want(house, "a")).withdraw()
    (await want(house, "b")).withdraw()
    assert state(house, "a") is State.INITIAL
    waiter = Waiter(house, "huge")
    await until(lambda: waiter.failures, "the refusal")
    [error] = waiter.failures
    assert isinstance(error, NotAvailableError)
    assert (error.status, error.code, error.param) == (503, "no_memory", "model")
    assert error.retry_after_seconds
    assert "needs 524.3 MB of memory" in error.message
    assert state(house, "b") is State.READY


async def test_the_pinned_stay_whoever_is_wanted(house: House) -> None:
    instances = {"a": on_demand(house, group=["big"], pinned=True), "b": on_demand(house, group=["big"])}
    await house.open(instances, groups=GROUPS)
    (await want(house, "a")).withdraw()
    waiter = Waiter(house, "b")
    await until(lambda: waiter.failures, "the refusal")
    assert (waiter.failures[0].code, waiter.failures[0].remedy) == (
        "group_full",
        "a stay loaded: pinned, or not `on_demand`.",
    )
    assert state(house, "a") is State.READY


async def test_row_03_a_load_that_dies_for_good_fails_each_waiter_once(house: House) -> None:
    await house.open(
        {"a": on_demand(house, knobs={"exit_at_once": True, "exit_code": 3}, supervision={"max_retries": 1})}
    )
    waiters = [Waiter(house, "a") for _ in range(3)]
    await until(lambda: all(waiter.failures for waiter in waiters), "everybody to be told")
    assert [len(waiter.failures) for waiter in waiters] == [1, 1, 1]
    assert {waiter.failures[0].code for waiter in waiters} == {"exit_code"}
    assert house.states_told("a").count("starting") == 2
    late = Waiter(house, "a")
    await until(lambda: late.failures, "the next to be told at once")
    assert 0 < (late.failures[0].retry_after_seconds or 0) <= 30
    assert house.states_told("a").count("starting") == 2


async def test_a_stop_by_hand_is_told_to_those_who_wait_and_the_next_may_start_it_again(house: House) -> None:
    await house.open(
        {"a": on_demand(house, knobs={"load_seconds": 0.3}), "plain": {**on_demand(house), "on_demand": False}}
    )
    waiter = Waiter(house, "a")
    await house.reach("a", State.STARTING)
    await house.supervisor.fleet.stop_and_wait("a")
    await until(lambda: waiter.failures, "the waiter to be told")
    assert waiter.failures[0].code == "initial"
    (await want(house, "a")).withdraw()
    plain = Waiter(house, "plain")
    await until(lambda: plain.failures, "a refusal: no request starts this one")
    assert state(house, "plain") is State.INITIAL
    with pytest.raises(InstanceNotFoundError):
        Waiter(house, "nobody")


async def test_a_reload_keeps_those_who_wait(house: House) -> None:
    await house.open({"a": on_demand(house, knobs={"load_seconds": 600})})
    waiter = Waiter(house, "a")
    await house.reach("a", State.STARTING)
    house.configure({"a": on_demand(house), "b": on_demand(house, preload=True)})
    await house.supervisor.reload()
    await house.reach("a", State.READY)
    waiter.withdraw()
    assert not waiter.failures
    await house.reach("b", State.READY)


async def test_what_is_preloaded_starts_as_there_is_room_and_spares_follow_the_busy(house: House) -> None:
    sizes = {"memory_bytes": 30 * MIB}
    instances = {
        "first": on_demand(house, preload=True, **sizes),
        "too-big": on_demand(house, preload=True, memory_bytes=200 * MIB),
        "one": on_demand(house, endpoint="chat", warm_spare=1, **sizes),
        "two": on_demand(house, endpoint="chat", **sizes),
    }
    await house.open(instances, memory={"limit_bytes": 100 * MIB})
    await house.reach("first", State.READY)
    await house.reach("one", State.READY)
    assert (state(house, "two"), state(house, "too-big")) == (State.INITIAL, State.INITIAL)
    with house["one"].serving():
        placer(house).used("one")
        await house.reach("two", State.READY)
    assert state(house, "too-big") is State.INITIAL


async def test_one_load_at_a_time(house: House) -> None:
    slow = on_demand(house, knobs={"load_seconds": 0.3})
    await house.open({"a": slow, "b": slow})
    Waiter(house, "a")
    (await want(house, "b")).withdraw()
    assert [(name, state.value) for name, state in house.told] == [
        ("a", "starting"),
        ("a", "ready"),
        ("b", "starting"),
        ("b", "ready"),
    ]


async def test_the_next_loads_only_when_the_memory_is_really_back(house: House) -> None:
    own = {**EMBEDDED, "model": str(write_tiny_llama(house.folder / "deep.gguf", blocks=24, context_length=65_536))}
    own["engine"] = {"threads": 1}
    await house.open({"a": own, "b": own}, memory={"reserve_bytes": 1_024})
    available = [700 * MIB]
    supervisor = house.supervisor
    await supervisor.placer.close()

    def read() -> MachineMemory:
        return MachineMemory(available[0])

    supervisor.placer = Placer(
        supervisor.fleet, house.data_folder, supervisor.events, supervisor.clock, read_machine=read
    )
    await supervisor.placer.open(supervisor.settings)
    (await want(house, "a")).withdraw()
    available[0] = 250 * MIB
    Waiter(house, "b")
    await house.reach("a", State.INITIAL)
    await until(lambda: "not back yet" in str(placer(house).waits_for("b")), "b to wait for the memory")
    assert house.states_told("b") == []
    available[0] = 700 * MIB
    await house.reach("b", State.READY)


async def test_a_look_that_fails_is_taken_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.open({"a": on_demand(house)})

    def fail(*_arguments: object) -> None:
        monkeypatch.undo()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("supervisor.fleet.placement.schedule.decide", fail)
    (await want(house, "a")).withdraw()


async def test_what_was_measured_takes_the_place_of_the_estimate(house: House) -> None:
    await house.open({"a": EMBEDDED})
    (await want(house, "a")).withdraw()
    resident = memory_of(house["a"].pids()).resident
    await house.supervisor.fleet.stop_and_wait("a")
    file = house.data_folder / "placement.json"
    await until(file.exists, "the measurement to be kept")
    kept = json.loads(file.read_text())["instances"]["a"]
    assert resident <= kept["peak"][HOST] <= resident * 1.2
    assert kept["load_seconds"] > 0


@pytest.mark.parametrize("kind", ["demo", "deep", "heavy"])
async def test_the_estimate_is_near_what_the_engine_takes(house: House, kind: str) -> None:
    """The demo model; one whose cache is nearly all of it (400 MB); one whose weights are (400 MB)."""
    own = EMBEDDED
    if kind == "deep":
        path = write_tiny_llama(house.folder / "deep.gguf", blocks=24, context_length=65_536)
        own = {**EMBEDDED, "model": str(path), "engine": {"threads": 1}}
    elif kind == "heavy":
        own = {**EMBEDDED, "model": str(write_slow_llama(house.folder / "heavy.gguf"))}
    await house.open({"a": {**own, "supervision": QUICK}})
    (await want(house, "a")).withdraw()
    settings = InstanceSettings.model_validate(own)
    spec = house["a"].watch
    assert spec is not None
    assert spec.spec is not None
    assert spec.spec.model_file is not None
    estimated = estimate(settings, read_gguf_header(spec.spec.model_file), {})[HOST]
    taken = memory_of(house["a"].pids()).peak
    assert 0.8 < estimated / taken < 1.5, f"estimated {estimated / MIB:.0f} MiB, took {taken / MIB:.0f} MiB"


async def test_who_still_waits_at_the_end_is_told(house: House) -> None:
    await house.open({"a": on_demand(house, knobs={"load_seconds": 600})})
    waiter = Waiter(house, "a")
    await house.reach("a", State.STARTING, seconds=GENEROUS_SECONDS)
    await placer(house).close()
    assert [error.code for error in waiter.failures] == ["shutting_down"]
    with pytest.raises(NotAvailableError):
        Waiter(house, "a")
    await house.supervisor.fleet.stop_and_wait("a")
