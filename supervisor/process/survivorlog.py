"""The log file that a process which outlives the supervisor writes itself: followed by looking, capped by copying and cutting."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from supervisor.process.lines import LineAssembler
from supervisor.process.logfile import FILE_MODE, numbered, shift

POLL_BYTES = 262_144
LOOK_BACK_BYTES = 65_536


class SurvivorLog:
    """Reads what is appended to a file that somebody else writes. The process holds it open for appending, so it is cut, never renamed.

    `offset` is where to begin (None: `LOOK_BACK_BYTES` before the end). Disk use stays under `file_bytes` × `files` plus what is written
    between two polls.
    """

    def __init__(self, path: Path, file_bytes: int, files: int, *, offset: int | None) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._files = files
        self._offset = max(0, self._size() - LOOK_BACK_BYTES) if offset is None else offset
        self._assembler = LineAssembler()

    def retune(self, *, file_bytes: int, files: int) -> None:
        """Take other limits, from the next poll on."""
        self._file_bytes, self._files = file_bytes, files

    def poll(self) -> tuple[list[bytes], int]:
        """The lines that are new, and how many bytes were skipped because more came than `POLL_BYTES`."""
        size = self._size()
        if size < self._offset:
            self._offset = 0
        lost_bytes = max(0, size - self._offset - POLL_BYTES)
        lines = self._read(self._offset + lost_bytes, size)
        self._offset = size
        if size > self._file_bytes:
            self._cut()
        return lines, lost_bytes

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def _read(self, start: int, end: int) -> list[bytes]:
        if start >= end:
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                return self._assembler.feed(file.read(end - start))
        except OSError:
            return []

    def _cut(self) -> None:
        """Copy aside, then empty the file; what is written between the two is lost. A full disk keeps the cap and loses the copy."""
        with contextlib.suppress(OSError):
            shift(self._path, self._files)
            if self._files > 1:
                shutil.copyfile(self._path, numbered(self._path, 1))
                numbered(self._path, 1).chmod(FILE_MODE)
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)
            self._offset = 0
