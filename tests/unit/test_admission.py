"""Admission over instances without processes: places, turns, deadlines, cancelling, states, figures. The clock moves only when told."""

from __future__ import annotations

import asyncio
import random

import pytest

from supervisor.config.gateway_settings import GatewaySettings
from supervisor.errors import NotAvailableError, QueueFullError
from supervisor.gateway.accounting.callers import ANYONE
from supervisor.gateway.admission.waiters import Waiting
from supervisor.process.states import State
from tests.fixtures.lobby import Lobby, leave, lobby
from tests.fixtures.puppets import BAD_MODEL, Puppet, settle


async def test_a_free_place_is_taken_at_once_and_counts_as_a_request_until_it_is_left() -> None:
    async with lobby() as desk:
        instance = await desk["a"].ready()
        place = desk.admission.try_place(desk.pool)
        assert place is not None
        assert (place.instance, place.queued_ms, place.generation) == (instance, 0.0, 1)
        assert (desk.admission.in_flight("a"), instance.requests_active) == (1, 1)
        place.leave()
        place.leave()
        assert (desk.admission.in_flight("a"), instance.requests_active) == (0, 0)
        async with desk.admission.place(desk.pool, ANYONE) as again:
            assert desk.admission.in_flight("a") == 1
        assert again is not place
        assert desk.admission.in_flight("a") == 0


async def test_twice_the_slots_are_let_through_and_the_rest_in_turn() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        held = await desk.fill()
        assert desk.admission.try_place(desk.pool) is None
        waiting = {name: await desk.ask(name[0], name) for name in ("x1", "x2", "x3", "y1", "y2")}
        assert (desk.admission.waiting("a"), desk.admission.waiting(), desk.admission.limit("a")) == (5, 5, 4)
        desk.clock.advance(2)
        order = []
        while waiting:
            await leave(held.pop(0))
            for name in [name for name, task in waiting.items() if task.done()]:
                held.append(waiting.pop(name).result())
                order.append(name)
            assert desk.admission.in_flight("a") == 4
        assert order == ["x1", "y1", "x2", "y2", "x3"]
        assert held[-1].queued_ms == 2_000


async def test_who_waits_is_not_overtaken_by_who_comes() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        held = await desk.fill()
        first = await desk.ask()
        held[0].leave()
        assert desk.admission.try_place(desk.pool) is None
        await settle()
        assert first.done()


@pytest.mark.parametrize("seed", range(5))
async def test_64_clients_are_all_served_and_never_more_than_four_at_once(seed: int) -> None:
    source = random.Random(seed)
    async with lobby() as desk:
        await desk["a"].ready()
        most = 0

        async def client(number: int) -> None:
            nonlocal most
            async with desk.admission.place(desk.pool, ANYONE):
                most = max(most, desk.admission.in_flight("a"))
                for _ in range(source.randrange(4)):
                    await asyncio.sleep(0)

        async with asyncio.timeout(5):
            await asyncio.gather(*(client(number) for number in range(64)))
        assert most == 4
        assert (desk.admission.in_flight("a"), desk.admission.waiting()) == (0, 0)


async def test_row_41_who_leaves_while_queued_is_out_of_the_queue_at_once() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        held = await desk.fill()
        leaver, stayer = await desk.ask(), await desk.ask()
        leaver.cancel()
        await settle()
        assert leaver.cancelled()
        assert desk.admission.waiting() == 1
        await leave(held[0])
        assert stayer.done()
        assert desk.admission.in_flight("a") == 4


async def test_row_41_who_leaves_in_the_breath_of_the_grant_gives_the_place_back() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        held = await desk.fill()
        leaver, stayer = await desk.ask(), await desk.ask()
        held[0].leave()
        leaver.cancel()
        await settle()
        assert leaver.cancelled()
        assert stayer.done()
        assert desk.admission.in_flight("a") == desk.find("a").requests_active == 4


async def test_row_41_who_is_cancelled_before_the_grant_does_not_swallow_it() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        held = await desk.fill()
        leaver, stayer = await desk.ask(), await desk.ask()
        leaver.cancel()
        held[0].leave()
        await settle()
        assert leaver.cancelled()
        assert stayer.done()
        assert desk.admission.in_flight("a") == 4


