"""The decision core: every row of the table, retries, and the races that are sequences of messages."""

from __future__ import annotations

import random

import pytest

from supervisor.errors import StateConflictError
from supervisor.process import messages as life
from supervisor.process.lifecycle import Lifecycle
from supervisor.process.machine import TABLE, StateMachine, Trigger, mermaid_diagram
from supervisor.process.retry import RetryPolicy
from supervisor.process.states import Cause, ExitStatus, Reason, State

KILLED = Cause(Reason.SIGNAL, "killed by signal 9", exit=ExitStatus(signal=9))
BAD_MODEL = Cause(Reason.BAD_MODEL, "not a model", permanent=True)
UNRESPONSIVE = Cause(Reason.UNRESPONSIVE, "does not answer")
STUCK = Cause(Reason.UNKILLABLE, "survives SIGKILL", permanent=True)


def core(**figures: float) -> Lifecycle:
    policy = RetryPolicy(jitter=0, **figures)  # type: ignore[arg-type]
    return Lifecycle(policy, random.Random(1))


def ready(**figures: float) -> Lifecycle:
    one = core(**figures)
    one.handle(life.Start(), 0)
    one.handle(life.Answered(one.generation), 1)
    return one


def crashed(**figures: float) -> Lifecycle:
    one = ready(**figures)
    one.handle(life.Exited(one.generation, KILLED), 2)
    return one


def state_of(one: Lifecycle) -> State:
    """Read anew each time: a type checker takes an attribute that was compared for a constant."""
    return one.state


def kinds(effects: tuple[life.Effect, ...]) -> list[type]:
    return [type(effect) for effect in effects if not isinstance(effect, life.Disarm)]


def delays(effects: tuple[life.Effect, ...], timer: life.Timer) -> list[float]:
    return [effect.delay_seconds for effect in effects if isinstance(effect, life.Arm) and effect.timer is timer]


@pytest.mark.parametrize("trigger", list(Trigger))
@pytest.mark.parametrize("state", list(State))
def test_the_table_is_followed_and_everything_else_refused(trigger: Trigger, state: State) -> None:
    machine = StateMachine(lambda *_: None)
    machine.state = state
    targets = [target for name, sources, target in TABLE if name is trigger and state in sources]
    if targets:
        machine.fire(trigger)
        assert [machine.state] == targets
    else:
        with pytest.raises(StateConflictError) as refusal:
            machine.fire(trigger)
        assert refusal.value.status == 409
        assert refusal.value.details == {"state": state.value}
        assert machine.state is state


def test_the_diagram_holds_every_transition_once() -> None:
    lines = mermaid_diagram().splitlines()[2:]
    assert len(lines) == len(set(lines)) == sum(len(sources) for _, sources, _ in TABLE)


def test_a_start_launches_a_generation() -> None:
    one = core()
    assert one.handle(life.Start(), 0)[-1] == life.Launch(1)
    assert state_of(one) is State.STARTING


def test_a_crash_ends_the_remains_and_waits_before_the_retry() -> None:
    one = ready()
    effects = one.handle(life.Exited(1, KILLED), 5)
    assert kinds(effects) == [life.Changed, life.End, life.Arm]
    assert (one.state, one.retries, one.next_retry_at) == (State.CRASHED, 1, 6)


def test_the_retry_waits_for_the_last_process_of_the_old_generation() -> None:
    one = crashed()
    assert kinds(one.handle(life.TimerDue(life.Timer.RETRY, 1), 3)) == []
    assert state_of(one) is State.CRASHED
    assert kinds(one.handle(life.Gone(1), 9)) == [life.Changed, life.Launch]
    assert one.generation == 2


