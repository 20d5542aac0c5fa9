"""The books as one part: what happens goes into the journal at once and to the database soon; questions wait for no request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from supervisor.clock import Clock, Timer
from supervisor.storage import usage
from supervisor.storage.database import StorageUnavailableError, open_sqlite, open_url
from supervisor.storage.journal import Journal
from supervisor.storage.records import AcceptedRequest, Settlement, TokenUsage
from supervisor.storage.writer import Writer, replay

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
MILLISECONDS = 1_000
DAY_SECONDS = 86_400
FLUSH_SECONDS = 5.0
CLOSE_SECONDS = 10.0
RETENTION_INTERVAL_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """Where and how. `url` of a PostgreSQL database, None for SQLite in the data folder; `retention_days` for which usage records are kept;
    `sync_seconds` after which the journal is on the disk at the latest; `write_seconds` for which records are collected for the database."""

    url: str | None = field(default=None, repr=False)
    retention_days: int = 400
    sync_seconds: float = 0.2
    write_seconds: float = 0.5


class Books:
    """Open with `Books.open`; `accept`, `note` and `settle` are for the loop's thread and take microseconds.

    `reconciled` is how many requests an earlier supervisor left unsettled.
    """

    def __init__(self, plan: StoragePlan, folder: Path, clock: Clock) -> None:
        self.reconciled = 0
        self._plan = plan
        self._folder = folder
        self._clock = clock
        self._threads = ThreadPoolExecutor(2, "books")
        self._forgetting: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._engine: Engine
        self._journal: Journal
        self._writer: Writer

    @classmethod
    async def open(cls, plan: StoragePlan, folder: Path, clock: Clock) -> Books:
        """Open the database, bring the journal of an earlier supervisor into it, and settle what that one left open.

        StorageRefusedError for a database that cannot be trusted, StorageUnavailableError for one that does not answer.
        """
        books = cls(plan, folder, clock)
        try:
            await asyncio.to_thread(books._open)
        except BaseException:
            books._threads.shutdown()
            raise
        books._forget_soon(0)
        return books

    @property
    def faults(self) -> list[str]:
        """What cannot be written now, in sentences; empty when all is well."""
        return [fault for fault in (self._journal.fault, self._writer.fault) if fault is not None]

    def accept(self, request: AcceptedRequest) -> None:
        """A request is let in: call it before anything is sent to an engine."""
        self._journal.accept(request)
        self._writer.offer(self._journal.number, request)

    def note(self, request_id: str, usage: TokenUsage) -> None:
        """A long answer has come so far."""
        self._journal.note(request_id, usage)
        self._writer.offer(self._journal.number, (request_id, usage))

    def settle(self, settlement: Settlement) -> None:
        """A request has ended; once for each."""
        self._journal.settle(settlement)
        self._writer.offer(self._journal.number, settlement)

    async def query(self, ask: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`ask(connection, …)` in one transaction, in a thread; it sees all that was settled before. StorageUnavailableError."""

        def run() -> T:
            if not self._writer.flush(FLUSH_SECONDS):
                raise StorageUnavailableError("The database does not answer.", retry_after_seconds=FLUSH_SECONDS)
            try:
                with self._engine.begin() as connection:
                    return ask(connection, *args, **kwargs)
            except sa.exc.OperationalError as error:
                raise StorageUnavailableError(
                    f"The database does not answer: {error.orig}.", retry_after_seconds=FLUSH_SECONDS
                ) from None

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def close(self) -> None:
        """Bring everything to the disk, and to the database if it answers; idempotent."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.to_thread(self._close)

    def _open(self) -> None:
        url = self._plan.url
        self._engine = open_url(url) if url is not None else open_sqlite(self._folder)
        folder = self._folder / "journal"
        folder.mkdir(mode=0o700, exist_ok=True)
        last = replay(self._engine, folder)
        with self._engine.begin() as connection:
            self.reconciled = usage.reconcile(connection, self._now_ms())
        self._journal = Journal(folder, self._plan.sync_seconds)
        self._journal.forget_before(last + 1)
        self._writer = Writer(self._engine, folder, self._plan.write_seconds, self._journal.forget_before)
        self._writer.start()
        if self.reconciled:
            logger.warning(
                "%d requests were interrupted when the last supervisor ended; they are settled so.", self.reconciled
            )

    def _close(self) -> None:
        self._threads.shutdown()
        self._writer.close(CLOSE_SECONDS)
        self._journal.close()
        self._engine.dispose()

    def _now_ms(self) -> int:
        return int(self._clock.wall() * MILLISECONDS)

    def _forget_soon(self, delay_seconds: float) -> None:
        def start() -> None:
            task = asyncio.create_task(self._forget(), name="books-retention")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._forgetting = self._clock.call_later(delay_seconds, start)

    async def _forget(self) -> None:
        limit_ms = self._now_ms() - self._plan.retention_days * DAY_SECONDS * MILLISECONDS
        try:
            while await self.query(usage.forget, limit_ms) == usage.RETENTION_BATCH:
                await self._clock.sleep(0)
        except StorageUnavailableError as error:
            logger.warning("Old usage records are kept for now: %s", error)
        self._forget_soon(RETENTION_INTERVAL_SECONDS)
