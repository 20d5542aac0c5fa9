"""Log files with a hard cap on disk use, written by one thread so that a slow or full disk never holds up the event loop."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections import deque
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
QUEUE_BYTES_MAX = 8 * 1_024 * 1_024
CLOSE_DEADLINE_SECONDS = 2.0

log = logging.getLogger(__name__)


def open_log(path: Path) -> int:
    """A descriptor that appends to a private file, made with its folder when missing; a symbolic link in its place is refused."""
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, FILE_MODE)


def numbered(path: Path, number: int) -> Path:
    """The file that a log was rotated into: `engine.log.1` is the newest of the old ones."""
    return path.with_name(f"{path.name}.{number}")


def shift(path: Path, files: int) -> None:
    """Make room for a new `path.1`; of `files` files (the current one counts) the oldest goes, and what an earlier, larger limit left."""
    for number in itertools.count(max(1, files)):
        if not numbered(path, number).exists():
            break
        numbered(path, number).unlink()
    for number in range(files - 1, 0, -1):
        source = numbered(path, number)
        if number == files - 1:
            source.unlink(missing_ok=True)
        elif source.exists():
            source.replace(numbered(path, number + 1))


class RotatingFile:
    """One log of at most `file_bytes` × `files` bytes on disk. Used by the writer's thread only (`flagged` may be read anywhere).

    `error` is what the last write met, None when it went well; `errors` counts failures. A failed write leaves no half line behind.
    """

    def __init__(self, path: Path, *, file_bytes: int, files: int) -> None:
        self.path = path
        self.error: str | None = None
        self.errors = 0
        self._file_bytes = file_bytes
        self._files = max(1, files)
        self._descriptor: int | None = None
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append whole lines; never raises: what went wrong is in `error`."""
        try:
            for part in self._parts(data):
                self._append(part)
            self.error = None
        except OSError as failure:
            if self.error is None:
                log.warning("cannot write the log %s: %s", self.path, failure.strerror)
            self.error = f"cannot write {self.path.name}: {failure.strerror}"
            self.errors += 1

    def retune(self, *, file_bytes: int, files: int) -> None:
        """Take other limits, from the next write on; may be called on any thread."""
        self._file_bytes, self._files = file_bytes, max(1, files)

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _parts(self, data: bytes) -> list[bytes]:
        size = self._file_bytes
        return [data[start : start + size] for start in range(0, len(data), size)]

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = open_log(self.path)
            self._size = os.fstat(self._descriptor).st_size
        if self._size and self._size + len(data) > self._file_bytes:
            self._rotate()
        self._write_whole(self._descriptor, data)
        self._size += len(data)

    def _write_whole(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._size)
            raise

    def _rotate(self) -> None:
        self.close()
        shift(self.path, self._files)
        if self._files > 1:
            self.path.replace(numbered(self.path, 1))
        else:
            self.path.unlink(missing_ok=True)
        self._descriptor = open_log(self.path)
        self._size = 0


class LogWriter:
    """The one thread that writes every log file. What waits is bounded by `QUEUE_BYTES_MAX`; beyond it lines are dropped and counted."""

    def __init__(self) -> None:
        self.dropped_bytes = 0
        self._queue: deque[tuple[RotatingFile, bytes | None]] = deque()
        self._waiting_bytes = 0
        self._condition = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def write(self, file: RotatingFile, data: bytes) -> bool:
        """Hand lines over; False when they were dropped because the disk does not keep up. Never blocks."""
        with self._condition:
            if self._closing or self._waiting_bytes + len(data) > QUEUE_BYTES_MAX:
                self.dropped_bytes += len(data)
                return False
            self._enqueue(file, data)
        return True

    def release(self, file: RotatingFile) -> None:
        """Close a file once all that was handed over for it is written."""
        with self._condition:
            self._enqueue(file, None)

    def close(self) -> None:
        """Write what waits, then end; gives up on a hanging disk after `CLOSE_DEADLINE_SECONDS`. Call it off the loop or at the very end."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_DEADLINE_SECONDS)

    def _enqueue(self, file: RotatingFile, data: bytes | None) -> None:
        self._queue.append((file, data))
        self._waiting_bytes += len(data or b"")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()
        self._condition.notify()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            file, data = item
            if data is None:
                file.close()
            else:
                file.write(data)

    def _next(self) -> tuple[RotatingFile, bytes | None] | None:
        with self._condition:
            while not self._queue:
                if self._closing:
                    return None
                self._condition.wait()
            file, data = self._queue.popleft()
            self._waiting_bytes -= len(data or b"")
            return file, data
