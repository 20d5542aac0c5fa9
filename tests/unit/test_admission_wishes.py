"""What the queue asks of whoever loads models, and that no order of events leaves anybody waiting for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from supervisor.errors import LlamavisorError, NotAvailableError
from supervisor.gateway.admission.places import Place
from supervisor.process.states import State
from tests.fixtures.lobby import Lobby, leave, lobby
from tests.fixtures.puppets import Puppet, settle
from tests.fixtures.wishes import RecordingLoads

T = TypeVar("T")
NO_MEMORY = NotAvailableError("It needs 5 GB, 3 are free.", code="no_memory", retry_after_seconds=5)


async def test_a_load_is_wished_for_once_and_as_long_as_somebody_waits() -> None:
    loads = RecordingLoads()
    async with lobby(loads=loads) as desk:
        first, second = await desk.ask(), await desk.ask()
        assert loads.log == ["+a"]
        first.cancel()
        await settle()
        assert loads.log == ["+a"]
        second.cancel()
        await settle()
        assert loads.log == ["+a", "-a"]
        third = await desk.ask()
        await desk["a"].ready()
        assert third.done()
        assert loads.log == ["+a", "-a", "+a", "-a"]
        await desk.fill(3)
        await desk.ask()
        assert not loads.open


async def test_a_load_that_fails_is_told_to_everybody_once() -> None:
    loads = RecordingLoads()
    async with lobby(loads=loads) as desk:
        waiting = [await desk.ask() for _ in range(3)]
        loads.fail("a", NO_MEMORY)
        await settle()
        errors = [task.exception() for task in waiting]
        assert [(error.code, error.retry_after_seconds) for error in errors if isinstance(error, LlamavisorError)] == [
            ("no_memory", 5)
        ] * 3
        assert not loads.open
        again = await desk.ask()
        assert not again.done()
        assert loads.log == ["+a", "-a", "+a"]


async def test_a_load_that_is_refused_at_once_is_told_at_once() -> None:
    loads = RecordingLoads()
    loads.refuse["a"] = NO_MEMORY
    async with lobby(loads=loads) as desk:
        assert isinstance(error := (await desk.ask()).exception(), NotAvailableError)
        assert error.code == "no_memory"
        assert not loads.open


async def test_when_one_replica_will_not_be_ready_the_next_is_wished_for() -> None:
    loads = RecordingLoads()
    loads.refuse["a"] = NO_MEMORY
    async with lobby("a", "b", "c", loads=loads) as desk:
        waiting = await desk.ask()
        assert loads.log == ["+a", "-a", "+b"] or loads.log == ["+a", "+b", "-a"]
        loads.fail("b", NO_MEMORY)
        assert [wish.instance for wish in loads.open] == ["c"]
        await desk["c"].ready()
        assert waiting.result().instance.name == "c"
        assert not loads.open


async def test_a_wish_moves_to_the_replica_that_is_nearer() -> None:
    loads = RecordingLoads()
    async with lobby("a", "b", loads=loads) as desk:
        await desk.ask()
        await desk["b"].start()
        assert loads.log == ["+a", "+b", "-a"]
        await desk["a"].start()
        assert loads.log == ["+a", "+b", "-a"]


async def test_what_is_stopped_meanwhile_is_wished_for_anew_before_the_old_wish_is_withdrawn() -> None:
    loads = RecordingLoads()
    async with lobby(loads=loads) as desk:
        await desk["a"].start()
        waiting = await desk.ask()
        await desk["a"].stop()
        assert loads.log == ["+a"]
        await desk["a"].vanish()
        assert loads.log == ["+a", "+a", "-a"]
        assert not waiting.done()


async def test_a_wish_may_mend_an_error_but_who_waited_for_it_is_told() -> None:
    loads = RecordingLoads()
    async with lobby(loads=loads, max_retries=0) as desk:
        await desk["a"].start()
        before = await desk.ask()
        await desk["a"].die()
        assert desk.find("a").state is State.ERROR
        assert isinstance(before.exception(), NotAvailableError)
        after = await desk.ask()
        assert not after.done()
        await desk["a"].ready()
        assert after.done()
        assert not loads.open


async def test_who_waits_for_what_is_held_back_wishes_for_it() -> None:
    loads = RecordingLoads()
    async with lobby(loads=loads) as desk:
        instance = await desk["a"].ready()
        instance.hold(hold=True)
        await desk.ask()
        assert loads.log == ["+a"]
        instance.hold(hold=False)
        assert loads.log == ["+a", "-a"]


async def test_what_a_reload_is_replacing_is_not_wished_for_until_the_new_one_is_there() -> None:
    loads = RecordingLoads()
    async with lobby(loads=loads) as desk:
        await desk["a"].start()
        await desk.ask()
        old = desk["a"]
        old.instance.retire()
        await old.stop()
        await old.vanish()
        assert loads.log == ["+a"]
        await old.instance.close()
        desk.puppets["a"] = Puppet("a", desk.clock)
        desk.admission.rebind([desk.find("a")])
        assert loads.log == ["+a", "+a", "-a"]


async def test_what_a_reload_has_replaced_is_given_another_chance() -> None:
    loads = RecordingLoads()
    async with lobby("a", "b", loads=loads) as desk:
        await desk.ask()
        loads.fail("a", NO_MEMORY)
        await desk["a"].instance.close()
        desk.puppets["a"] = Puppet("a", desk.clock)
        desk.admission.rebind([desk.find("a"), desk.find("b")])
        loads.fail("b", NO_MEMORY)
        assert [wish.instance for wish in loads.open] == ["a"]


async def test_closing_withdraws_every_wish() -> None:
    loads = RecordingLoads()
    async with lobby(loads=loads) as desk:
        await desk.ask()
        await desk.admission.close()
        assert not loads.open


class NobodyWaitsInVain(RuleBasedStateMachine):
    """Two replicas and three pools that share them, in any order of requests, ends, failures, states and time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loads = RecordingLoads()
        self.run(self._open())
        self.waiting: list[asyncio.Task[Place]] = []
        self.held: list[Place] = []

    async def _open(self) -> None:
        self.desk = Lobby(
            "a", "b", loads=self.loads, max_retries=1, queue_limit=8, queue_seconds=40.0, eject_failures=2
        )
        self.pools = [self.desk.pool_of("a"), self.desk.pool_of("b"), self.desk.pool_of("a", "b")]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @rule(number=st.integers(0, 2), project=st.sampled_from("pq"), batch=st.booleans(), times=st.integers(1, 4))
    def comes(self, number: int, project: str, batch: bool, times: int) -> None:
        for _ in range(times):
            self.waiting.append(self.run(self.desk.ask(project, pool=self.pools[number], batch=batch)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), end=st.sampled_from(["succeeded", "failed", "left"]))
    def ends(self, data: st.DataObject, end: str) -> None:
        place = data.draw(st.sampled_from(self.held))
        self.held.remove(place)
        if end != "left":
            getattr(place, end)()
        self.run(leave(place))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), in_the_same_breath=st.booleans())
    def goes_away(self, data: st.DataObject, in_the_same_breath: bool) -> None:
        task = data.draw(st.sampled_from(self.waiting))
        if in_the_same_breath and self.held:
            self.held.pop(0).leave()
        task.cancel()
        self.run(settle())

    @rule(
        name=st.sampled_from("ab"),
        event=st.sampled_from(["start", "answer", "die", "stop", "vanish", "hold", "release"]),
    )
    def state_changes(self, name: str, event: str) -> None:
        puppet, state = self.desk[name], self.desk.find(name).state
        if event in ("hold", "release"):
            puppet.instance.hold(hold=event == "hold")
            return self.run(settle())
        allowed = {
            "start": state in (State.INITIAL, State.CRASHED, State.ERROR),
            "answer": state is State.STARTING,
            "die": state in (State.STARTING, State.READY),
            "stop": state in (State.STARTING, State.READY, State.CRASHED),
            "vanish": bool(puppet.watches) and puppet.watches[-1].ended and not puppet.watches[-1].is_gone,
        }
        if allowed[event]:
            self.run(getattr(puppet, event)())
        return None

    @precondition(lambda self: self.loads.open)
    @rule(data=st.data())
    def a_wish_fails(self, data: st.DataObject) -> None:
        self.loads.fail(data.draw(st.sampled_from(self.loads.open)).instance, NO_MEMORY)
        self.run(settle())

    @rule(seconds=st.sampled_from([0.3, 2.0, 15.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.desk["a"].pass_time(seconds))

    def collect(self) -> None:
        """Note who got a place, and who was told that there is none."""
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.held.append(task.result())

    @invariant()
    def everybody_waits_or_has_been_told(self) -> None:
        self.collect()
        assert self.desk.admission.waiting() == len(self.waiting)

    @invariant()
    def places_are_counted_and_never_too_many(self) -> None:
        for name in "ab":
            taken = sum(place.instance.name == name for place in self.held)
            assert self.desk.admission.in_flight(name) == self.desk.find(name).requests_active == taken <= 4

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        for pool in self.pools:
            assert not pool.queue.size or pool.choose(calm=pool.queue.yields) is None

    @invariant()
    def who_waits_for_nobody_ready_is_wished_for_and_nobody_else(self) -> None:
        wanted = [pool for pool in self.pools if pool.queue.size and not pool.is_open]
        assert len(self.loads.open) == len(wanted)
        for pool in wanted:
            assert pool.wish is not None
            assert pool.wish.replica.name in pool.names

    def teardown(self) -> None:
        self.run(self.desk.close())
        assert not self.loads.open
        self.loop.close()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_nobody_waits_in_vain_in_any_order_of_events() -> None:
    # A step costs some ten times as much as one of the pure queue's.
    run_state_machine_as_test(NobodyWaitsInVain, settings=settings(max_examples=settings().max_examples // 4))
