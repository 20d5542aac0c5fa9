"""Which replica takes a request, how long a failing one is left alone, how many slots an engine has: as tables."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import TypeAdapter

from supervisor.config.settings import InstanceSettings
from supervisor.gateway.admission.ejection import Ejection, EjectionFigures
from supervisor.gateway.admission.pace import Pace
from supervisor.gateway.admission.pool import Pool, Replica
from supervisor.gateway.admission.slots import VLLM_SLOTS, configured_slots
from supervisor.process.states import State
from supervisor.testing import FakeClock
from tests.fixtures.puppets import Puppet

FIGURES = EjectionFigures(failures=2, first_seconds=10, longest_seconds=35)


class Stage:
    """Replicas over puppets."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.puppets: list[Puppet] = []
        self.came_back: list[str] = []

    async def replica(self, *, slots: int = 2, in_flight: int = 0, ready: bool = True) -> Replica:
        """A replica that holds so many requests."""
        puppet = Puppet(f"r{len(self.puppets)}", self.clock)
        self.puppets.append(puppet)
        if ready:
            await puppet.ready()
        replica = Replica(puppet.instance, FIGURES, self.clock, lambda replica: self.came_back.append(replica.name))
        replica.set_slots(slots, 2.0)
        replica.in_flight = in_flight
        return replica


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    """Empty."""
    stage = Stage()
    yield stage
    for puppet in stage.puppets:
        await puppet.instance.close()


def eject(replica: Replica) -> None:
    """Let it fail until it is ejected."""
    for _ in range(FIGURES.failures):
        replica.failed()
    assert replica.is_ejected


@pytest.mark.parametrize(
    ("replicas", "calm", "chosen"),
    [
        ([{"in_flight": 3}], False, "r0"),
        ([{"in_flight": 4}], False, None),
        ([{"in_flight": 2}], True, None),
        ([{"in_flight": 1}], True, "r0"),
        ([{"ready": False}], False, None),
        ([{"in_flight": 1}, {"in_flight": 0}], False, "r1"),
        ([{"in_flight": 1}, {"in_flight": 1}], False, "r0"),
        ([{"in_flight": 4}, {"in_flight": 3}], False, "r1"),
        ([{"in_flight": 2}, {"in_flight": 3, "slots": 8}], False, "r1"),
        ([{"in_flight": 3}, {"ready": False}], False, "r0"),
        ([{"in_flight": 4}, {"ready": False}], False, None),
        ([], False, None),
    ],
)
async def test_the_replica_with_the_most_room_takes_it(
    stage: Stage, replicas: list[dict[str, Any]], calm: bool, chosen: str | None
) -> None:
    pool = Pool(tuple([await stage.replica(**one) for one in replicas]), 10)
    found = pool.choose(calm=calm)
    assert (found.name if found is not None else None) == chosen


async def test_an_ejected_replica_is_left_alone_but_never_the_last(stage: Stage) -> None:
    first, second, third = [await stage.replica() for _ in range(2)] + [await stage.replica(ready=False)]
    pool = Pool((first, second, third), 10)
    eject(first)
    second.in_flight = 4
    assert pool.choose() is None
    assert pool.places == 4
    eject(second)
    assert pool.choose() is first
    assert Pool((second,), 10).choose() is None
    second.in_flight = 3
    assert Pool((second,), 10).choose() is second


async def test_an_ejected_replica_comes_back_by_time_success_or_a_new_process(stage: Stage) -> None:
    replica = await stage.replica()
    eject(replica)
    stage.clock.advance(9.9)
    assert replica.is_ejected
    stage.clock.advance(0.2)
    assert not replica.is_ejected
    replica.failed()
    assert replica.is_ejected
    replica.succeeded()
    assert not replica.is_ejected
    eject(replica)
    await stage.puppets[0].die()
    await stage.puppets[0].pass_time(1.0)
    assert replica.instance.state is State.STARTING
    assert replica.observe() is State.READY
    assert not replica.is_ejected
    assert stage.came_back == ["r0"] * 3


def test_ejections_grow_and_are_forgotten_by_a_success() -> None:
    ejection = Ejection()
    assert ejection.failed(FIGURES) is None
    seconds = []
    for _ in range(4):
        seconds.append(ejection.failed(FIGURES))
        assert ejection.failed(FIGURES) is None
        ejection.returns()
    assert seconds == [10, 20, 35, 35]
    ejection.succeeded()
    assert [ejection.failed(FIGURES) for _ in range(2)] == [None, 10]


def test_an_ejection_that_has_failed_a_thousand_times_still_has_a_length() -> None:
    ejection = Ejection()
    for _ in range(1_100):
        ejection.failed(EjectionFigures(failures=1))
        ejection.returns()
    assert ejection.failed(EjectionFigures(failures=1)) == 300


async def test_hope_goes_to_the_readiest_that_has_not_failed(stage: Stage) -> None:
    stopped, crashed, starting = [await stage.replica(ready=False) for _ in range(3)]
    await stage.puppets[1].start()
    await stage.puppets[1].die()
    await stage.puppets[2].start()
    pool = Pool((stopped, crashed, starting), 10)
    hopes = []
    while (hope := pool.best_hope()) is not None:
        hopes.append(hope.name)
        pool.failed[hope] = KeyError()  # type: ignore[assignment]
    assert hopes == ["r2", "r1", "r0"]
    pool.failed.clear()
    starting.instance.retire()
    assert pool.best_hope() is crashed


def test_pace_is_a_running_average_and_tells_nothing_before_it_knows() -> None:
    pace = Pace()
    assert pace.wait_seconds(1, 4) is None
    pace.add(2.0)
    assert pace.wait_seconds(4, 4) == 2.0
    assert pace.wait_seconds(1, 0) is None
    for _ in range(100):
        pace.add(4.0)
    assert pace.wait_seconds(1, 1) == pytest.approx(4.0, abs=0.01)
    waits = [pace.wait_seconds(position, 3) or 0 for position in range(1, 9)]
    assert all(before < after for before, after in itertools.pairwise(waits))


@pytest.mark.parametrize(
    ("settings", "slots"),
    [
        ({"model": "demo", "engine": {"kind": "embedded", "parallel": 3}}, 3),
        ({"model": "demo"}, None),
        ({"model": "x", "engine": "vllm"}, VLLM_SLOTS),
        ({"engine": {"kind": "command", "argv": ["x"]}}, None),
        ({"url": "http://127.0.0.1:9", "engine": {"kind": "llama-server", "parallel": 3}}, None),
    ],
)
def test_slots_as_far_as_the_settings_tell(settings: dict[str, Any], slots: int | None) -> None:
    assert configured_slots(TypeAdapter(InstanceSettings).validate_python(settings)) == slots


@pytest.mark.parametrize(
    ("slots", "share", "limits"), [(2, 2.0, (4, 2)), (3, 1.5, (4, 3)), (1, 0.1, (1, 1)), (4, 0.5, (2, 2))]
)
async def test_in_flight_is_a_multiple_of_the_slots_and_at_least_one(
    stage: Stage, slots: int, share: float, limits: tuple[int, int]
) -> None:
    replica = await stage.replica()
    replica.set_slots(slots, share)
    assert (replica.limit, replica.calm_limit) == limits
