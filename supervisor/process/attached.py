"""Processes that are not our children: survivors of an earlier supervisor, and servers that somebody else runs."""

from __future__ import annotations

import signal
import time

from supervisor.process import procfs, reaper
from supervisor.process.exitwatch import watch_exit
from supervisor.process.family import Family
from supervisor.process.handle import WatchedProcess
from supervisor.process.ladder import StopLadder
from supervisor.process.output import OutputCapture
from supervisor.process.posix import Found, Identity
from supervisor.process.spawning import INSTANCE, RUN_ID
from supervisor.process.states import ExitStatus


class AttachedProcess(WatchedProcess):
    """Somebody else's child: noticed as fast as ours, but nobody can tell how it ended. One that is gone already has `exited` resolved."""

    def __init__(self, family: Family, *, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        stat = procfs.read_stat(family.main.pid)
        started = procfs.started_wall(stat) if stat is not None else time.time()
        super().__init__(family, started_wall=started, stop_signal=stop_signal)
        self._watch = watch_exit(family.main, self._ended)
        if self._watch is None:
            self._ended()

    def _ended(self) -> None:
        self._resolve(ExitStatus())


class ReattachedProcess(AttachedProcess):
    """A child of an earlier supervisor of this data folder. Its output is followed in its log file (`OutputCapture.poll_file`)."""


class ForeignProcess(AttachedProcess):
    """An adopted server. `terminate` is for those who asked for it in so many words; its group is left alone, only it and its children end."""

    async def _end(self, ladder: StopLadder, grace_seconds: float) -> bool:
        all_gone = await ladder.climb(grace_seconds)
        # Whoever started it waits for its exit status, which is not ours to collect.
        reaper.collect_known(self._family.ever_known() - {self._family.main})
        return all_gone


def reattach(found: Found, output: OutputCapture, *, stop_signal: signal.Signals = signal.SIGTERM) -> ReattachedProcess:
    """Take a survivor back by its identity. Raises OSError when descriptors run out."""
    marks = tuple(f"{name}={found.environ[name]}" for name in (RUN_ID, INSTANCE) if name in found.environ)
    process = ReattachedProcess(Family(found.identity, marks if len(marks) == 2 else ()), stop_signal=stop_signal)
    output.begin_run()
    output.follow_file()
    return process


def attach_foreign(pid: int) -> ForeignProcess:
    """Watch a server that somebody else runs. Raises OSError when descriptors run out."""
    identity = Identity.of(pid) or Identity(pid, -1, procfs.boot_id())
    return ForeignProcess(Family(identity, whole_group=False))
