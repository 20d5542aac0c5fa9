"""The instance against a reference model, on a fake clock: any order of requests, observations and waiting.

The real owner task, mailbox, timers and lifecycle run; only the process is a `FakeWatch`. The profile of Hypothesis sets the number of
steps: 5,000 in a test run, 100,000 in `make soak`.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from supervisor.errors import StateConflictError
from supervisor.process.figures import Figures
from supervisor.process.instance import Instance, Profile
from supervisor.process.messages import Answered, CannotStart, Exited, Failed
from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import Cause, ExitStatus, Reason, State
from supervisor.testing import FakeClock, FakeWatch

FIGURES = Figures(max_retries=3, retry_jitter=0)
KILLED = Cause(Reason.SIGNAL, "killed by signal 9", exit=ExitStatus(signal=9))
BAD_MODEL = Cause(Reason.BAD_MODEL, "not a model", permanent=True)
WEDGED = Cause(Reason.WEDGED, "no token came")
# Every refused event leaves the state alone; these are the only moves that the contract's table holds.
ALLOWED = {
    ("initial", "starting"), ("crashed", "starting"), ("error", "starting"), ("starting", "ready"),
    ("starting", "crashed"), ("ready", "crashed"), ("crashed", "error"), ("starting", "error"),
    ("starting", "stopping"), ("ready", "stopping"), ("crashed", "stopping"), ("error", "stopping"),
    ("stopping", "initial"), ("stopping", "error"),
}  # fmt: skip


@dataclass
class Reference:
    """What the contract says, written a second time and differently: one dictionary of facts, no machine, no effects."""

    state: str = "initial"
    retries: int = 0
    alive: bool = False
    retry_at: float | None = None
    stable_at: float | None = None
    then_start: bool = False
    wanted: bool = False
    unkillable: bool = False
    launches: int = 0

    def launch(self) -> None:
        self.state, self.alive, self.retry_at, self.stable_at, self.wanted = "starting", True, None, None, False
        self.launches += 1

    def start(self) -> bool:
        if self.state == "crashed":
            if self.alive:
                self.retry_at = float("-inf")
            else:
                self.launch()
            return True
        if self.state == "initial" or (self.state == "error" and not self.unkillable):
            self.wanted = True
            self.begin_if_wanted()
            return True
        return False

    def begin_if_wanted(self) -> None:
        if self.wanted and not self.alive:
            self.retries = 0
            self.launch()

    def stop(self, *, then_start: bool = False) -> None:
        self.then_start, self.wanted = then_start, False
        if self.state in ("initial", "stopping"):
            return
        self.state, self.retry_at, self.stable_at = "stopping", None, None
        if not self.alive:
            self.stopped()

    def stopped(self) -> None:
        self.state, self.retries = "initial", 0
        if self.then_start:
            self.then_start = False
            self.launch()

    def restart(self) -> bool:
        if self.state == "initial":
            return self.start()
        if self.state == "stopping" or self.unkillable:
            return False
        self.stop(then_start=True)
        return True

    def ended(self, now: float, *, permanent: bool) -> None:
        if permanent and self.state == "starting":
            self.state = "error"
        elif self.retries < FIGURES.max_retries:
            self.retries += 1
            self.state, self.retry_at = "crashed", now + 2 ** (self.retries - 1)
        else:
            self.state = "error"
        self.stable_at = None

    def gone(self, now: float) -> None:
        self.alive = self.unkillable = False
        if self.state == "stopping":
            self.stopped()
        self.begin_if_wanted()
        self.time_passes(now)

    def stuck(self) -> None:
        self.retry_at, self.then_start, self.wanted, self.unkillable = None, False, False, True
        if self.state in ("stopping", "crashed"):
            self.state = "error"

    def time_passes(self, now: float) -> None:
        if self.stable_at is not None and now >= self.stable_at:
            self.retries, self.stable_at = 0, None
        if self.state == "crashed" and self.retry_at is not None and now >= self.retry_at and not self.alive:
            self.launch()


class _NoOutput:
    """The instance closes its output; there is no process to have any."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Bench:
    """One instance with everything around it faked but its own parts."""

    clock: FakeClock = field(default_factory=FakeClock)
    told: list[str] = field(default_factory=lambda: ["initial"])
    watches: list[FakeWatch] = field(default_factory=list)

    def watch(self, **lent: Any) -> FakeWatch:
        self.watches.append(FakeWatch(**lent))
        return self.watches[-1]

    def publish(self, snapshot: InstanceSnapshot) -> None:
        if snapshot.state.value != self.told[-1]:
            self.told.append(snapshot.state.value)

    def instance(self) -> Instance:
        nothing: Any = None
        output: Any = _NoOutput()
        return Instance(
            Profile("one", "command"),
            FIGURES,
            nothing,
            output,
            self.clock,
            self.publish,
            watch=self.watch,
        )


