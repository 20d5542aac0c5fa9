"""Telling a slow engine from a lost one: a deadline on silence that asks before it gives up (rows 18 and 47)."""

from __future__ import annotations

import asyncio
from typing import Protocol

from supervisor.launch import LaunchSpec
from supervisor.process.instance import Instance
from supervisor.process.liveness import Counters
from supervisor.process.probe import Prober
from supervisor.process.states import State

PROBE_DEADLINE_SECONDS = 5.0
# A decode of one large batch may take seconds, in which no counter moves.
RECHECK_SECONDS = 10.0


class Listener(Protocol):
    """Who waits for an engine's bytes. `listening_since`: loop time of the last of them; None while nothing is waited for."""

    listening_since: float | None

    async def still_working(self) -> bool:
        """Whether the engine seems to be at work on it all the same."""

    def give_up(self) -> None:
        """It is lost."""


class Watchman:
    """Listens with many: who hears nothing of an engine for `limit_seconds` asks whether it still works, and gives up when it does not.

    One timer serves them all: a timer each would cost a tenth of what a request costs.
    """

    def __init__(self, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self._listeners: set[Listener] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._doubts: dict[Listener, asyncio.Task[None]] = {}

    def watch(self, listener: Listener) -> None:
        """From now until `forget`."""
        self._listeners.add(listener)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.limit_seconds, self._look)

    def forget(self, listener: Listener) -> None:
        """It needs no watching any more; idempotent."""
        self._listeners.discard(listener)
        if self._doubts:
            doubt = self._doubts.pop(listener, None)
            if doubt is not None:
                doubt.cancel()

    def close(self) -> None:
        """Forget all."""
        for listener in tuple(self._listeners):
            self.forget(listener)
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self.limit_seconds
        for listener in tuple(self._listeners):
            since = listener.listening_since
            if since is None or listener in self._doubts:
                continue
            if since + self.limit_seconds > loop.time():
                due = min(due, since + self.limit_seconds)
            else:
                self._doubts[listener] = asyncio.create_task(self._ask(listener, since), name="silence")
        self._timer = loop.call_at(due, self._look) if self._listeners else None

    async def _ask(self, listener: Listener, since: float) -> None:
        working = await listener.still_working()
        self._doubts.pop(listener, None)
        if listener not in self._listeners or listener.listening_since != since:
            return
        if working:
            # As good as a byte: the next question comes after another silence of this length.
            listener.listening_since = asyncio.get_running_loop().time()
        else:
            listener.give_up()


async def is_working(instance: Instance, spec: LaunchSpec, recheck_seconds: float) -> bool:
    """Whether the engine seems to be at work on our requests, though it says nothing to one of them.

    It is when its counters move while it counts at least as many requests as we have with it, or when it is too busy to say (then the supervisor's
    own judge decides; it knows more); counters are compared over `recheck_seconds`. An engine without
    counters, or that cannot be reached, is not.
    """
    prober = Prober(spec.address, spec.probe)
    try:
        before = await prober.counters(PROBE_DEADLINE_SECONDS)
        if not _may_be_working(instance, before):
            return False
        await asyncio.sleep(recheck_seconds)
        after = await prober.counters(PROBE_DEADLINE_SECONDS)
    finally:
        await prober.close()
    return _may_be_working(instance, after) and _has_moved(before, after)


def _may_be_working(instance: Instance, counters: Counters | None) -> bool:
    if instance.state is not State.READY or counters is None:
        return False
    return not counters.answered or counters.busy >= instance.requests_active


def _has_moved(before: Counters | None, after: Counters | None) -> bool:
    if before is None or after is None:
        return False
    return not (before.answered and after.answered) or after.advancing != before.advancing
