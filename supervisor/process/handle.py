"""A process that is watched: what a spawned, a reattached and a foreign one have in common."""

from __future__ import annotations

import asyncio
import signal
from typing import Protocol

from supervisor.launch import Address
from supervisor.process import reaper, sockets
from supervisor.process.exitwatch import ExitWatch
from supervisor.process.family import Family
from supervisor.process.ladder import StopLadder
from supervisor.process.posix import Identity
from supervisor.process.states import ExitStatus


class ProcessHandle(Protocol):
    """One watched process and all that comes from it. Every method is called on the loop.

    `exited` is resolved in the very callback that learns of the end (of the main process); it is cancelled by `close`. `is_own_child`: only
    then is an exit status known. `started_wall` is unix seconds.
    """

    @property
    def identity(self) -> Identity: ...

    @property
    def pid(self) -> int: ...

    @property
    def exited(self) -> asyncio.Future[ExitStatus]: ...

    @property
    def is_own_child(self) -> bool: ...

    @property
    def started_wall(self) -> float: ...

    async def terminate(self, grace_seconds: float, *, force: bool = False) -> bool:
        """End it and everything that came from it (`StopLadder`); True when all is gone, False when something survives SIGKILL.

        Works when the main process is dead already. Goes on when the caller is cancelled; a second caller joins the climb, with `force` it
        ends the grace period.
        """

    def pids(self) -> list[int]:
        """Its live processes."""

    def owns(self, address: Address) -> bool:
        """Whether the socket that listens on an address belongs to one of its processes; a socket that cannot be seen does not."""

    def close(self) -> None:
        """Let go of the descriptors, not of life: nothing is killed (any more). A child that watches its stdin learns that we left. Idempotent."""


class WatchedProcess:
    """The common part; see `ProcessHandle`. `watch` is set by the subclass once it can take the call."""

    is_own_child = False

    def __init__(self, family: Family, *, started_wall: float, stop_signal: signal.Signals) -> None:
        self.exited: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.started_wall = started_wall
        self._family = family
        self._stop_signal = stop_signal
        self._watch: ExitWatch | None = None
        self._ladder: StopLadder | None = None
        self._climb: asyncio.Task[bool] | None = None

    @property
    def identity(self) -> Identity:
        """See `ProcessHandle.identity`."""
        return self._family.main

    @property
    def pid(self) -> int:
        """See `ProcessHandle.pid`."""
        return self._family.main.pid

    async def terminate(self, grace_seconds: float, *, force: bool = False) -> bool:
        """See `ProcessHandle.terminate`."""
        if self._climb is None or self._climb.done() or self._ladder is None:
            self._ladder = StopLadder(self._family, self._stop_signal)
            self._climb = asyncio.create_task(self._end(self._ladder, grace_seconds), name=f"stop:{self.pid}")
        if force:
            self._ladder.hurry.set()
        return await asyncio.shield(self._climb)

    def pids(self) -> list[int]:
        """See `ProcessHandle.pids`."""
        try:
            return [member.pid for member in self._family.look()]
        except OSError:
            return [member.pid for member in self._family.ever_known()]

    def owns(self, address: Address) -> bool:
        """See `ProcessHandle.owns`."""
        try:
            if sockets.belongs_to(address, self.pids()):
                return True
            daemons = {member.pid for member in self._family.survey(thorough=True)}
            return sockets.belongs_to(address, daemons)
        except OSError:
            return False

    def close(self) -> None:
        """See `ProcessHandle.close`."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._climb is not None:
            self._climb.cancel()
        self.exited.cancel()

    async def _end(self, ladder: StopLadder, grace_seconds: float) -> bool:
        all_gone = await ladder.climb(grace_seconds)
        reaper.collect_known(self._family.ever_known())
        return all_gone

    def _resolve(self, status: ExitStatus) -> None:
        if not self.exited.done():
            self.exited.set_result(status)
