"""Processes of ours from an earlier life of the supervisor: those to be taken back, and those to be ended.

Both are found by the environment that they were started with, so that no record can be missing or stale.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable

from supervisor.config.settings import Settings
from supervisor.fleet.planning import settings_digest
from supervisor.process import posix, reaper, spawning
from supervisor.process.posix import Found

logger = logging.getLogger(__name__)

GONE_CHECK_SECONDS = 0.02
GONE_DEADLINE_SECONDS = 5.0


def find_survivors(run_id: str, settings: Settings) -> dict[str, Found]:
    """The servers that may go on, by instance: marked as survivors, still configured, and started with the very same settings.

    Of several processes of one instance the group's leader is the server; the others are its children.
    """
    survivors: dict[str, Found] = {}
    for found in posix.find_by_environment(spawning.RUN_ID, run_id):
        name = found.environ.get(spawning.INSTANCE, "")
        own = settings.instances.get(name)
        if own is None or not own.survive_supervisor:
            continue
        is_leader = found.identity in posix.group_members(found.identity.pid)
        if is_leader and found.environ.get(spawning.SPEC) == settings_digest(own):
            survivors.setdefault(name, found)
    return survivors


async def end_leftovers(run_id: str, *, keep: Iterable[Found]) -> int:
    """Kill every process that carries our RUN_ID, except those of the instances in `keep`; how many there were.

    They have lost their supervisor, so there is nobody left to be graceful for.
    """
    kept = {found.environ.get(spawning.INSTANCE) for found in keep}
    killed: set[int] = set()
    try:
        async with asyncio.timeout(GONE_DEADLINE_SECONDS):
            while leftovers := _leftovers(run_id, kept):
                for found in leftovers:
                    killed.add(found.identity.pid)
                    posix.signal_identity(found.identity, signal.SIGKILL)
                await asyncio.sleep(GONE_CHECK_SECONDS)
    except TimeoutError:
        pids = ", ".join(str(found.identity.pid) for found in _leftovers(run_id, kept))
        logger.error("Processes of an earlier run survive SIGKILL: %s. Their addresses may be taken.", pids)
    if killed:
        logger.warning("Ended %d process(es) that an earlier run had left behind.", len(killed))
    return len(killed)


def end_orphans(run_id: str) -> int:
    """Kill the children that came to us as a subreaper and carry no mark: daemons that fled from their engine, environment and all.

    Only for a process that is nothing but the supervisor, at its very end; what carries our RUN_ID then is meant to survive. How many.
    """
    marked = {found.identity for found in posix.find_by_environment(spawning.RUN_ID, run_id)}
    fled = [identity for identity in reaper.orphans() if identity not in marked]
    for identity in fled:
        posix.signal_identity(identity, signal.SIGKILL)
    return len(fled)


def _leftovers(run_id: str, kept: set[str | None]) -> list[Found]:
    everything = posix.find_by_environment(spawning.RUN_ID, run_id)
    return [found for found in everything if found.environ.get(spawning.INSTANCE) not in kept]