async def test_a_deadline_ends_the_wait_with_a_word() -> None:
    async with lobby(queue_seconds=30.0) as desk:
        await desk["a"].ready()
        held = await desk.fill()
        patient, hasty = await desk.ask(batch=True), await desk.ask(within_seconds=5)
        usual = await desk.ask()
        await desk["a"].pass_time(5)
        assert isinstance(error := hasty.exception(), NotAvailableError)
        assert (error.code, error.retry_after_seconds) == ("queue_timeout", 5)
        assert "within 5 s" in error.message
        assert not usual.done()
        await desk["a"].pass_time(25)
        assert isinstance(usual.exception(), NotAvailableError)
        await desk["a"].pass_time(100_000)
        assert not patient.done()
        assert desk.admission.waiting() == 1
        await leave(*held)
        assert patient.done()


async def test_a_deadline_while_the_model_is_loaded_says_so() -> None:
    async with lobby(queue_seconds=30.0) as desk:
        await desk["a"].start()
        waiting = await desk.ask()
        await desk["a"].pass_time(30)
        assert isinstance(error := waiting.exception(), NotAvailableError)
        assert error.code == "starting"
        assert error.retry_after_seconds


async def test_a_full_queue_refuses_with_429_and_says_when_to_come_back() -> None:
    async with lobby(queue_limit=2) as desk:
        await desk["a"].ready()
        held = await desk.fill()
        desk.clock.advance(20)
        await leave(held[0])
        await desk.fill(1)
        waiting = [await desk.ask() for _ in range(2)]
        refused = await desk.ask()
        assert isinstance(error := refused.exception(), QueueFullError)
        assert (error.status, error.code, error.param) == (429, "queue_full", "model")
        # 20 s a request, 4 places, 2 who wait.
        assert error.retry_after_seconds == pytest.approx(10)
        assert not any(task.done() for task in waiting)


async def test_who_holds_the_most_of_a_full_queue_yields_and_is_told() -> None:
    async with lobby(queue_limit=2) as desk:
        await desk["a"].ready()
        await desk.fill()
        first, second = await desk.ask("greedy"), await desk.ask("greedy")
        modest = await desk.ask("modest")
        assert isinstance(error := second.exception(), QueueFullError)
        assert "yielded" in error.message
        assert not first.done()
        assert not modest.done()
        assert desk.admission.waiting() == 2


async def test_batch_requests_leave_the_room_beyond_the_slots_to_others() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        batch = [await desk.ask(batch=True) for _ in range(5)]
        assert [task.done() for task in batch] == [True, True, False, False, False]
        assert desk.admission.try_place(desk.pool, batch=True) is None
        interactive = await desk.ask()
        assert interactive.done()
        await leave(batch[0].result())
        assert not batch[2].done()
        await leave(interactive.result())
        assert batch[2].done()


async def test_batch_requests_are_served_under_steady_traffic() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        held = await desk.fill()
        batch = await desk.ask(batch=True)
        served = 0
        while not batch.done():
            task = await desk.ask()
            await leave(held.pop(0))
            if task.done():
                held.append(task.result())
                served += 1
        assert served == 15


async def test_batch_requests_are_not_passed_by_for_ever_by_who_finds_room_at_once() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        for _ in range(2):
            await desk.ask(batch=True)
        batch = await desk.ask(batch=True)
        served = 0
        while not batch.done():
            await leave((await desk.ask()).result())
            served += 1
        assert served == 16


# States


async def test_a_model_that_is_being_loaded_is_waited_for() -> None:
    async with lobby() as desk:
        await desk["a"].start()
        waiting = [await desk.ask() for _ in range(6)]
        assert not any(task.done() for task in waiting)
        await desk["a"].answer()
        assert [task.done() for task in waiting] == [True] * 4 + [False] * 2


async def test_what_nobody_starts_is_refused_at_once_with_its_reason() -> None:
    async with lobby() as desk:
        assert isinstance(error := (await desk.ask()).exception(), NotAvailableError)
        assert (error.code, error.retry_after_seconds) == ("initial", None)
        await desk["a"].start()
        await desk["a"].die(BAD_MODEL)
        assert isinstance(error := (await desk.ask()).exception(), NotAvailableError)
        assert error.code == "bad_model"
        assert desk.admission.waiting() == 0


async def test_a_crash_is_waited_out_and_giving_up_is_told_at_once() -> None:
    async with lobby(max_retries=1) as desk:
        await desk["a"].ready()
        held = await desk.fill()
        waiting = [await desk.ask() for _ in range(3)]
        await desk["a"].die()
        await leave(*held)
        assert desk.find("a").state is State.CRASHED
        assert not any(task.done() for task in waiting)
        await desk["a"].pass_time(1)
        await desk["a"].answer()
        assert all(task.done() for task in waiting)
        assert {task.result().generation for task in waiting} == {2}
        late = [await desk.ask() for _ in range(3)]
        await desk["a"].die()
        assert desk.find("a").state is State.ERROR
        errors = [task.exception() for task in late if task.done() and task not in late[:1]]
        assert [error.code for error in errors if isinstance(error, NotAvailableError)] == ["signal"] * 2
        assert len({id(error) for error in errors}) == 2


