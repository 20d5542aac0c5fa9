"""The placer over any order of wishes, requests, deaths and waiting: nobody is forgotten, and nobody yields who must not.

The real placer, owner tasks, mailboxes and lifecycles run, on a fake clock; only the processes are `FakeWatch`es.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import Settings
from supervisor.errors import InstanceNotFoundError, LlamavisorError
from supervisor.events import EventLog
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.placement.memory import MachineMemory
from supervisor.fleet.placement.placer import Placer
from supervisor.process.figures import Figures
from supervisor.process.instance import Instance, Profile
from supervisor.process.messages import Answered, Exited
from supervisor.process.output import LogWriter, OutputCapture
from supervisor.process.states import Cause, ExitStatus, Reason, State
from supervisor.testing import FakeClock, FakeWatch

MIB = 1024**2
TURNS = 40
KILLED = Cause(Reason.SIGNAL, "killed by signal 9", exit=ExitStatus(signal=9))
COMMAND = {"engine": {"kind": "command", "argv": ["serve"]}, "autostart": False}
LIMIT_BYTES = 80 * MIB
BYTES = {"a": 30 * MIB, "b": 40 * MIB, "c": 60 * MIB, "pinned": 30 * MIB, "huge": 200 * MIB}
SETTINGS = Settings.model_validate(
    {
        # More patience than the end of a test takes: there nothing but what happens may wake anybody.
        "memory": {"limit_bytes": LIMIT_BYTES, "reserve_bytes": 1024, "patience_seconds": 500},
        "groups": {"pair": {}},
        "instances": {
            "a": {**COMMAND, "memory_bytes": BYTES["a"], "group": ["pair"]},
            "b": {**COMMAND, "memory_bytes": BYTES["b"], "group": ["pair"], "ttl_seconds": 60},
            "c": {**COMMAND, "memory_bytes": BYTES["c"]},
            "pinned": {**COMMAND, "memory_bytes": BYTES["pinned"], "pinned": True},
            "huge": {**COMMAND, "memory_bytes": BYTES["huge"]},
        },
    }
)


class Nursery:
    """Instances without processes; takes the place of a fleet."""

    def __init__(self, clock: FakeClock) -> None:
        self.watches: dict[str, FakeWatch] = {}
        self.listeners: list[Callable[[Instance, State], None]] = []
        self._instances = {name: self._make(name, clock) for name in SETTINGS.instances}

    def _make(self, name: str, clock: FakeClock) -> Instance:
        def watch(**lent: Any) -> FakeWatch:
            self.watches[name] = FakeWatch(**lent)
            return self.watches[name]

        output = OutputCapture(name, None, ring_lines=1, file_bytes=1, files=1, clock=clock, writer=LogWriter())
        figures = Figures(max_retries=1, retry_jitter=0)
        parts: Any = None
        instance = Instance(
            Profile(name, "command"), figures, parts, output, clock, lambda _snapshot: None, watch=watch
        )
        instance.on_change(lambda state: self._tell(instance, state))
        instance.open()
        return instance

    def _tell(self, instance: Instance, state: State) -> None:
        for listener in tuple(self.listeners):
            listener(instance, state)

    def names(self) -> list[str]:
        return list(self._instances)

    def instances(self) -> list[Instance]:
        return list(self._instances.values())

    def get(self, name: str) -> Instance:
        if name not in self._instances:
            raise InstanceNotFoundError(name)
        return self._instances[name]

    async def start(self, name: str) -> object:
        return await self.get(name).start()

    async def unload(self, name: str, states: frozenset[State], why: str) -> object:
        return await self.get(name).unload(states, why)

    def hold(self, name: str, *, hold: bool) -> None:
        self.get(name).hold(hold=hold)

    def on_change(self, listener: Callable[[Instance, State], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


class World:
    """What a test does to the placer, and what it has seen."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.fleet = Nursery(self.clock)
        self.placer = Placer(
            cast(Fleet, self.fleet),
            Path("/nowhere"),
            EventLog(self.clock),
            self.clock,
            read_machine=lambda: MachineMemory(10**12),
        )
        self.waiting: list[tuple[str, Callable[[], None], list[LlamavisorError]]] = []
        self.requests: list[tuple[str, ExitStack]] = []
        self.stopped: set[str] = set()
        # An instance's owner survives a listener that raises, so what is wrong is kept and asserted outside.
        self.wrongs: list[str] = []
        self.was_ready = False
        self.fleet.on_change(self._check_stop)

    def _check_stop(self, instance: Instance, state: State) -> None:
        if state is State.STARTING:
            self.stopped.discard(instance.name)
        elif state is State.STOPPING and instance.name not in self.stopped:
            self.wrongs += [f"{instance.name} was unloaded while it was busy"] if instance.requests_active else []
            self.wrongs += ["the pinned one was evicted"] if instance.name == "pinned" and self.was_ready else []
        if instance.name == "pinned":
            self.was_ready = state is State.READY

    def want(self, name: str) -> None:
        failures: list[LlamavisorError] = []
        self.waiting.append((name, self.placer.want(name, failures.append), failures))

    def withdraw(self, number: int) -> None:
        if self.waiting:
            self.waiting.pop(number % len(self.waiting))[1]()

    async def bring(self, name: str, busy: bool) -> None:
        """Have an instance ready, if it can be, and leave it idle or busy."""
        self.want(name)
        for what in ("go", "answer"):
            await self.settle()
            for one in BYTES:
                self.happen(one, what)
        await self.settle()
        self.withdraw(-1)
        if busy:
            self.begin(name)

    def begin(self, name: str) -> None:
        """A request, if the instance takes one."""
        if self.fleet.get(name).accepts_requests:
            under_way = ExitStack()
            under_way.enter_context(self.fleet.get(name).serving())
            self.requests.append((name, under_way))
            self.placer.used(name)

    def end(self, number: int) -> None:
        if self.requests:
            name, under_way = self.requests.pop(number % len(self.requests))
            under_way.close()
            self.placer.used(name)

    def happen(self, name: str, what: str) -> None:
        """Something becomes of a process: it answers, it dies, it is gone."""
        watch = self.fleet.watches.get(name)
        if watch is None or watch.is_gone:
            return
        if what == "answer" and not watch.ended:
            watch.report(Answered(watch.generation))
        elif what == "die" and not watch.ended:
            watch.report(Exited(watch.generation, KILLED))
        elif what == "go" and watch.ended:
            watch.settle()

    async def stop(self, name: str) -> None:
        """By hand."""
        self.stopped.add(name)
        await self.fleet.get(name).stop()

    def check(self) -> None:
        """What always holds: the group, the limit, and that who was told of a failure was told once."""
        assert not self.wrongs
        there = [one.name for one in self.fleet.instances() if one.remains]
        assert not {"a", "b"} <= set(there)
        assert sum(BYTES[name] for name in there) <= LIMIT_BYTES
        assert all(len(failures) <= 1 for _, _, failures in self.waiting)

    async def settle(self) -> None:
        """Let everybody have a turn."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def wind_up(self) -> None:
        """Everything goes well from now on; whoever gets what it waited for leaves. In the end nobody may be left waiting."""
        while self.requests:
            self.end(0)
        for _ in range(60):
            for name in BYTES:
                self.happen(name, "go")
                self.happen(name, "answer")
            ready = {one.name for one in self.fleet.instances() if one.accepts_requests}
            for entry in [one for one in self.waiting if one[0] in ready or one[2]]:
                self.waiting.remove(entry)
                entry[1]()
            self.clock.advance(1.0)
            await self.settle()
            self.check()
        assert not self.waiting, f"still waiting for {[name for name, _, _ in self.waiting]}"

    async def close(self) -> None:
        await self.placer.close()
        for instance in self.fleet.instances():
            await instance.close()


NAMES = st.sampled_from(sorted(BYTES))
STEPS = st.one_of(
    st.tuples(st.just("want"), NAMES),
    st.tuples(st.just("bring"), NAMES, st.booleans()),
    st.tuples(st.just("bring"), NAMES, st.booleans()),
    st.tuples(st.just("withdraw"), st.integers(0, 9)),
    st.tuples(st.just("begin"), NAMES),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("happen"), NAMES, st.sampled_from(["answer", "answer", "die", "go", "go"])),
    st.tuples(st.just("stop"), NAMES),
    st.tuples(st.just("advance"), st.floats(0.01, 90)),
)


async def act(world: World, step: tuple[Any, ...]) -> None:
    """Take one step."""
    kind, *arguments = step
    if kind == "advance":
        world.clock.advance(*arguments)
    else:
        done = getattr(world, kind)(*arguments)
        if isinstance(done, Coroutine):
            await done


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Instead of a thread: what runs there is short, and the order stays the same each time."""
    return function(*arguments)


async def play(steps: list[tuple[Any, ...]], turns: list[bool]) -> None:
    """All steps; between some of them everybody has a turn, others come in the same breath."""
    world = World()
    with patch("asyncio.to_thread", at_once):
        await world.placer.open(SETTINGS)
        try:
            for step, has_turn in zip(steps, turns, strict=False):
                await act(world, step)
                if has_turn:
                    await world.settle()
                world.check()
            await world.settle()
            await world.wind_up()
        finally:
            await world.close()


@given(st.lists(STEPS, min_size=10, max_size=30), st.lists(st.booleans(), min_size=30, max_size=30))
def test_nobody_is_forgotten_and_nobody_yields_who_must_not(steps: list[tuple[Any, ...]], turns: list[bool]) -> None:
    asyncio.run(play(steps, turns))
