"""A bounded forward window over a file: the only place where the bytes of a GGUF file are read.

It keeps at most one chunk in memory, counts every byte that it reads against a budget, never maps the file, and turns
every failure of the file system and every read past the end into a `GgufError`.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from supervisor.errors import LlamavisorError

GgufErrorCode = Literal[
    "unreadable",
    "not_gguf",
    "truncated",
    "unsupported_version",
    "too_large",
    "malformed",
    "incomplete",
    "outside_folder",
]

#: One window: large enough that a real header takes a few dozen reads, small beside anything else in the process.
CHUNK_BYTES = 256 * 1024

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class GgufLimits:
    """What the reader grants a header before it answers `too_large`. The largest known headers need less than half of each.

    `header_bytes` counts the bytes read, `key_count` the metadata pairs, `array_count` the arrays with those inside arrays,
    `array_items` the elements of one array, `string_bytes` one string (at least the window of 256 KiB).
    """

    header_bytes: int = 32 * 1024 * 1024
    key_count: int = 16_384
    tensor_count: int = 65_536
    array_count: int = 16_384
    array_items: int = 4_194_304
    array_depth: int = 4
    string_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.string_bytes < CHUNK_BYTES:
            raise ValueError(f"string_bytes must be at least {CHUNK_BYTES}")


DEFAULT_LIMITS = GgufLimits()


class GgufError(LlamavisorError):
    """A file that cannot be served as GGUF: `path` names it, `code` says in which way, `remedy` what to do.

    Codes: `unreadable` (missing, forbidden, an I/O error), `not_gguf`, `truncated` (shorter than it says), `unsupported_version`,
    `too_large` (over a limit of the reader), `malformed`; from discovery also `incomplete` (parts of a split model are missing)
    and `outside_folder` (a symbolic link that leaves the folder searched).
    """

    status = 422

    def __init__(self, path: Path, code: GgufErrorCode, detail: str, remedy: str) -> None:
        super().__init__(f"{printable(str(path))}: {detail}.", code=code, remedy=remedy)
        self.path = path


def printable(text: str) -> str:
    """`text` with each character that a terminal or a log line could take for a command replaced by U+FFFD."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class GgufSource:
    """Reads `path` forward. `size_bytes` is the file's length when it was opened; `position` the absolute offset."""

    def __init__(self, path: Path, descriptor: int, size_bytes: int, budget_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self._descriptor = descriptor
        self._limit_bytes = self._budget_bytes = budget_bytes
        self._base = 0
        self._at = 0
        self._window = b""

    @property
    def position(self) -> int:
        return self._base + self._at

    def u32(self) -> int:
        value: int = self.unpack(_U32)[0]
        return value

    def u64(self) -> int:
        value: int = self.unpack(_U64)[0]
        return value

    def unpack(self, shape: struct.Struct) -> tuple[Any, ...]:
        """The next fields, as `shape` lays them out."""
        start = self._take(shape.size)
        return shape.unpack_from(self._window, start)

    def raw(self, length: int) -> bytes:
        """The next `length` bytes; the caller has bounded `length`."""
        start = self._take(length)
        return self._window[start : start + length]

    def peek(self, length: int) -> bytes:
        """At most `length` bytes from here, without moving; fewer at the end of the file."""
        self._fill(min(length, self.size_bytes - self.position))
        return self._window[self._at : self._at + length]

    def skip(self, length: int) -> None:
        """Move over `length` bytes without reading them."""
        if length > self.size_bytes - self.position:
            raise self.truncated()
        self._at += length

    def skip_strings(self, count: int, longest_bytes: int) -> None:
        """Move over `count` length-prefixed strings; `longest_bytes` is at least `CHUNK_BYTES`.

        A vocabulary has hundreds of thousands of them, so the inner loop holds none and checks only the one that leaves the window.
        """
        unpack = _U64.unpack_from
        remaining = count
        while remaining:
            self._fill(8)
            window, at, last = self._window, self._at, len(self._window) - 8
            length = 0
            for left in range(remaining - 1, -1, -1):
                length = unpack(window, at)[0]
                remaining = left
                at += 8 + length
                if at > last:
                    break
            self.check_string(length, longest_bytes)
            self.skip(at - self._at)

    def check_string(self, length: int, longest_bytes: int) -> None:
        if length > longest_bytes:
            raise self.too_large(f"a string of {length:,} bytes", f"{longest_bytes:,} bytes")

    def truncated(self, detail: str | None = None) -> GgufError:
        return GgufError(
            self.path,
            "truncated",
            detail or f"it ends after {self.size_bytes:,} bytes, in the middle of its header",
            "The download or copy stopped early: fetch the file again.",
        )

    def too_large(self, what: str, limit: str) -> GgufError:
        return GgufError(
            self.path,
            "too_large",
            f"its header holds {what}, over the reader's limit of {limit}",
            "No known model needs that much: fetch the file again from a source that you trust.",
        )

    def malformed(self, detail: str) -> GgufError:
        return GgufError(
            self.path, "malformed", detail, "The file is damaged: fetch it again, or convert the model again."
        )

    def _take(self, length: int) -> int:
        """The window's index of the next `length` bytes, which are moved over."""
        self._fill(length)
        start = self._at
        self._at += length
        return start

    def _fill(self, needed: int) -> None:
        """Have `needed` bytes from the position on in the window."""
        if self._at + needed <= len(self._window):
            return
        self._base += self._at
        self._at = 0
        self._window = b""
        if needed > self.size_bytes - self._base:
            raise self.truncated()
        if needed > self._budget_bytes:
            raise self.too_large("more to read", f"{self._limit_bytes:,} bytes")
        self._window = os.pread(self._descriptor, min(max(CHUNK_BYTES, needed), self._budget_bytes), self._base)
        self._budget_bytes -= len(self._window)
        if len(self._window) < needed:
            raise self.truncated()


@contextmanager
def open_source(path: Path, budget_bytes: int) -> Iterator[GgufSource]:
    """Open `path` for at most `budget_bytes` of reading. Whatever is not a regular file is refused without being opened."""
    try:
        _require_regular(path, os.stat(path).st_mode)
        # Between the two checks the name may have come to mean a FIFO: opening one must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        _require_regular(path, status.st_mode)
        yield GgufSource(path, descriptor, status.st_size, budget_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
    raise GgufError(path, "not_gguf", f"it is {kind}", "Give the path of a .gguf file.")


def _unreadable(path: Path, error: OSError | ValueError) -> GgufError:
    reason = error.strerror if isinstance(error, OSError) else None
    return GgufError(
        path,
        "unreadable",
        f"it cannot be read ({printable(reason or str(error))})",
        "Check the path and that the user who runs Llamavisor may read it.",
    )
