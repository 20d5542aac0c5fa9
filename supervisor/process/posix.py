"""Processes by identity: who is who, exits and signals without a race, subreaper, sweep by environment.

A process id alone names nobody: the kernel hands it to the next process. An `Identity` (id, start time, boot) does, and a pidfd opened and
verified against it makes sure that a signal reaches that process or none. `sockets.py` and `usage.py` belong to this module's surface.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from supervisor.process import procfs
from supervisor.process.procfs import IS_LINUX, boot_id
from supervisor.process.reserve import with_reserve
from supervisor.process.sockets import belongs_to, describe_process, listening_owner, listening_pids
from supervisor.process.usage import cpu_seconds, file_read_fraction, memory_bytes, oom_kills

__all__ = [
    "Found",
    "Identity",
    "become_subreaper",
    "belongs_to",
    "boot_id",
    "cpu_seconds",
    "descendants",
    "describe_process",
    "file_read_fraction",
    "find_by_environment",
    "group_members",
    "is_subreaper",
    "listening_owner",
    "listening_pids",
    "memory_bytes",
    "oom_kills",
    "open_pidfd",
    "send_signal",
    "signal_identity",
    "start_time_ticks",
]

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for ever: `pid` may be reused, the three together are not."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Who has this process id now, a zombie included; None when nobody has."""
        ticks = start_time_ticks(pid)
        return None if ticks is None else cls(pid, ticks, boot_id())

    def is_alive(self) -> bool:
        """Whether this very process runs (or sleeps, or is stopped). Zombies count as dead."""
        stat = procfs.read_stat(self.pid)
        return stat is not None and stat.is_alive and stat.start_ticks == self.start_ticks and self.boot_id == boot_id()


@dataclass(frozen=True, slots=True)
class Found:
    """A live process found by its environment. `environ` is what it was executed with: never show it, it may hold keys."""

    identity: Identity
    environ: dict[str, str]


def start_time_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    stat = procfs.read_stat(pid)
    return None if stat is None else stat.start_ticks


def become_subreaper(*, enable: bool = True) -> bool:
    """Have orphans among our descendants become our children instead of init's, so that none escapes; `enable=False` undoes it.

    Returns whether the kernel agreed (False where there is no such thing). Inherited by no child. Who calls this must reap: `reaper.py`.
    """
    if not IS_LINUX:
        return False
    return bool(_libc().prctl(PR_SET_CHILD_SUBREAPER, int(enable), 0, 0, 0) == 0)


def is_subreaper() -> bool:
    """Whether orphans among our descendants become our children."""
    answer = ctypes.c_int()
    return IS_LINUX and _libc().prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0 and bool(answer.value)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def open_pidfd(identity: Identity) -> int | None:
    """A descriptor for this very process, or None when it is gone.

    The identity is read again *after* opening: had the number been reused before, the start time would differ; reused later, the
    descriptor still means the old one. Raises OSError when descriptors run out.
    """
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    try:
        is_the_one = start_time_ticks(identity.pid) == identity.start_ticks and identity.boot_id == boot_id()
    except OSError:
        os.close(pidfd)
        raise
    if is_the_one:
        return pidfd
    os.close(pidfd)
    return None


def send_signal(pidfd: int, number: signal.Signals) -> bool:
    """Signal the process of a pidfd; False when it is gone. Raises PermissionError for somebody else's process."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def signal_identity(identity: Identity, number: signal.Signals) -> bool:
    """Signal this very process or nobody; False when it is gone. Raises PermissionError for somebody else's process."""
    if not IS_LINUX:
        return _signal_by_number(identity, number)
    return with_reserve(lambda: _signal_by_pidfd(identity, number))


def _signal_by_pidfd(identity: Identity, number: signal.Signals) -> bool:
    pidfd = open_pidfd(identity)
    if pidfd is None:
        return False
    try:
        return send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def _signal_by_number(identity: Identity, number: signal.Signals) -> bool:
    if not identity.is_alive():
        return False
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def identities(pids: Iterable[int], table: dict[int, procfs.ProcessStat]) -> list[Identity]:
    """The identities of rows of a process table, by process id."""
    return [Identity(pid, table[pid].start_ticks, boot_id()) for pid in sorted(pids)]


def find_by_environment(name: str, value: str) -> list[Found]:
    """Every live process of our user, ourselves excepted, that was executed with `name=value`: the sweep that needs no record.

    It reads the environment of every process of the user: some 20 µs each.
    """
    entry = f"{name}={value}"
    found = []
    for pid in procfs.all_pids():
        if pid == os.getpid() or not procfs.is_of_our_user(pid) or not procfs.carries_environment(pid, entry):
            continue
        identity, environ = Identity.of(pid), procfs.read_environment(pid)
        if identity is not None and environ is not None and identity.is_alive():
            found.append(Found(identity, environ))
    return found


def group_members(group: int) -> list[Identity]:
    """The live processes of a process group."""
    table = procfs.process_table()
    return identities((pid for pid, stat in table.items() if stat.group == group and stat.is_alive), table)


def descendants(pid: int) -> list[Identity]:
    """The live processes below one, whatever their group or session; those already orphaned are not below it any more."""
    table = procfs.process_table()
    return identities(procfs.live_descendants(table, {pid}), table)
