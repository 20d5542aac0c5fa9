"""Copies of the bodies of requests and answers, where the configuration asks for them: redacted, in files by day that only we may read.

The loop only keeps references while a request is under way; reading, redacting and writing are a thread's work. Nothing here is worth a request: what
cannot be kept is counted, and left out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Protocol

from supervisor.config.observing_settings import CaptureSettings
from supervisor.config.settings import Settings
from supervisor.data_folder import PRIVATE_FILE, PRIVATE_FOLDER
from supervisor.gateway.calls import Call
from supervisor.gateway.observing.redactor import Redactor, assembled
from supervisor.storage.records import AcceptedRequest, UsageRecord

EVERYONE = "*"
SUFFIX = ".jsonl"
MILLISECONDS = 1_000
# Of a stream, a hundred times what its text is.
ANSWER_LIMIT_BYTES = 4 * 1024**2
# What may wait to be written; more than that, and the disk is slower than the engines.
WAITING_LIMIT_BYTES = 64 * 1024**2
WRITTEN, DROPPED, FAILED = "written", "dropped", "failed"

logger = logging.getLogger(__name__)


class Answering(Protocol):
    """What an answer comes through: `Exchange`."""

    def on_body(self, data: bytes) -> None:
        """A piece of it, as the engine sent it."""


@dataclass(slots=True)
class Copy:
    """A request that is being copied. `is_cut`: the answer is longer than we look at."""

    request: AcceptedRequest
    document: Mapping[str, Any]
    body_bytes: int
    answer: list[bytes] = field(default_factory=list)
    answer_bytes: int = 0
    is_cut: bool = False

    def add(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self.answer_bytes += len(data)
        self.is_cut = self.answer_bytes > ANSWER_LIMIT_BYTES
        if not self.is_cut:
            self.answer.append(data)


class Capture:
    """See the module. All methods are for the loop's thread; `close` once. `counts`: how many were written, dropped, failed."""

    def __init__(self, folder: Path, settings: Settings, chance: Random | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._chance = chance or Random()
        self._copies: dict[str, Copy] = {}
        self._waiting_bytes = 0
        self._pool: ThreadPoolExecutor | None = None
        self._settings: CaptureSettings
        self._redactor: Redactor
        self.retune(settings)

    @property
    def is_on(self) -> bool:
        """Whether anything is to be copied."""
        return bool(self._settings.projects)

    def retune(self, settings: Settings) -> None:
        """Take new settings, for requests from now on."""
        own = self._settings = settings.capture
        key = settings.server.api_key
        literals = () if key is None else (key.get_secret_value(),)
        self._redactor = Redactor(own.patterns, own.fields, literals)

    def watch(self, call: Call, request: AcceptedRequest, answering: Answering) -> None:
        """Copy a request that is about to be sent, if it is one of those; its settlement writes it down."""
        own = self._settings
        if request.project not in own.projects and EVERYONE not in own.projects:
            return
        if self._chance.random() >= own.sample_ratio:
            return
        copy = self._copies[request.id] = Copy(request, call.document, len(call.body))
        take = answering.on_body

        def taken(data: bytes) -> None:
            copy.add(data)
            take(data)

        # Whoever is not copied does not pay for a question at each piece.
        answering.on_body = taken  # type: ignore[method-assign]

    def settled(self, record: UsageRecord) -> None:
        """Have a copied request written; for `Bookkeeper.on_settled`."""
        copy = self._copies.pop(record.request.id, None)
        if copy is None or record.settlement is None:
            return
        size = copy.body_bytes + min(copy.answer_bytes, ANSWER_LIMIT_BYTES)
        if self._waiting_bytes + size > WAITING_LIMIT_BYTES:
            self.counts[DROPPED] += 1
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="capture")
        self._waiting_bytes += size
        loop = asyncio.get_running_loop()
        outcome, redactor, own, folder = record.settlement.outcome, self._redactor, self._settings, self._folder
        writing = loop.run_in_executor(self._pool, lambda: _write(folder, line_of(copy, outcome, redactor, own), own))
        writing.add_done_callback(lambda done: self._written(done, size))

    async def open(self) -> None:
        """Remove what is too old, also of a time in which more was copied."""
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        await asyncio.to_thread(forget_old, self._folder, today, self._settings.retention_days)

    async def close(self) -> None:
        """Write what waits, and end."""
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown)

    def _written(self, done: asyncio.Future[None], size: int) -> None:
        self._waiting_bytes -= size
        error = None if done.cancelled() else done.exception()
        if error is not None and not self.counts[FAILED]:
            logger.error("A body could not be kept (it is said once): %s", error)
        self.counts[WRITTEN if error is None else FAILED] += 1


def line_of(copy: Copy, outcome: str, redactor: Redactor, settings: CaptureSettings) -> tuple[str, str]:
    """The day of a copy, and its line in that day's file."""
    request = copy.request
    accepted = datetime.fromtimestamp(request.accepted_at_ms / MILLISECONDS, UTC)
    asked, asked_is_cut = _fitted(redactor.document(copy.document), settings.max_bytes)
    answer, answer_is_cut = _fitted(_answer(copy, redactor), settings.max_bytes)
    line = {
        "id": request.id,
        "accepted_at": accepted.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "project": request.project,
        "endpoint": request.endpoint,
        "surface": request.surface,
        "outcome": outcome,
        "request": asked,
        "request_is_cut": asked_is_cut,
        "answer": answer,
        "answer_is_cut": answer_is_cut or copy.is_cut or (answer is None and copy.answer_bytes > 0),
    }
    return f"{accepted:%Y-%m-%d}", json.dumps(line, ensure_ascii=False) + "\n"


def _answer(copy: Copy, redactor: Redactor) -> Any:
    body = b"".join(copy.answer)
    if body.lstrip()[:1] not in (b"{", b"["):
        return redactor.document(assembled(body)) if body else None
    try:
        return redactor.document(json.loads(body))
    except (ValueError, RecursionError):
        # Of half a document nobody can say what its parts are.
        return None


def _fitted(value: Any, limit_bytes: int) -> tuple[Any, bool]:
    """The value; one that is too long as text, cut."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return (value, False) if len(text) <= limit_bytes else (text[:limit_bytes].decode("utf-8", "ignore"), True)


def _write(folder: Path, dated: tuple[str, str], settings: CaptureSettings) -> None:
    day, line = dated
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    path = folder / f"{day}{SUFFIX}"
    if not path.exists():
        forget_old(folder, day, settings.retention_days)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        whole = os.fstat(descriptor).st_size
        try:
            _write_all(file.write, line.encode("utf-8", "replace"))
        except OSError:
            # A full disk: no half of a line is left.
            os.ftruncate(descriptor, whole)
            raise


def _write_all(write: Callable[[bytes], int], data: bytes) -> None:
    while data:
        data = data[write(data) :]


def forget_old(folder: Path, today: str, retention_days: int) -> None:
    """Remove the files of days before the last `retention_days`, `today` (as their names say it) included."""
    first = datetime.strptime(today, "%Y-%m-%d") - timedelta(days=retention_days - 1)
    for path in folder.glob(f"????-??-??{SUFFIX}"):
        if path.stem < f"{first:%Y-%m-%d}":
            path.unlink(missing_ok=True)
