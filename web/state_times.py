"""How long each instance has been in each state, how often it was started again, loaded and unloaded, and why; counted from the event log."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from supervisor.clock import Clock
from supervisor.events import Event, EventLog, Subscription
from supervisor.process.states import State

# By the event that tells of it.
UNLOADINGS = {"evicted": "evicted", "unloaded": "idle", "load_cancelled": "no_waiters"}


class StateTimes:
    """Pure bookkeeping; time is given in, monotonic seconds."""

    def __init__(self) -> None:
        self.restarts: Counter[tuple[str, str]] = Counter()
        self.loads: Counter[str] = Counter()
        self.unloads: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._present: dict[str, tuple[str, float]] = {}
        self._crash_reasons: dict[str, str] = {}

    def observe(self, event: Event, now: float) -> None:
        """Take one event of the log in."""
        if event.instance is None:
            return
        if event.type == "llama_status":
            self._enter(event.instance, str(event.data["status"]), event.data["reason"], now)
        elif event.type in UNLOADINGS:
            self.unloads[event.instance, UNLOADINGS[event.type]] += 1
        elif event.type == "instance_removed":
            self._present.pop(event.instance, None)

    def seconds(self, now: float) -> dict[tuple[str, str], float]:
        """Seconds by instance and state, the present state's included; states that an instance never was in are 0."""
        totals: dict[tuple[str, str], float] = {}
        for name, (present, since) in self._present.items():
            for state in State:
                running = now - since if state.value == present else 0.0
                totals[name, state.value] = self._seconds.get((name, state.value), 0.0) + running
        return totals

    def _enter(self, name: str, state: str, reason: str | None, now: float) -> None:
        before, since = self._present.get(name, (state, now))
        if state in (State.CRASHED, State.ERROR) and reason is not None:
            self._crash_reasons[name] = reason
        if before == state and name in self._present:
            return
        self._seconds[name, before] += now - since
        self._present[name] = (state, now)
        if before == State.STARTING and state == State.READY:
            self.loads[name] += 1
        if before == State.CRASHED and state == State.STARTING:
            self.restarts[name, self._crash_reasons.get(name, "unknown")] += 1


class StateTimesReader:
    """Keeps a `StateTimes` up to the event log. The log is read, not the subscription's newest: that one leaves short states out."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self.times = StateTimes()
        self._events = events
        self._clock = clock
        self._seq = 0
        self._subscription: Subscription | None = None
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with what the log holds, and follow it."""
        self._subscription = self._events.subscribe()
        self.catch_up()
        self._reading = asyncio.create_task(self._read(self._subscription), name="metrics:states")

    async def close(self) -> None:
        """Stop following."""
        if self._subscription is not None:
            self._subscription.close()
        if self._reading is not None:
            await self._reading

    def catch_up(self) -> None:
        """Take in what is new in the log."""
        now = self._clock.monotonic()
        for event in self._events.since(self._seq) or self._events.since(self._events.seq - 1) or ():
            self.times.observe(event, now)
        self._seq = self._events.seq

    async def _read(self, subscription: Subscription) -> None:
        async for _ in subscription:
            self.catch_up()
