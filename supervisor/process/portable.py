"""The process table where there is no `/proc` (macOS, for development), over psutil.

Weaker than Linux: there is no pidfd, so a signal is sent by number right after the identity was verified (a gap of microseconds in which
the number could be reused), an exit is noticed by polling, and there is no subreaper: a daemon that leaves its session is found by its
environment only.
"""

from __future__ import annotations

import os

import psutil

from supervisor.process.procfs import ProcessStat

TICKS_PER_SECOND = 100


def read_stat(pid: int) -> ProcessStat | None:
    """See `procfs.read_stat`."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times() if process.status() != psutil.STATUS_ZOMBIE else None
            return ProcessStat(
                pid=pid,
                name=process.name(),
                state="Z" if times is None else "S",
                parent=process.ppid(),
                group=os.getpgid(pid),
                session=os.getsid(pid),
                cpu_ticks=0 if times is None else int((times.user + times.system) * TICKS_PER_SECOND),
                start_ticks=int(process.create_time() * TICKS_PER_SECOND),
            )
    except psutil.ZombieProcess:
        return ProcessStat(pid, "", "Z", 0, 0, 0, 0, 0)
    except (psutil.Error, OSError):
        return None


def all_pids() -> list[int]:
    """See `procfs.all_pids`."""
    return list(psutil.pids())


def read_environment(pid: int) -> dict[str, str] | None:
    """See `procfs.read_environment`."""
    try:
        return dict(psutil.Process(pid).environ())
    except (psutil.Error, OSError):
        return None


def boot_id() -> str:
    """See `procfs.boot_id`: the second of the boot."""
    return str(int(psutil.boot_time()))


def resident_bytes(pid: int) -> int:
    """Resident memory of one process; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError):
        return 0


def listening_pids(port: int) -> set[int]:
    """The processes that listen on a TCP port, as far as we may see them."""
    found = set()
    for pid in psutil.pids():
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        if any(item.status == psutil.CONN_LISTEN and item.laddr.port == port for item in connections):
            found.add(pid)
    return found
