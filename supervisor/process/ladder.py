"""How a process, and all that came from it, is brought to an end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from supervisor.process.family import ProcessTree
from supervisor.process.posix import Identity

KILL_DEADLINE_SECONDS = 5.0
POLL_SECONDS_MIN = 0.002
POLL_SECONDS_MAX = 0.05
POLL_GROWTH = 1.5


class StopLadder:
    """The steps, in order; each is skipped when nothing is left to climb for.

    1. The stop signal to every process of the tree, once (llama-server takes a second one for impatience), then SIGCONT: to a stopped process
       the signal stays pending.
    2. Wait up to the grace period until *all* of them are gone: the main process alone proves nothing when a grandchild holds the GPU.
    3. SIGKILL to the group and to each one that is left, repeated with a fresh search (group, session, descendants, environment), since
       a process may have forked or fled meanwhile, until nothing is left.
    4. Give up after `kill_deadline_seconds`: what survives SIGKILL hangs in the kernel.

    `hurry` skips the rest of step 2, or steps 1 and 2 when set before.
    """

    def __init__(
        self, tree: ProcessTree, stop_signal: signal.Signals, *, kill_deadline_seconds: float = KILL_DEADLINE_SECONDS
    ) -> None:
        self.hurry = asyncio.Event()
        self._tree = tree
        self._stop_signal = stop_signal
        self._kill_deadline_seconds = kill_deadline_seconds
        self._members: list[Identity] = []

    async def climb(self, grace_seconds: float) -> bool:
        """Take the steps; True when everything is gone."""
        if await self._nothing_left():
            return True
        if not self.hurry.is_set() and grace_seconds > 0:
            self._tree.send(self._members, self._stop_signal)
            self._tree.send(self._members, signal.SIGCONT)
            if await self._gone_within(grace_seconds):
                return True
        return await self._kill()

    async def _kill(self) -> bool:
        deadline = time.monotonic() + self._kill_deadline_seconds
        pause = POLL_SECONDS_MIN
        while True:
            self._tree.send(self._members, signal.SIGKILL)
            await asyncio.sleep(pause)
            pause = min(POLL_SECONDS_MAX, pause * POLL_GROWTH)
            if await self._nothing_left():
                return True
            if time.monotonic() > deadline:
                return False

    async def _gone_within(self, grace_seconds: float) -> bool:
        deadline = time.monotonic() + grace_seconds
        pause = POLL_SECONDS_MIN
        while (left := deadline - time.monotonic()) > 0 and not self.hurry.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.hurry.wait(), min(pause, left))
            pause = min(POLL_SECONDS_MAX, pause * POLL_GROWTH)
            if self._seems_gone() and await self._nothing_left():
                return True
        return await self._nothing_left()

    def _seems_gone(self) -> bool:
        try:
            return not self._tree.remaining()
        except OSError:
            return False

    async def _nothing_left(self) -> bool:
        """A thorough search, off the loop. When it cannot be made (descriptors ran out), whoever was there is taken to be there still.

        A search is not atomic: a process that forks and exits all the time can slip through it, but not through a kill of its group. Hence
        that is the last word even if nothing was found.
        """
        try:
            self._members = await asyncio.to_thread(self._tree.survey, thorough=True)
        except OSError:
            return False
        if not self._members:
            self._tree.send([], signal.SIGKILL)
        return not self._members
