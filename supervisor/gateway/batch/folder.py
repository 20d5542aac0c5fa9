"""What a batch has on disk, in a folder of its own: `state.json`, `input.jsonl`, and the results as they come. Everything here blocks.

The result files are the truth about what was answered: a line whose result is not in them is asked again, whatever else was noted.
"""

from __future__ import annotations

import json
import os
import shutil
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from supervisor.data_folder import PRIVATE_FILE, PRIVATE_FOLDER, replace_file
from supervisor.gateway.batch.lines import LINE_BYTES_MAX, number_in
from supervisor.gateway.batch.objects import Batch

# What a power loss costs is asked again; a busy disk takes its time for each sync.
SYNC_SECONDS = 5.0
NEW_PREFIX = ".new-"
OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"
_STATE, _INPUT = "state.json", "input.jsonl"


class BatchFolder:
    """The folder of one batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.input = path / _INPUT
        self.output = path / OUTPUT
        self.errors = path / ERRORS

    def create(self, batch: Batch, source: Path) -> None:
        """Make the folder, whole or not at all; `source` may be deleted afterwards. FileNotFoundError when it was deleted before."""
        new = self.path.with_name(NEW_PREFIX + self.path.name)
        new.mkdir(mode=PRIVATE_FOLDER)
        try:
            link_or_copy(source, new / _INPUT)
            BatchFolder(new).save(batch)
            new.rename(self.path)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def save(self, batch: Batch) -> None:
        """Write the batch down; it is on the disk afterwards."""
        replace_file(self.path / _STATE, json.dumps(batch.to_stored()))

    def load(self) -> Batch:
        """What was written down. OSError, ValueError, TypeError or KeyError when that is not readable."""
        return Batch.from_stored(json.loads((self.path / _STATE).read_text("utf-8")))

    def input_bytes(self) -> int:
        """How large its input is; 0 when that is gone."""
        return self.input.stat().st_size if self.input.exists() else 0

    def forget_lines(self) -> None:
        """Remove what only a batch that is not over needs."""
        for path in (self.input, self.output, self.errors):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under another name: at no cost, where the file system has hard links. FileNotFoundError when there is no source."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


class LineReader:
    """Reads the lines of an input file in order; empty ones are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._number = 0

    def take(self, count: int, most_bytes: int) -> list[tuple[int, bytes]]:
        """The next lines with their numbers, from 1: at most `count`, and no more once they hold `most_bytes`; none at the end."""
        if self._file is None:
            self._file = self._path.open("rb")
        taken: list[tuple[int, bytes]] = []
        size = 0
        while len(taken) < count and size < most_bytes and (raw := self._file.readline(LINE_BYTES_MAX + 2)):
            self._number += 1
            # Editors on Windows begin a file with it.
            line = (raw.removeprefix(BOM_UTF8) if self._number == 1 else raw).strip()
            if line:
                taken.append((self._number, line))
                size += len(line)
        return taken

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


class ResultFiles:
    """The results of a batch. `done` holds the numbers of the lines that have one; nothing that is in it is ever lost or doubled.

    Beneath a failing disk too: what was written in part is overwritten by the next try, and cut off at the next start.
    """

    def __init__(self, folder: BatchFolder) -> None:
        self.done: set[int] = set()
        self.completed = 0
        self.failed = 0
        self._output = _ResultFile(folder.output)
        self._errors = _ResultFile(folder.errors)

    def open(self) -> None:
        """Take in what is there; a last line that was cut is removed."""
        self.completed, self.failed = self._take_in(self._output), self._take_in(self._errors)

    def append(self, number: int, result: bytes, *, is_answer: bool) -> None:
        """Add the result of a line that has none. It survives the end of this process, and power loss once it is synced."""
        (self._output if is_answer else self._errors).append(result)
        self.done.add(number)
        if is_answer:
            self.completed += 1
        else:
            self.failed += 1

    def sync(self) -> None:
        """See that everything is on the disk."""
        self._output.sync()
        self._errors.sync()

    def close(self) -> None:
        """Close the files; idempotent."""
        self._output.close()
        self._errors.close()

    def _take_in(self, file: _ResultFile) -> int:
        numbers = list(file.open())
        self.done.update(numbers)
        return len(numbers)


class _ResultFile:
    """One file to which whole lines are added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._size = 0
        self._is_synced = True

    def open(self) -> Iterator[int]:
        """The numbers of the lines in it; what follows the last whole one is cut off."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        self._size = 0
        with self._path.open("rb") as file:
            for raw in file:
                number = _number_of(raw)
                if number is None:
                    break
                self._size += len(raw)
                yield number
        os.ftruncate(self._descriptor, self._size)

    def append(self, line: bytes) -> None:
        """Add a line at the end of what is whole."""
        written = 0
        while written < len(line):
            written += os.pwrite(self._descriptor, line[written:], self._size + written)
        self._size += len(line)
        self._is_synced = False

    def sync(self) -> None:
        """See that it is on the disk, and nothing but whole lines."""
        if not self._is_synced:
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
            self._is_synced = True

    def close(self) -> None:
        """Close it; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _number_of(raw: bytes) -> int | None:
    """The number of the line that a whole result belongs to; None for what is not one."""
    if not raw.endswith(b"\n"):
        return None
    try:
        return number_in(str(json.loads(raw)["id"]))
    except (ValueError, TypeError, KeyError):
        return None
