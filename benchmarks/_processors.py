"""Which processor a program runs on, how much of it it used, and its memory, over all its processes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks._processes import cpu_seconds

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of this machine, divided: `proxy` for what is measured, `rest` for the load and the engine."""

    proxy: frozenset[int]
    rest: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        """Every core."""
        return self.proxy | self.rest

    @classmethod
    def of_this_machine(cls) -> Cores:
        """One core for the proxy, the others for the rest; on a machine of one core everybody shares it."""
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset([first]), frozenset(others or [first]))


def pin(pids: Iterable[int], cores: frozenset[int]) -> None:
    """Let those processes run on those cores only, each of their threads."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # a thread may end meanwhile
                os.sched_setaffinity(int(thread.name), cores)


def cpu_of(pids: Iterable[int]) -> float:
    """Processor seconds that those processes have used together."""
    return sum(cpu_seconds(pid) for pid in pids)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a program: `rss` counts shared pages in each process, `pss` once, divided."""

    rss_mib: float
    pss_mib: float


def memory_of(pids: Iterable[int]) -> Memory:
    """Of those processes together."""
    infos = [psutil.Process(pid).memory_full_info() for pid in pids]
    return Memory(sum(info.rss for info in infos) / MIB, sum(info.pss for info in infos) / MIB)
