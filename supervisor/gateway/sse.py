"""Judging a stream of server-sent events while it passes, without changing a byte of it.

A `StreamJudge` lets whole events through and holds back the beginning of the next one, so that whatever goes wrong, what the client has is whole
events, and an error can be told in an event of its own. It reads only as much as the judgement needs: the payload of an event is never parsed
unless it speaks of an error.
"""

from __future__ import annotations

import json
import re

EVENT_LIMIT_BYTES = 8 * 1024**2
DONE = b"[DONE]"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK_LINE = re.compile(rb"\n\n")
# `\r\n` alone ends one line, not two; the line end may be any of the three, and they may be mixed.
ANY_BLANK_LINE = re.compile(rb"\r\n(?:\r\n?|\n)|\n(?:\r\n?|\n)|\r\r\n?")
_ANY_LINE_END = re.compile(rb"\r\n|\n|\r")


class StreamJudge:
    """Decides whether a stream was a complete answer.

    `is_done`: `[DONE]` came. `has_error`: an event said that the engine failed. `fault`: why the stream is no well-formed answer (None: it is, so
    far); from then on nothing more is let through. `events`: events with a payload so far, `[DONE]` not counted.
    """

    __slots__ = ("_figures", "_held", "_started", "events", "fault", "has_error", "is_done")

    def __init__(self) -> None:
        self.events = 0
        self.is_done = False
        self.has_error = False
        self.fault: str | None = None
        self._held = b""
        self._figures = b""
        self._started = False

    @property
    def has_spoken(self) -> bool:
        """Something other than a comment came."""
        return bool(self.events) or self.is_done or self.has_error

    @property
    def is_success(self) -> bool:
        """Nothing is missing and nothing went wrong; to be asked at the end of the stream."""
        return self.is_done and not self.has_error and self.fault is None

    @property
    def figures(self) -> bytes:
        """The last event that spoke of tokens (`usage`, or llama.cpp's `timings`); nothing when none did."""
        return self._figures

    def feed(self, chunk: bytes) -> bytes:
        """Take what came and return what may be sent on: every event that is whole now, as it came."""
        if self.fault is not None:
            return b""
        data = self._held + chunk if self._held else chunk
        start = self._pass_plain(data)
        blank_line = ANY_BLANK_LINE if b"\r" in data else _BLANK_LINE
        for end in blank_line.finditer(data, start):
            self._judge(data[start : end.start()])
            if self.fault is not None:
                self._held = b""
                return data[:start]
            start = end.end()
        self._held = data[start:]
        if len(self._held) > EVENT_LIMIT_BYTES:
            self.fault, self._held = f"it sent an event of more than {EVENT_LIMIT_BYTES} bytes", b""
        return data[:start]

    def finish(self) -> None:
        """The stream has ended: what is still held never became an event."""
        if self.fault is None and self._held.strip():
            self.fault = "it ended in the middle of an event"
        elif self.fault is None and not self.is_done and not self.has_error:
            self.fault = "it ended without [DONE]"

    def _pass_plain(self, data: bytes) -> int:
        """Count the events in which nothing is to be judged, all at once, which costs half; where what is not so begins (0: at once)."""
        end = data.rfind(b"}\n\n") + 3
        if end < 3 or self.is_done or b"\r" in data:
            return 0
        events = data.count(b"\n\n", 0, end)
        are_plain = (
            data.startswith(b"data: {")
            and data.count(b"\n", 0, end) == 2 * events
            and data.count(b"}\n\ndata: {", 0, end) == events - 1
            and data.find(b'"error"', 0, end) < 0
            and data.find(b'"usage"', 0, end) < 0
            and data.find(b'"timings"', 0, end) < 0
            and (data.isascii() or _is_utf8(data[:end]))
        )
        if not are_plain:
            return 0
        self._started = True
        self.events += events
        return end

    def _judge(self, event: bytes) -> None:
        if not self._started:
            self._started = True
            event = event.removeprefix(_BYTE_ORDER_MARK)
        if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
            payload, failed = event[6:], False
        else:
            payload, failed = _read_event(event)
        if payload or failed:
            self._judge_payload(payload.strip(), failed)

    def _judge_payload(self, payload: bytes, failed: bool) -> None:
        if self.is_done:
            self.fault = "it went on after [DONE]"
        elif payload == DONE:
            self.is_done = True
        elif failed or _is_error(payload):
            self.has_error = True
        elif not (payload.startswith(b"{") and payload.endswith(b"}")):
            self.fault = "it sent an event that is no JSON object"
        elif not payload.isascii() and not _is_utf8(payload):
            self.fault = "it sent an event that is not UTF-8"
        else:
            self.events += 1
            if b'"usage"' in payload or b'"timings"' in payload:
                self._figures = payload


def _read_event(event: bytes) -> tuple[bytes, bool]:
    """The payload of an event of any shape (RFC: WHATWG server-sent events), and whether its name says that it is an error."""
    data: list[bytes] = []
    failed = False
    for line in _ANY_LINE_END.split(event):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"error" or (field == b"event" and value == b"error"):
            failed = True
    return b"\n".join(data), failed


def _is_error(payload: bytes) -> bool:
    """Whether the payload is an error object, as OpenAI and llama.cpp (`error`) or old vLLM (`object`) write it."""
    if b'"error"' not in payload:
        return False
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and (bool(document.get("error")) or document.get("object") == "error")


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