async def test_row_55_who_waits_when_it_is_stopped_is_told_once_it_has_stopped() -> None:
    async with lobby() as desk:
        await desk["a"].start()
        before = await desk.ask()
        await desk["a"].stop()
        during = await desk.ask()
        assert not before.done()
        assert not during.done()
        await desk["a"].vanish()
        for task in (before, during):
            assert isinstance(error := task.exception(), NotAvailableError)
            assert error.code == "initial"


async def test_row_55_who_waits_while_it_is_restarted_is_served() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        await desk.fill()
        waiting = await desk.ask()
        await desk.find("a").restart()
        await settle()
        await desk["a"].vanish()
        for place in [task.result() for task in desk.tasks if task.done()]:
            place.leave()
        await desk["a"].answer()
        assert waiting.result().generation == 2


async def test_an_instance_that_is_held_back_serves_nobody_new_until_it_is_let_go() -> None:
    async with lobby() as desk:
        instance = await desk["a"].ready()
        instance.hold(hold=True)
        waiting = await desk.ask()
        assert not waiting.done()
        instance.hold(hold=False)
        await settle()
        assert waiting.done()


async def test_another_replica_takes_over_and_only_when_all_fail_is_it_told() -> None:
    async with lobby("a", "b", max_retries=0) as desk:
        await desk["a"].start()
        await desk["b"].start()
        waiting = [await desk.ask() for _ in range(2)]
        await desk["a"].die(BAD_MODEL)
        assert not any(task.done() for task in waiting)
        await desk["b"].die()
        assert {error.code for task in waiting if isinstance(error := task.exception(), NotAvailableError)} == {
            "signal"
        }


# Replicas


async def test_requests_go_to_the_replica_that_has_the_fewest() -> None:
    async with lobby("a", "b") as desk:
        await desk["a"].ready()
        await desk["b"].ready()
        places = await desk.fill(8)
        assert [place.instance.name for place in places] == ["a", "b"] * 4
        waiting = await desk.ask()
        await leave(places[3])
        assert waiting.result().instance.name == "b"


async def test_a_replica_that_keeps_failing_is_left_alone_for_a_while() -> None:
    async with lobby("a", "b", eject_failures=2, eject_seconds=10.0) as desk:
        await desk["a"].ready()
        await desk["b"].ready()
        for _ in range(2):
            place = desk.admission.try_place(desk.pool)
            assert place is not None
            assert place.instance.name == "a"
            place.failed()
            place.leave()
        assert [place.instance.name for place in await desk.fill(4)] == ["b"] * 4
        waiting = await desk.ask()
        assert not waiting.done()
        await desk["a"].pass_time(10)
        assert waiting.result().instance.name == "a"


async def test_failures_of_a_process_that_is_gone_do_not_count_against_the_next() -> None:
    async with lobby("a", "b", eject_failures=1) as desk:
        await desk["a"].ready()
        await desk["b"].ready()
        place = desk.admission.try_place(desk.pool)
        assert place is not None
        await desk["a"].die()
        await desk["a"].pass_time(1)
        await desk["a"].answer()
        place.failed()
        place.leave()
        again = desk.admission.try_place(desk.pool)
        assert again is not None
        assert again.instance.name == "a"


async def test_pools_that_share_an_instance_take_turns_at_it() -> None:
    async with lobby("a", "b") as desk:
        await desk["a"].ready()
        narrow, wide = desk.pool_of("a"), desk.pool_of("a", "b")
        held = [(await desk.ask(pool=narrow)).result() for _ in range(4)]
        flood = [await desk.ask(pool=narrow) for _ in range(6)]
        few = [await desk.ask(pool=wide) for _ in range(2)]
        await leave(*held)
        assert [task.done() for task in few] == [True, True]
        assert sum(task.done() for task in flood) == 2


# Being told


async def test_who_waits_is_told_how_it_stands_but_not_too_often() -> None:
    async with lobby() as desk:
        await desk["a"].ready()
        held = await desk.fill()
        await desk["a"].pass_time(8)
        await leave(held.pop())
        await desk.fill(1)
        await desk.ask()
        await desk.ask()
        told: list[Waiting] = []
        await desk.ask(on_wait=told.append)
        assert told == [Waiting(3, 6.0, None, State.READY)]
        assert told[0].ahead == 2
        await leave(*held[:2])
        assert len(told) == 1
        await desk["a"].pass_time(0.25)
        assert [waiting.position for waiting in told] == [3, 1]
        await desk["a"].pass_time(60)
        assert len(told) == 2


