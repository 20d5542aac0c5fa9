"""Zombies: those of our instances' orphans are collected, other people's are left to them.

As a subreaper we inherit every orphan of our children, and each must be waited for. The same process may hold children that somebody else
waits for (asyncio's subprocesses), and to collect one of those would steal its exit status.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from supervisor.clock import Clock, Timer
from supervisor.process import procfs
from supervisor.process.posix import Identity, is_subreaper

REAP_INTERVAL_SECONDS = 5.0

logger = logging.getLogger(__name__)
_own_children: set[int] = set()


def register(pid: int) -> None:
    """A child that we spawned and wait for ourselves."""
    _own_children.add(pid)


def release(pid: int) -> None:
    """A child that nobody waits for any more: from here it is collected like an orphan."""
    _own_children.discard(pid)


def collect(pid: int) -> bool:
    """Wait for a child that has ended, without waiting; whether there was one."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def collect_known(identities: Iterable[Identity]) -> None:
    """Collect those of the given processes that are zombies and have become our children."""
    for identity in identities:
        stat = procfs.read_stat(identity.pid)
        if stat is None or stat.is_alive or stat.start_ticks != identity.start_ticks:
            continue
        if stat.parent == os.getpid() and identity.pid not in _own_children:
            collect(identity.pid)


class OrphanReaper:
    """Collects orphans that died unnoticed, every `REAP_INTERVAL_SECONDS`.

    A zombie is taken only when it is not in our session (each instance has its own session, a subprocess of somebody else's usually shares
    ours), was not spawned by `spawn`, and has already been a zombie at the look before, so that whoever does wait for it has had time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timer: Timer | None = None
        self._seen: set[Identity] = set()

    def start(self) -> None:
        """Look from now on; called once, on the loop."""
        self._timer = self._clock.call_later(REAP_INTERVAL_SECONDS, self._look)

    def close(self) -> None:
        """Stop looking; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reap(self) -> list[int]:
        """One look: collect what was a zombie at the last look too, and return the process ids."""
        zombies = set(orphans(alive=False))
        taken = [identity.pid for identity in zombies & self._seen if collect(identity.pid)]
        self._seen = zombies
        return taken

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            taken = self.reap()
            if taken:
                logger.info("collected orphans that had ended: %s", taken)
        self.start()


def is_without_orphans() -> bool:
    """Whether none of our children is an orphan of an instance; False also where that cannot be told cheaply.

    While we are subreaper, whoever loses its parent below us becomes our child; so when this is true, a child that has ended has left
    nothing behind, and no search of the whole process table is needed to say so. May raise OSError when descriptors run out.
    """
    children = procfs.own_child_pids() if is_subreaper() else None
    if children is None:
        return False
    session = os.getsid(0)
    strangers = (procfs.read_stat(pid) for pid in children - _own_children)
    return all(stat is not None and stat.session == session for stat in strangers)


def orphans(*, alive: bool = True) -> list[Identity]:
    """Our children that are not ours by birth: in another session and not spawned by `spawn`. `alive=False`: the zombies among them."""
    session = os.getsid(0)
    return [
        Identity(stat.pid, stat.start_ticks, procfs.boot_id())
        for stat in procfs.children_of_ours()
        if stat.session != session and stat.pid not in _own_children and stat.is_alive == alive
    ]