class InstanceAgainstReference(RuleBasedStateMachine):
    """Rules are what may happen to an instance; the invariants hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bench = Bench()
        self.model = Reference()
        self.one = self.loop.run_until_complete(self._opened())

    async def _opened(self) -> Instance:
        one = self.bench.instance()
        one.open()
        return one

    def settle(self) -> None:
        """Let the mailbox empty; nothing waits for real time."""
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))

    def ask(self, name: str) -> bool:
        try:
            self.loop.run_until_complete(getattr(self.one, name)())
        except StateConflictError as refusal:
            taken, state_said = False, refusal.details["state"]
        else:
            taken, state_said = True, self.model.state
        self.settle()
        assert state_said == self.model.state
        return taken

    @property
    def latest(self) -> FakeWatch:
        return self.bench.watches[-1]

    def told(self, message: Any) -> None:
        self.latest.report(message)
        self.settle()

    @rule()
    def start(self) -> None:
        assert self.ask("start") == self.model.start()

    @rule()
    def stop(self) -> None:
        assert self.ask("stop")
        self.model.stop()

    @rule()
    def restart(self) -> None:
        assert self.ask("restart") == self.model.restart()

    @precondition(lambda self: self.model.state == "starting")
    @rule()
    def answers(self) -> None:
        self.told(Answered(self.latest.generation))
        self.model.state, self.model.stable_at = "ready", self.bench.clock.monotonic() + 60

    @precondition(lambda self: self.model.state in ("starting", "ready"))
    @rule(kind=st.sampled_from(["exits", "wedges", "bad model", "cannot start"]))
    def ends(self, kind: str) -> None:
        generation = self.latest.generation
        report = {
            "exits": Exited(generation, KILLED),
            "wedges": Failed(generation, WEDGED),
            "bad model": Exited(generation, BAD_MODEL),
            "cannot start": CannotStart(generation, BAD_MODEL),
        }[kind]
        self.told(report)
        if kind != "cannot start" or self.model.state == "starting":
            self.model.ended(self.bench.clock.monotonic(), permanent=kind in ("bad model", "cannot start"))

    @precondition(lambda self: self.model.alive and self.bench.watches and self.latest.ended)
    @rule()
    def everything_is_gone(self) -> None:
        self.latest.settle()
        self.settle()
        self.model.gone(self.bench.clock.monotonic())

    @precondition(lambda self: self.model.alive and self.bench.watches and self.latest.ended)
    @rule()
    def survives_the_kill(self) -> None:
        self.latest.survive_kill()
        self.settle()
        self.model.stuck()

    @precondition(lambda self: len(self.bench.watches) > 1)
    @rule(data=st.data())
    def stale_news(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.bench.watches[:-1]))
        message = data.draw(st.sampled_from([Answered(old.generation), Exited(old.generation, KILLED)]))
        self.told(message)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 4.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)
        self.settle()
        self.model.time_passes(self.bench.clock.monotonic())

    @rule(seconds=st.sampled_from([-86_400.0, 86_400.0]))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.bench.clock.jump_wall(seconds)

    @invariant()
    def agrees_with_the_reference(self) -> None:
        assert self.one.state.value == self.model.state
        assert self.one.snapshot().retries == self.model.retries
        assert len(self.bench.watches) == self.model.launches

    @invariant()
    def at_most_one_generation_lives(self) -> None:
        assert all(watch.is_gone for watch in self.bench.watches[:-1])

    @invariant()
    def only_moves_of_the_table_are_told(self) -> None:
        told = self.bench.told
        assert set(itertools.pairwise(told)) <= ALLOWED
        assert told[-1] == self.model.state

    @invariant()
    def nothing_settles_without_a_reason(self) -> None:
        snapshot = self.one.snapshot()
        assert snapshot.state not in (State.CRASHED, State.ERROR) or snapshot.cause is not None

    def teardown(self) -> None:
        self.loop.run_until_complete(self.one.close())
        self.loop.close()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_any_order_of_events_agrees_with_the_reference() -> None:
    run_state_machine_as_test(InstanceAgainstReference)
