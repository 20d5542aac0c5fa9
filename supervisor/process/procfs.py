"""The process table as the kernel shows it: `/proc` on Linux, psutil elsewhere. Reading only.

Everything here may be stale the moment it returns; who acts on it verifies the identity first (`posix.Identity`).
What cannot be read is None, with one exception: when descriptors run out, OSError, lest a process that is there be taken for gone.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from supervisor.process.reserve import OUT_OF_DESCRIPTORS, with_reserve

IS_LINUX = sys.platform == "linux"
PROC = Path("/proc")
CHILD_READINGS_MAX = 4
DEAD_STATES = frozenset("ZXx")
# Fields of /proc/PID/stat after the command name, counted from 0 (`proc_pid_stat(5)` counts from 1 and has two before).
STATE, PPID, PGRP, SESSION, UTIME, STIME, STARTTIME = 0, 1, 2, 3, 11, 12, 19


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One row of the process table. `start_ticks`: clock ticks since boot (centiseconds since the epoch where there is no `/proc`)."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    cpu_ticks: int
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        """Zombies are dead: they hold nothing but their exit status."""
        return self.state not in DEAD_STATES


def parse_stat(text: str) -> ProcessStat:
    """Read a line of `/proc/PID/stat`. The name may hold spaces and parentheses, so the last parenthesis ends it."""
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    return ProcessStat(
        pid=int(pid),
        name=name,
        state=fields[STATE],
        parent=int(fields[PPID]),
        group=int(fields[PGRP]),
        session=int(fields[SESSION]),
        cpu_ticks=int(fields[UTIME]) + int(fields[STIME]),
        start_ticks=int(fields[STARTTIME]),
    )


def read_stat(pid: int) -> ProcessStat | None:
    """The row of one process; None when there is none."""
    if not IS_LINUX:
        from supervisor.process import portable

        return portable.read_stat(pid)
    text = read_bytes(f"/proc/{pid}/stat")
    return parse_stat(text.decode("utf-8", "replace")) if text else None


def read_bytes(path: str) -> bytes | None:
    """A whole file of `/proc`; None when the process is gone or not ours to see."""
    try:
        return with_reserve(lambda: _read_whole(path))
    except OSError as failure:
        if failure.errno in OUT_OF_DESCRIPTORS:
            raise
        return None


def _read_whole(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def all_pids() -> list[int]:
    """Every process id that is visible now."""
    if not IS_LINUX:
        from supervisor.process import portable

        return portable.all_pids()
    return [int(name) for name in with_reserve(lambda: os.listdir(PROC)) if name.isdigit()]


def process_table() -> dict[int, ProcessStat]:
    """Every visible process by its id. Not atomic, so who was born during the reading is looked for once more."""
    seen = all_pids()
    table = {pid: stat for pid in seen if (stat := read_stat(pid)) is not None}
    newborn = set(all_pids()).difference(seen)
    return table | {pid: stat for pid in newborn if (stat := read_stat(pid)) is not None}


def read_environment(pid: int) -> dict[str, str] | None:
    """The environment that a process was executed with; None when it is gone, a zombie, or not ours to see."""
    if not IS_LINUX:
        from supervisor.process import portable

        return portable.read_environment(pid)
    content = read_bytes(f"/proc/{pid}/environ")
    if content is None:
        return None
    pairs = (item.partition(b"=") for item in content.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def carries_environment(pid: int, entry: str) -> bool:
    """Whether `NAME=value` is in the environment of a process: a search in bytes, cheap enough for every process of the machine."""
    if not IS_LINUX:
        name, _, value = entry.partition("=")
        return (read_environment(pid) or {}).get(name) == value
    content = read_bytes(f"/proc/{pid}/environ")
    return content is not None and os.fsencode(entry) in content.split(b"\0")


def is_of_our_user(pid: int) -> bool:
    """Whether a process runs as our own user."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid() if IS_LINUX else True
    except OSError:
        return False


@cache
def boot_id() -> str:
    """Names this boot of the machine: a process id and a start time mean nothing beyond it."""
    if not IS_LINUX:
        from supervisor.process import portable

        return portable.boot_id()
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def live_descendants(table: dict[int, ProcessStat], roots: set[int]) -> set[int]:
    """The processes below `roots` (without them), whatever their session."""
    children: dict[int, list[int]] = {}
    for stat in table.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found and pid not in roots:
                found.add(pid)
                waiting.append(pid)
    return {pid for pid in found if table[pid].is_alive}


def children_of_ours() -> list[ProcessStat]:
    """Our own children, zombies included."""
    pids = own_child_pids()
    stats = process_table().values() if pids is None else filter(None, map(read_stat, pids))
    return [stat for stat in stats if stat.parent == os.getpid()]


def own_child_pids() -> frozenset[int] | None:
    """The process ids of our own children, zombies included, without reading the whole table; None where the kernel does not list them.

    One reading is not atomic: a child that goes while it lasts may hide another. So it counts when two in a row agree.
    """
    before = None
    for _ in range(CHILD_READINGS_MAX):
        now = _read_child_pids()
        if now is None or now == before:
            return now
        before = now
    return None


def _read_child_pids() -> frozenset[int] | None:
    if not IS_LINUX:
        return None
    found: list[bytes] = []
    # Each thread has a list of its own.
    for thread in with_reserve(lambda: os.listdir("/proc/self/task")):
        content = read_bytes(f"/proc/self/task/{thread}/children")
        if content is None:
            return None
        found += content.split()
    return frozenset(map(int, found))


def started_wall(stat: ProcessStat) -> float:
    """When a process started, in unix seconds, to a hundredth or so."""
    if not IS_LINUX:
        return stat.start_ticks / 100
    booted = (read_bytes("/proc/stat") or b"btime 0").partition(b"btime ")[2].split(maxsplit=1)[0]
    return int(booted) + stat.start_ticks / os.sysconf("SC_CLK_TCK")