def test_the_delays_double_up_to_the_cap() -> None:
    policy = RetryPolicy(jitter=0)
    assert [policy.delay_seconds(n, random.Random(0)) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def test_jitter_stays_within_its_share() -> None:
    source = random.Random(0)
    tries = [RetryPolicy(jitter=0.1).delay_seconds(1, source) for _ in range(1_000)]
    assert 0.9 <= min(tries) < 0.95 < 1.05 < max(tries) <= 1.1


def test_a_loop_that_reaches_ready_for_a_moment_ends_in_error() -> None:
    one = core(max_retries=5)
    one.handle(life.Start(), 0)
    waits: list[float] = []
    while one.state is not State.ERROR:
        generation = one.generation
        one.handle(life.Answered(generation), 0)
        waits += delays(one.handle(life.Exited(generation, KILLED), 0), life.Timer.RETRY)
        one.handle(life.Gone(generation), 0)
        one.handle(life.TimerDue(life.Timer.RETRY, generation), 0)
    assert waits == [1, 2, 4, 8, 16]
    assert one.cause == KILLED


def test_crashed_is_told_before_error() -> None:
    one = ready(max_retries=0)
    told = [effect.state for effect in one.handle(life.Exited(1, KILLED), 0) if isinstance(effect, life.Changed)]
    assert told == [State.CRASHED, State.ERROR]


def test_retries_come_back_only_after_a_stable_minute() -> None:
    one = crashed()
    one.handle(life.Gone(1), 2)
    one.handle(life.TimerDue(life.Timer.RETRY, 1), 3)
    effects = one.handle(life.Answered(2), 4)
    assert delays(effects, life.Timer.STABLE) == [60]
    assert one.retries == 1
    one.handle(life.TimerDue(life.Timer.STABLE, 2), 64)
    assert one.retries == 0


def test_what_no_retry_helps_goes_to_error_at_once() -> None:
    one = core()
    one.handle(life.Start(), 0)
    one.handle(life.Exited(1, BAD_MODEL), 1)
    assert (one.state, one.retries) == (State.ERROR, 0)


def test_a_permanent_cause_after_ready_is_still_a_crash() -> None:
    one = ready()
    one.handle(life.Exited(1, BAD_MODEL), 1)
    assert state_of(one) is State.CRASHED


@pytest.mark.parametrize("make", [ready, crashed])
def test_a_stop_cancels_everything_and_ends_in_initial(make: type) -> None:
    one: Lifecycle = make()
    effects = one.handle(life.Stop(), 3)
    assert life.Disarm(life.Timer.RETRY) in effects
    assert any(isinstance(effect, life.End) and effect.graceful for effect in effects)
    one.handle(life.Gone(1), 4)
    assert (one.state, one.retries, one.cause) == (State.INITIAL, 0, None)


def test_a_stop_during_backoff_with_nothing_left_is_done_at_once() -> None:
    one = crashed()
    one.handle(life.Gone(1), 2)
    one.handle(life.Stop(), 3)
    assert state_of(one) is State.INITIAL


def test_death_during_a_stop_is_no_crash() -> None:
    one = ready()
    one.handle(life.Stop(), 2)
    one.handle(life.Exited(1, KILLED), 3)
    assert state_of(one) is State.STOPPING
    one.handle(life.Gone(1), 3)
    assert state_of(one) is State.INITIAL


def test_stop_is_idempotent() -> None:
    one = core()
    assert one.handle(life.Stop(), 0) == ()
    one = ready()
    one.handle(life.Stop(), 1)
    assert one.handle(life.Stop(), 1) == ()


IDLE = life.Unload(frozenset({State.READY}), "idle for 9 s")


def test_who_was_unloaded_tells_why_until_it_is_started_again() -> None:
    one = ready()
    one.handle(IDLE, 2)
    assert (one.state, one.unloaded) == (State.STOPPING, IDLE.why)
    one.handle(life.Stop(), 3)
    one.handle(life.Gone(1), 4)
    assert (state_of(one), one.unloaded) == (State.INITIAL, IDLE.why)
    one.handle(life.Start(), 5)
    assert one.unloaded is None
    with pytest.raises(StateConflictError):
        one.handle(IDLE, 6)
    assert one.unloaded is None


def test_a_stop_by_hand_does_not_tell_of_an_unload_that_came_to_nothing() -> None:
    one = ready()
    one.handle(IDLE, 2)
    one.handle(life.Stuck(1, STUCK), 8)
    one.handle(life.Stop(), 9)
    assert (state_of(one), one.unloaded) == (State.STOPPING, None)


def test_a_restart_is_one_stop_and_one_start() -> None:
    one = ready()
    one.handle(life.Restart(), 2)
    assert state_of(one) is State.STOPPING
    one.handle(life.Gone(1), 3)
    assert (one.state, one.generation) == (State.STARTING, 2)


def test_a_stop_after_a_restart_wins() -> None:
    one = ready()
    one.handle(life.Restart(), 2)
    one.handle(life.Stop(), 2)
    one.handle(life.Gone(1), 3)
    assert state_of(one) is State.INITIAL


def test_a_refused_restart_leaves_nothing_behind() -> None:
    one = ready()
    one.handle(life.Stop(), 2)
    with pytest.raises(StateConflictError):
        one.handle(life.Restart(), 2)
    one.handle(life.Gone(1), 3)
    assert state_of(one) is State.INITIAL


def test_a_start_while_crashed_skips_the_backoff_but_not_the_remains() -> None:
    one = crashed()
    one.handle(life.Start(), 3)
    assert state_of(one) is State.CRASHED
    one.handle(life.Gone(1), 4)
    assert state_of(one) is State.STARTING


def test_a_start_right_after_an_error_waits_for_the_remains() -> None:
    one = core()
    one.handle(life.Start(), 0)
    one.handle(life.CannotStart(1, BAD_MODEL), 1)
    one.handle(life.Start(), 2)
    assert state_of(one) is State.ERROR
    one.handle(life.Gone(1), 3)
    assert (state_of(one), one.generation) == (State.STARTING, 2)


def test_what_cannot_be_killed_keeps_its_slot() -> None:
    one = ready()
    one.handle(life.Stop(), 2)
    one.handle(life.Stuck(1, STUCK), 8)
    assert (one.state, one.remains) == (State.ERROR, True)
    with pytest.raises(StateConflictError):
        one.handle(life.Start(), 9)
    one.handle(life.Gone(1), 99)
    one.handle(life.Start(), 100)
    assert state_of(one) is State.STARTING


def test_stuck_after_a_crash_gives_up() -> None:
    one = crashed()
    one.handle(life.Stuck(1, STUCK), 8)
    assert state_of(one) is State.ERROR
    assert one.handle(life.TimerDue(life.Timer.RETRY, 1), 9) == ()


def test_a_timer_of_an_old_generation_cuts_no_backoff_short() -> None:
    one = crashed()
    first = one.generation
    one.handle(life.Gone(first), 2)
    one.handle(life.Start(), 2)
    one.handle(life.Exited(one.generation, KILLED), 3)
    one.handle(life.Gone(one.generation), 3)
    assert one.handle(life.TimerDue(life.Timer.RETRY, first), 3) == ()
    assert state_of(one) is State.CRASHED


def test_news_of_an_old_generation_changes_nothing() -> None:
    one = crashed()
    one.handle(life.Gone(1), 2)
    one.handle(life.TimerDue(life.Timer.RETRY, 1), 3)
    for stale in (life.Answered(1), life.Exited(1, KILLED), life.Failed(1, UNRESPONSIVE), life.Gone(1)):
        assert one.handle(stale, 4) == ()
    assert state_of(one) is State.STARTING


def test_a_frozen_server_is_crashed_at_once_and_killed_without_grace() -> None:
    one = ready()
    effects = one.handle(life.Failed(1, UNRESPONSIVE), 9)
    assert effects[1] == life.Changed(State.CRASHED)
    assert life.End(1, graceful=False) in effects
