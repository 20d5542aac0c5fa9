"""The thread that carries the journal into the database, in batches. The event loop hands entries over and goes on."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from supervisor.storage import usage
from supervisor.storage.journal import Entry, number_of, read_segment, segments
from supervisor.storage.records import AcceptedRequest, Settlement, TokenUsage

logger = logging.getLogger(__name__)

PENDING_LIMIT = 50_000
"""Entries kept in memory; beyond it they are read from the journal again once the database answers."""
BATCH_LIMIT = 5_000
RETRY_SECONDS = 1.0
NOTHING = TokenUsage()
NOT_STORABLE = (ValueError, OverflowError, sa.exc.DataError)
"""What drivers raise of a value that the database has no room for; anything else is the database's own trouble, and passes."""
LARGEST = 2**63 - 1


class Writer:
    """See the module. `fault` says why the last batch could not be written (None: it could)."""

    def __init__(
        self, engine: Engine, folder: Path, write_seconds: float, written_before: Callable[[int], None]
    ) -> None:
        self.fault: str | None = None
        self._engine = engine
        self._folder = folder
        self._write_seconds = write_seconds
        self._written_before = written_before
        self._pending: deque[tuple[int, Entry]] = deque()
        self._has_overflowed = False
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._ending = False
        self._progress = threading.Condition()
        self._offered = 0
        self._written = 0
        self._thread = threading.Thread(target=self._run, name="books-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, segment: int, entry: Entry) -> None:
        """Take an entry that is in `segment` of the journal; never blocks."""
        self._offered += 1
        if len(self._pending) >= PENDING_LIMIT:
            self._has_overflowed = True
        else:
            self._pending.append((segment, entry))
        if not self._work.is_set():
            self._work.set()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all that was offered before now is in the database; False when it is not by then. Not for the event loop's thread."""
        goal = self._offered
        self._hurry.set()
        self._work.set()
        with self._progress:
            return self._progress.wait_for(lambda: self._written >= goal, timeout_seconds)

    def close(self, timeout_seconds: float) -> None:
        """Write what is left, for at most so long: the journal has the rest."""
        self._ending = True
        self._hurry.set()
        self._work.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not (self._ending and not self._pending):
            self._work.wait()
            if not self._ending:
                self._hurry.wait(self._write_seconds)
            self._hurry.clear()
            self._work.clear()
            if not self._write_all() and self._ending:
                return

    def _write_all(self) -> bool:
        try:
            while self._pending or self._has_overflowed:
                self._catch_up() if self._has_overflowed else self._write_some()
        except Exception as error:
            # Whatever it is: a writer that is gone would leave everybody who asks the books waiting.
            self._excuse(error)
            self._work.set()
            self._hurry.wait(RETRY_SECONDS)
            return False
        self._excuse(None)
        return True

    def _write_some(self) -> None:
        batch = [self._pending[index] for index in range(min(len(self._pending), BATCH_LIMIT))]
        write_together(self._engine, [entry for _, entry in batch])
        for _ in batch:
            self._pending.popleft()
        if batch[-1][0] > batch[0][0]:
            self._written_before(batch[-1][0])
        self._tell(len(batch))

    def _catch_up(self) -> None:
        """More came than memory may hold: all of it is in the journal, and what is there already is not written twice."""
        self._pending.clear()
        # Before the journal is read: what comes meanwhile is kept in memory again.
        self._has_overflowed = False
        offered = self._offered
        try:
            replay(self._engine, self._folder)
        except Exception:
            self._has_overflowed = True
            raise
        self._tell(offered - self._written)

    def _tell(self, count: int) -> None:
        with self._progress:
            self._written += count
            self._progress.notify_all()

    def _excuse(self, error: Exception | None) -> None:
        fault = None if error is None else f"The database cannot be written: {getattr(error, 'orig', None) or error}."
        if fault is not None and self.fault is None:
            logger.error("%s Requests are served on; the journal keeps their records.", fault)
        elif fault is None and self.fault is not None:
            logger.info("The database can be written again.")
        self.fault = fault


def write_together(engine: Engine, entries: Sequence[Entry]) -> None:
    """Write entries in one transaction; where one is something that no database takes, each in its own, and that one as near as it can be kept."""
    try:
        with engine.begin() as connection:
            write_entries(connection, entries)
    except NOT_STORABLE:
        for entry in entries:
            _write_alone(engine, entry)


def _write_alone(engine: Engine, entry: Entry) -> None:
    try:
        with engine.begin() as connection:
            write_entries(connection, [entry])
    except NOT_STORABLE as error:
        logger.error("A usage record cannot be kept as it is (%s); it is kept as near as possible: %r", error, entry)
        with engine.begin() as connection:
            write_entries(connection, [storable(entry)])


def storable(value: Any) -> Any:
    """The nearest to a value (text, a number, a record of them) that both databases can keep: no lone surrogates, no NUL, 64 bits."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-LARGEST, min(LARGEST, value))
    if isinstance(value, tuple):
        parts = map(storable, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def write_entries(connection: sa.Connection, entries: Iterable[Entry]) -> None:
    """Write entries in their order; what both begins and ends among them is one row."""
    opened: dict[str, AcceptedRequest] = {}
    noted: dict[str, TokenUsage] = {}
    ended: dict[str, Settlement] = {}
    for entry in entries:
        if isinstance(entry, AcceptedRequest):
            opened[entry.id] = entry
        elif isinstance(entry, Settlement):
            ended.setdefault(entry.id, entry)
        else:
            noted[entry[0]] = entry[1]
    usage.write(
        connection, [usage.row_of(request, ended.get(key), noted.get(key, NOTHING)) for key, request in opened.items()]
    )
    usage.note(connection, {key: count for key, count in noted.items() if key not in opened})
    usage.settle(connection, [settlement for key, settlement in ended.items() if key not in opened])


def replay(engine: Engine, folder: Path) -> int:
    """Bring every segment of the journal into the database; the number of the last one (0: there is none)."""
    last = 0
    for path in segments(folder):
        write_together(engine, list(read_segment(path)))
        last = number_of(path)
    return last
