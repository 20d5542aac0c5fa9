"""The journal: what was accepted and how it ended, in the order in which it happened, before it is in the database.

A line is written with one system call, so that a kill of the process can take nothing from it; a thread brings lines to the disk in groups, so that a
power cut costs at most the last group. Each line is `CRC32 JSON`, the JSON an array: `["a", …]` accepted, `["n", id, usage]` noted on the way,
`["s", …]` settled. Segments are numbered files; one is deleted when all of it is in the database.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.data_folder import PRIVATE_FILE, PRIVATE_FOLDER
from supervisor.storage.records import AcceptedRequest, Price, Settlement, TokenSource, TokenUsage

SEGMENT_BYTES = 4 * 1024**2
SUFFIX = ".journal"
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_CRC_LENGTH = 8


class Journal:
    """An open journal, for one thread. `fault` says why the last line could not be written (None: it could)."""

    def __init__(self, folder: Path, sync_seconds: float) -> None:
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        self.fault: str | None = None
        self._folder = folder
        self._number = max((number_of(path) for path in segments(folder)), default=0)
        self._descriptor = -1
        self._size = 0
        self._syncer = _Syncer(sync_seconds)
        self._open_next()

    @property
    def number(self) -> int:
        """The segment that is written to."""
        return self._number

    def accept(self, request: AcceptedRequest) -> None:
        """Note that a request is let in."""
        self._write(("a", *request))

    def note(self, request_id: str, usage: TokenUsage) -> None:
        """Note how far an answer has come, so that a kill does not make it free."""
        self._write(("n", request_id, usage))

    def settle(self, settlement: Settlement) -> None:
        """Note how a request ended."""
        self._write(("s", *settlement))

    def forget_before(self, number: int) -> None:
        """Delete the segments before that one: all of them is in the database."""
        for path in segments(self._folder):
            if number_of(path) < number:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Bring everything to the disk."""
        self._syncer.close()
        os.close(self._descriptor)

    def _write(self, fields: tuple[Any, ...]) -> None:
        text = _encode(fields).encode()
        line = b"%08x %b\n" % (zlib.crc32(text), text)
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.ftruncate(self._descriptor, self._size)
                raise OSError(0, "the disk is full")
            self._size += written
            self._syncer.dirty()
            if self._size > SEGMENT_BYTES:
                self._open_next()
        except OSError as error:
            # Serving goes on; the database gets it from memory, if it can be written to.
            self.fault = f"The journal cannot be written: {error.strerror or error}."
            return
        self.fault = None

    def _open_next(self) -> None:
        """Go on in a new segment. Where it cannot be opened (OSError), nothing has changed: the present one goes on."""
        path = self._folder / f"{self._number + 1:010d}{SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
        self._syncer.follow(descriptor, self._descriptor)
        self._descriptor, self._number, self._size = descriptor, self._number + 1, 0


class _Syncer:
    """The thread that brings the journal to the disk, `seconds` after the first line of a group; it sleeps while there is none."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._dirty = threading.Event()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._present = -1
        self._full: list[int] = []
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def dirty(self) -> None:
        """There is a line that is not on the disk."""
        if not self._dirty.is_set():
            self._dirty.set()

    def follow(self, descriptor: int, before: int) -> None:
        """Lines go to `descriptor` from now on; `before` (-1: none) is still to be brought to the disk, and closed."""
        with self._lock:
            self._present = descriptor
            if before >= 0:
                self._full.append(before)
        self.dirty()

    def close(self) -> None:
        """Sync for the last time."""
        self._ending.set()
        self._dirty.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._dirty.wait()
            self._ending.wait(self._seconds)
            self._dirty.clear()
            self._sync()

    def _sync(self) -> None:
        with self._lock:
            present, full, self._full = self._present, self._full, []
        for descriptor in (*full, present):
            # What the disk refuses now, the next line that is written is refused too, and says so.
            with suppress(OSError):
                os.fdatasync(descriptor)
        for descriptor in full:
            os.close(descriptor)


def segments(folder: Path) -> list[Path]:
    """The segments in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def number_of(path: Path) -> int:
    """A segment's number."""
    return int(path.stem)


Entry = AcceptedRequest | Settlement | tuple[str, TokenUsage]
"""A line: accepted, settled, or what a request had used so far."""


def read_segment(path: Path) -> Iterator[Entry]:
    """The entries of a segment. It ends where a line is not whole: what comes after a torn line was never promised to anybody."""
    with path.open("rb") as file:
        for line in file:
            fields = _checked(line)
            if fields is None:
                return
            yield _entry(fields)


def _checked(line: bytes) -> list[Any] | None:
    text = line[_CRC_LENGTH + 1 : -1]
    if not line.endswith(b"\n") or line[:_CRC_LENGTH] != b"%08x" % zlib.crc32(text):
        return None
    fields = json.loads(text)
    return fields if isinstance(fields, list) else None


def _entry(fields: list[Any]) -> Entry:
    kind, *rest = fields
    if kind == "n":
        return str(rest[0]), _usage(rest[1])
    if kind == "a":
        request = AcceptedRequest(*rest)
        return request if request.price is None else request._replace(price=Price(*request.price))
    settlement = Settlement(*rest)
    return settlement._replace(usage=_usage(settlement.usage))


def _usage(fields: Iterable[Any]) -> TokenUsage:
    prompt, completion, cached, source = fields
    return TokenUsage(prompt, completion, cached, TokenSource(source))
