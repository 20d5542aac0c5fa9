"""Fakes for tests of Llamavisor and of what is built on it: a clock that only moves when told, and a generation without a process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

from supervisor.process.messages import Gone, Message, Stuck
from supervisor.process.states import Cause, Reason


class FakeTimer:
    """A call that `FakeClock` will make."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._cancelled = False

    def cancel(self) -> None:
        """See `Timer.cancel`."""
        self._cancelled = True

    def fire(self) -> None:
        """Make the call unless it was cancelled."""
        if not self._cancelled:
            self._cancelled = True
            self._callback()


class FakeClock:
    """A `Clock` whose time moves only by `advance`. `jump_wall` moves the wall clock alone, as an administrator or NTP does."""

    def __init__(self, *, wall: float = 1_700_000_000.0) -> None:
        self._now = 0.0
        self._wall_offset = wall
        self._order = itertools.count()
        self._due: list[tuple[float, int, FakeTimer]] = []

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._now

    def wall(self) -> float:
        """See `Clock.wall`."""
        return self._now + self._wall_offset

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back; monotonic time does not move."""
        self._wall_offset += seconds

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> FakeTimer:
        """See `Clock.call_later`."""
        timer = FakeTimer(callback)
        heapq.heappush(self._due, (self._now + delay_seconds, next(self._order), timer))
        return timer

    async def sleep(self, delay_seconds: float) -> None:
        """See `Clock.sleep`."""
        slept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(delay_seconds, lambda: None if slept.done() else slept.set_result(None))
        await slept

    def advance(self, seconds: float) -> None:
        """Move time on, making every call that falls due, each at its own time."""
        until = self._now + seconds
        while self._due and self._due[0][0] <= until:
            due_at, _, timer = heapq.heappop(self._due)
            self._now = max(self._now, due_at)
            timer.fire()
        self._now = until


class FakeWatch:
    """A generation without a process: the test says what it observes (`report`) and whether it can be ended (`unkillable`).

    Takes the place of `process.watch.Watch` in an `Instance`. `ended` is set when the instance has asked for its end; nothing is gone before
    `settle` says so.
    """

    def __init__(self, *, generation: int, report: Callable[[Message], None], **_lent: Any) -> None:
        self.generation = generation
        self.report = report
        self.spec = None
        self.handle = None
        self.models = ()
        self.parts: dict[str, int] = {}
        self.progress = None
        self.begun = False
        self.ended = False
        self.graceful = False
        self.is_gone = False

    def begin(self) -> None:
        """See `Watch.begin`."""
        self.begun = True

    def retune(self, _figures: object) -> None:
        """See `Watch.retune`."""

    async def end(self, *, graceful: bool, kill_adopted: bool) -> None:
        """Note the wish; see `settle`."""
        self.ended, self.graceful = True, graceful

    async def close(self) -> None:
        """See `Watch.close`."""

    def settle(self) -> None:
        """Every process of this generation is gone."""
        self.is_gone = True
        self.report(Gone(self.generation))

    def survive_kill(self) -> None:
        """Something of this generation survives SIGKILL."""
        self.report(Stuck(self.generation, Cause(Reason.UNKILLABLE, "process 1 survives SIGKILL", permanent=True)))
