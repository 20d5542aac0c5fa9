"""The thread that reads and writes the files of batch work."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError

logger = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_SECONDS = 5.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFullError(LlamavisorError):
    """There is no room on the disk of the data folder."""

    code, status = "disk_full", 507


class Disk:
    """One thread, so that what is asked for is done in that order: who was cancelled in the middle of a write may close its file after it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch-disk")

    async def __call__(self, work: Callable[[], T]) -> T:
        """Do `work` off the loop. DiskFullError where the disk is full; other errors as they come."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as error:
            if error.errno in _FULL:
                remedy = "Make room there, and send it again."
                raise DiskFullError("The disk of the data folder is full.", remedy=remedy) from error
            raise

    async def until_done(self, work: Callable[[], T], what: str) -> T:
        """Do `work`, however long the disk refuses it; what is at stake is in memory meanwhile."""
        is_first = True
        while True:
            try:
                return await self(work)
            except (OSError, DiskFullError) as error:
                if is_first:
                    logger.warning("%s could not be written (%s): trying again until it can be.", what, error)
                is_first = False
            await self._clock.sleep(RETRY_SECONDS)

    def later(self, work: Callable[[], object]) -> None:
        """Do `work` after all that was asked for before; nobody waits for it."""
        self._pool.submit(work)

    async def close(self) -> None:
        """End the thread, when everything asked for is done; idempotent."""
        await asyncio.to_thread(self._pool.shutdown)
