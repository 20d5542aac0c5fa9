"""All processes of one launch: the group, the session, the descendants, and those that fled but still carry its environment."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Protocol

from supervisor.process import procfs
from supervisor.process.posix import Identity, identities, signal_identity
from supervisor.process.procfs import ProcessStat

logger = logging.getLogger(__name__)


class ProcessTree(Protocol):
    """What the stop ladder climbs on."""

    def survey(self, *, thorough: bool) -> list[Identity]:
        """The live processes. `thorough` also searches every environment of our user. Raises OSError when it cannot tell."""

    def remaining(self) -> list[Identity]:
        """Those of the last survey that still live: cheap."""

    def send(self, members: list[Identity], number: signal.Signals) -> None:
        """Signal each of them once; those gone or not ours to signal are passed over."""


class Family:
    """The processes of one launch, each found once and remembered, so that one that leaves the group and loses its parent is not lost.

    `marks` are the `NAME=value` entries that all of them inherit (none for a foreign server). The group and the session count only while
    the number of the main process is certainly its own: while it lives, or while we hold its zombie. `whole_group=False`: only the main
    process and what is below it (a foreign server may share its group with a shell).
    """

    def __init__(self, main: Identity, marks: tuple[str, ...] = (), *, whole_group: bool = True) -> None:
        self.main = main
        self._marks = marks
        self._whole_group = whole_group
        self._known: frozenset[Identity] = frozenset((main,))
        self._passed_over: frozenset[int] = frozenset()
        self._refused: set[Identity] = set()

    def survey(self, *, thorough: bool) -> list[Identity]:
        """See `ProcessTree.survey`."""
        table = procfs.process_table()
        found = self._from_table(table)
        if thorough and self._marks:
            found |= {pid for pid in table.keys() - found if self._is_marked(pid)}
            found |= procfs.live_descendants(table, found)
        return self._remember(table, found)

    def look(self) -> list[Identity]:
        """The live processes, cheaply: only numbers that are new since the last look are read.

        A process that did not belong here does not come to belong later: it can leave its session but join none, and have no new ancestors.
        """
        numbers = frozenset(procfs.all_pids())
        candidates = (numbers - self._passed_over) | {known.pid for known in self._known}
        table = {pid: stat for pid in candidates if (stat := procfs.read_stat(pid)) is not None}
        found = self._from_table(table)
        self._passed_over = numbers - found
        return self._remember(table, found)

    def remaining(self) -> list[Identity]:
        """See `ProcessTree.remaining`."""
        return [identity for identity in self._known if identity.is_alive()]

    def ever_known(self) -> frozenset[Identity]:
        """Every process that was ever found to belong here."""
        return self._known

    def send(self, members: list[Identity], number: signal.Signals) -> None:
        """See `ProcessTree.send`."""
        if number is signal.SIGKILL:
            self._kill_group()
        for identity in members:
            try:
                signal_identity(identity, number)
            except OSError as failure:
                self._complain(identity, number, failure)

    def _remember(self, table: dict[int, ProcessStat], found: set[int]) -> list[Identity]:
        alive = {pid for pid in found if table[pid].is_alive and pid != os.getpid()}
        members = identities(alive, table)
        self._known |= frozenset(members)
        return members

    def _complain(self, identity: Identity, number: signal.Signals, failure: OSError) -> None:
        """Once for each process: the ladder tries every few milliseconds."""
        if identity not in self._refused:
            self._refused.add(identity)
            logger.warning("cannot send %s to process %d: %s", number.name, identity.pid, failure.strerror)

    def _from_table(self, table: dict[int, ProcessStat]) -> set[int]:
        roots = {known.pid for known in self._known if _is_same(table.get(known.pid), known)}
        if self._whole_group and self.main.pid in roots:
            roots |= {pid for pid, stat in table.items() if self.main.pid in (stat.group, stat.session)}
        return roots | procfs.live_descendants(table, roots)

    def _is_marked(self, pid: int) -> bool:
        return procfs.is_of_our_user(pid) and all(procfs.carries_environment(pid, mark) for mark in self._marks)

    def _kill_group(self) -> None:
        """At one stroke, so that a group which keeps forking cannot outrun the survey; only while its number is certainly ours."""
        with contextlib.suppress(OSError):
            if self._whole_group and _is_same(procfs.read_stat(self.main.pid), self.main):
                os.killpg(self.main.pid, signal.SIGKILL)


def _is_same(stat: ProcessStat | None, identity: Identity) -> bool:
    return stat is not None and stat.start_ticks == identity.start_ticks
