"""Telling a slow engine from a lost one: a deadline on silence that asks before it gives up (rows 18 and 47)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from supervisor.launch import LaunchSpec
from supervisor.process.instance import Instance
from supervisor.process.liveness import Counters
from supervisor.process.probe import Prober
from supervisor.process.states import State

T = TypeVar("T")
PROBE_DEADLINE_SECONDS = 5.0
# A decode of one large batch may take seconds, in which no counter moves.
RECHECK_SECONDS = 10.0


class Silence:
    """Listens for an engine's bytes, for at most `limit_seconds` of silence at a time unless `still_working` says that they are on their way.

    First `until_answered`, for the head of an answer. From then on `watch`, with a word (`listening`, `heard`) around each wait for more: one
    timer for the whole answer, as a timer for each chunk would cost a tenth of what a chunk costs. `has_given_up` tells why it was cut.
    """

    def __init__(self, limit_seconds: float, still_working: Callable[[], Awaitable[bool]]) -> None:
        self.limit_seconds = limit_seconds
        self.has_given_up = False
        self._still_working = still_working
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._doubt: asyncio.Task[None] | None = None
        self._give_up: Callable[[], None] = lambda: None

    async def until_answered(self, coming: Coroutine[Any, Any, T]) -> T:
        """What `coming` brings; TimeoutError when the engine was silent for too long, with nothing to show for it."""
        async with asyncio.timeout(None) as patience:
            self.watch(lambda: patience.reschedule(self._loop.time()))
            self.listening()
            try:
                return await coming
            finally:
                self.close()

    def watch(self, give_up: Callable[[], None]) -> None:
        """From now until `close`, call `give_up` (once) when the engine is silent for too long while it is listened to."""
        self._give_up = give_up
        self._timer = self._loop.call_later(self.limit_seconds, self._look)

    def listening(self) -> None:
        """Bytes are being waited for."""
        self._since = self._loop.time()

    def heard(self) -> None:
        """They came, and nobody listens for the moment: a client that reads slowly makes no silence of the engine's."""
        self._since = None

    def close(self) -> None:
        """Stop watching; idempotent."""
        self.heard()
        if self._timer is not None:
            self._timer.cancel()
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    def _look(self) -> None:
        left = self.limit_seconds if self._since is None else self._since + self.limit_seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._doubt = asyncio.create_task(self._ask(self._since), name="silence")

    async def _ask(self, since: float | None) -> None:
        working = await self._still_working()
        if working or self._since != since:
            self._timer = self._loop.call_later(self.limit_seconds, self._look)
        else:
            self.has_given_up = True
            self._give_up()


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
