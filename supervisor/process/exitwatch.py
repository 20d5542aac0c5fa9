"""Noticing that a process has ended: by pidfd, within a millisecond; by polling where there is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from supervisor.process import posix
from supervisor.process.posix import Identity
from supervisor.process.procfs import IS_LINUX

POLL_SECONDS = 0.05


class ExitWatch(Protocol):
    """A pending call for the end of a process."""

    def close(self) -> None:
        """Forget it; idempotent."""


class PidfdWatch:
    """Calls once when the process of a pidfd has ended, straight from the loop's poll. The descriptor is ours to close."""

    def __init__(self, pidfd: int, ended: Callable[[], None]) -> None:
        self._pidfd = pidfd
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._loop.add_reader(pidfd, self._on_readable)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._ended()

    def close(self) -> None:
        """See `ExitWatch.close`."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)


class PollingWatch:
    """Calls once when a process has ended, up to `POLL_SECONDS` late."""

    def __init__(self, identity: Identity, ended: Callable[[], None]) -> None:
        self._identity = identity
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        if self._identity.is_alive():
            self._timer = self._loop.call_later(POLL_SECONDS, self._look)
        else:
            self._ended()

    def close(self) -> None:
        """See `ExitWatch.close`."""
        self._timer.cancel()


def watch_exit(identity: Identity, ended: Callable[[], None]) -> ExitWatch | None:
    """Have `ended` called on the loop when the process has ended; None when it is gone already. Raises OSError when descriptors run out."""
    if not IS_LINUX:
        return PollingWatch(identity, ended)
    pidfd = posix.open_pidfd(identity)
    return None if pidfd is None else PidfdWatch(pidfd, ended)