async def test_who_waits_for_a_load_is_told_how_far_it_is() -> None:
    async with lobby() as desk:
        await desk["a"].start()
        told: list[Waiting] = []
        waiting = await desk.ask(on_wait=told.append)
        desk["a"].watches[-1].progress = 0.6  # type: ignore[assignment]
        await desk["a"].pass_time(0.25)
        await desk["a"].pass_time(10)
        assert told == [Waiting(1, None, None, State.STARTING), Waiting(1, None, 0.6, State.STARTING)]
        await desk["a"].answer()
        assert waiting.done()
        await desk["a"].pass_time(10)
        assert len(told) == 2


async def test_who_cannot_be_told_is_served_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async with lobby() as desk:
        await desk["a"].start()

        def fail(_waiting: Waiting) -> None:
            raise RuntimeError("a fault of somebody else's")

        told: list[Waiting] = []
        faulty, other = await desk.ask(on_wait=fail), await desk.ask(on_wait=told.append)
        await desk["a"].answer()
        assert faulty.done()
        assert other.done()
        assert told
        assert "a fault of somebody else's" in caplog.text


# Changes from outside


async def test_new_settings_take_effect_at_once() -> None:
    async with lobby(queue_limit=1) as desk:
        await desk["a"].ready()
        await desk.fill()
        waiting = await desk.ask()
        desk.admission.retune(GatewaySettings(queue_limit=2, in_flight_per_slot=2.5))
        await settle()
        assert waiting.done()
        more = [await desk.ask() for _ in range(3)]
        assert [task.done() for task in more] == [False, False, True]


async def replace(desk: Lobby, name: str) -> None:
    """What a reload does with an instance whose process differs now."""
    old = desk[name]
    old.instance.retire()
    await old.stop()
    await old.vanish()
    await old.instance.close()
    desk.puppets[name] = Puppet(name, desk.clock)


async def test_who_waits_for_an_instance_that_a_reload_replaces_waits_for_the_new_one() -> None:
    async with lobby() as desk:
        await desk["a"].start()
        pool = desk.pool
        waiting = await desk.ask()
        await replace(desk, "a")
        assert not waiting.done()
        await desk["a"].start()
        desk.admission.rebind([desk.find("a")])
        assert desk.pool is pool
        await desk["a"].answer()
        assert waiting.result().instance is desk.find("a")


async def test_who_waits_for_a_new_instance_that_nobody_starts_is_told() -> None:
    async with lobby() as desk:
        await desk["a"].start()
        waiting = await desk.ask()
        await replace(desk, "a")
        desk.admission.rebind([desk.find("a")])
        await settle()
        assert isinstance(error := waiting.exception(), NotAvailableError)
        assert error.code == "initial"


async def test_who_waits_for_what_a_reload_removes_is_served_by_the_rest_or_told() -> None:
    async with lobby("a", "b") as desk:
        await desk["a"].start()
        await desk["b"].start()
        both, alone = await desk.ask(), await desk.ask(pool=desk.pool_of("a"))
        desk.admission.rebind([desk.find("b")])
        await settle()
        assert isinstance(error := alone.exception(), NotAvailableError)
        assert (error.code, error.retry_after_seconds) == ("instance_removed", 1)
        assert not both.done()
        await desk["b"].answer()
        assert both.result().instance.name == "b"
        assert desk.admission.in_flight("b") == 1


async def test_a_pool_that_shrinks_to_one_that_there_is_already_is_dissolved() -> None:
    async with lobby("a", "b") as desk:
        await desk["a"].start()
        await desk["b"].start()
        known, both = await desk.ask(pool=desk.pool_of("b")), await desk.ask()
        old = desk.pool
        desk.admission.rebind([desk.find("b")])
        await settle()
        assert isinstance(both.exception(), NotAvailableError)
        assert isinstance((await desk.ask(pool=old)).exception(), NotAvailableError)
        await desk["b"].answer()
        assert known.done()


async def test_closing_tells_everybody() -> None:
    async with lobby() as desk:
        await desk["a"].start()
        waiting = await desk.ask(on_wait=lambda _waiting: None)
        await desk.admission.close()
        await settle()
        for task in (waiting, await desk.ask()):
            assert isinstance(error := task.exception(), NotAvailableError)
            assert error.code == "shutting_down"
        assert desk.admission.try_place(desk.pool) is None
