"""What processes use: processor time, memory, how much of a file they have read, kills by the kernel for want of memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from supervisor.process import procfs
from supervisor.process.procfs import IS_LINUX

BYTES_PER_KIB = 1_024
CGROUP_ROOT = Path("/sys/fs/cgroup")
_STATUS_FIGURE = re.compile(rb"^(VmHWM|VmRSS|RssFile|RssShmem):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Memory of processes together, in bytes; what they share counts once for each.

    `resident` now, `peak` the most since each started. `mapped`, a part of `resident`, is files and shared memory: the kernel counts mapped files as
    available, since it could take them back. 0 where there is no `/proc`.
    """

    resident: int = 0
    mapped: int = 0
    peak: int = 0

    def __add__(self, other: ProcessMemory) -> ProcessMemory:
        return ProcessMemory(self.resident + other.resident, self.mapped + other.mapped, self.peak + other.peak)


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK") if IS_LINUX else 100


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time, user and system, that the processes have used since each started; those gone count nothing."""
    return sum(map(_cpu_ticks, pids)) / _ticks_per_second()


def _cpu_ticks(pid: int) -> int:
    try:
        stat = procfs.read_stat(pid)
    except OSError:
        return 0
    return stat.cpu_ticks if stat is not None else 0


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes together. Pages that they share count once for each: the exact share costs a walk of every page."""
    return sum(_resident_bytes(pid) for pid in pids)


def _resident_bytes(pid: int) -> int:
    if not IS_LINUX:
        from supervisor.process import portable

        return portable.resident_bytes(pid)
    content = procfs.read_bytes(f"/proc/{pid}/statm")
    return int(content.split()[1]) * os.sysconf("SC_PAGE_SIZE") if content else 0


def memory_of(pids: Iterable[int]) -> ProcessMemory:
    """What the processes hold; those gone hold nothing."""
    return sum(map(_memory_of, pids), ProcessMemory())


def _memory_of(pid: int) -> ProcessMemory:
    if not IS_LINUX:
        resident = _resident_bytes(pid)
        return ProcessMemory(resident, 0, resident)
    content = procfs.read_bytes(f"/proc/{pid}/status") or b""
    figures = {name: int(figure) * BYTES_PER_KIB for name, figure in _STATUS_FIGURE.findall(content)}
    mapped = figures.get(b"RssFile", 0) + figures.get(b"RssShmem", 0)
    return ProcessMemory(figures.get(b"VmRSS", 0), mapped, figures.get(b"VmHWM", 0))


def file_read_fraction(pid: int, path: Path) -> float | None:
    """How much of a file a process has taken in, 0–1: the larger of its resident mapped share and its bytes read over the file's size.

    None when it cannot be told (gone, not ours to see, empty file, no `/proc`). It walks the pages of the process: milliseconds for a big
    one, so call it off the loop.
    """
    try:
        size = path.stat().st_size
    except OSError:
        return None
    read, mapped = _bytes_read(pid), _mapped_resident_bytes(pid, os.path.realpath(path))
    if not size or (read is None and mapped is None):
        return None
    return min(1.0, max(read or 0, mapped or 0) / size)


def _bytes_read(pid: int) -> int | None:
    content = procfs.read_bytes(f"/proc/{pid}/io")
    if not content:
        return None
    return int(content.partition(b"rchar:")[2].split()[0])


def _mapped_resident_bytes(pid: int, path: str) -> int | None:
    content = procfs.read_bytes(f"/proc/{pid}/smaps")
    if content is None:
        return None
    total, inside, ending = 0, False, os.fsencode(path)
    for line in content.splitlines():
        if line.startswith(b"Rss:"):
            total += int(line.split()[1]) * BYTES_PER_KIB if inside else 0
        elif not line[:1].isupper():
            inside = line.endswith(ending) and line.split(maxsplit=5)[-1] == ending
    return total


def oom_kills() -> int | None:
    """How often the kernel killed for want of memory in our control group, which our children share.

    A count to compare before and after; None where there is no such count (no cgroup v2, no memory controller).
    """
    events = _memory_events()
    return None if events is None else _count_in(events)


@cache
def _memory_events() -> str | None:
    """Found once: nobody moves a process between control groups while it serves, and this is on the way from an exit to its restart."""
    for line in os.fsdecode(procfs.read_bytes("/proc/self/cgroup") or b"").splitlines():
        if line.startswith("0::"):
            return str(CGROUP_ROOT / line[3:].lstrip("/") / "memory.events")
    return None


def _count_in(events: str) -> int | None:
    for line in (procfs.read_bytes(events) or b"").splitlines():
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return None
