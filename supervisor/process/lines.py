"""From bytes to lines that are safe to show: splitting, decoding, escaping, a guess at the level. Pure."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Stream = Literal["stdout", "stderr"]
Level = Literal["info", "warn", "error"]

LINE_BYTES_MAX = 8_192
LEVEL_SEARCH_CHARACTERS = 200

_ANSI = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)"  # titles, hyperlinks
    r"|\x1b[@-Z\\^_]"
)
_ERROR = re.compile(
    r"\b(?:error|fatal|fail(?:ed|ure)?|panic|abort(?:ed)?|traceback|exception|terminate called)\b|^[\d.]+ E ",
    re.IGNORECASE,
)
_WARNING = re.compile(r"\bwarn(?:ing)?\b|^[\d.]+ W ", re.IGNORECASE)

# Looked for first: a regular expression at every character of every line is most of what a flood would cost.
_ERROR_HINTS = ("error", "fatal", "fail", "panic", "abort", "traceback", "exception", "terminate", " e ")
_WARNING_HINTS = ("warn", " w ")


class LogLine(NamedTuple):
    """One line of output.

    `id` counts from 1 over the instance's life, never reused; `message` is text without control characters (those are spelt out, as `\\x00`);
    `timestamp_ms` unix milliseconds of its arrival.
    """

    id: int
    stream: Stream
    level: Level
    message: str
    timestamp_ms: int


class LineAssembler:
    """Cuts one stream of bytes into lines of at most `LINE_BYTES_MAX`; a longer one comes in pieces, since memory is bounded and output is not.

    A line ends with `\\n`, `\\r\\n` or `\\r` (progress bars overwrite themselves). Empty lines say nothing and are left out.
    """

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        pieces = (self._partial + data).splitlines()
        self._partial = b""
        if pieces and data[-1:] not in (b"\n", b"\r"):
            self._partial = pieces.pop()
        lines = [part for piece in pieces if piece for part in chunked(piece)]
        if len(self._partial) > LINE_BYTES_MAX:
            *full, self._partial = chunked(self._partial)
            lines += full
        return lines

    def flush(self) -> list[bytes]:
        """What has come without an end of line, as if it had one."""
        partial, self._partial = self._partial, b""
        return list(chunked(partial)) if partial else []


def chunked(line: bytes) -> list[bytes]:
    """A line in pieces of at most `LINE_BYTES_MAX`, never cut inside a UTF-8 character."""
    if len(line) <= LINE_BYTES_MAX:
        return [line]
    pieces, start = [], 0
    while len(line) - start > LINE_BYTES_MAX:
        end = start + LINE_BYTES_MAX
        while end > start + LINE_BYTES_MAX - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(line[start:end])
        start = end
    pieces.append(line[start:])
    return pieces


def to_text(line: bytes) -> str:
    """Text of a line: UTF-8, other bytes as `\\xNN`; terminal colours are dropped, every other unprintable character is spelt out."""
    text = line.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return "".join(char if char == "\t" or char.isprintable() else _spell(char) for char in text)


def _spell(char: str) -> str:
    """`\\x00`, `\\u202e`: what could hide, reorder or end a line must be seen instead."""
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def guess_level(message: str) -> Level:
    """How bad a line sounds, from its first words."""
    head = message[:LEVEL_SEARCH_CHARACTERS]
    folded = head.lower()
    if any(hint in folded for hint in _ERROR_HINTS) and _ERROR.search(head):
        return "error"
    return "warn" if any(hint in folded for hint in _WARNING_HINTS) and _WARNING.search(head) else "info"
