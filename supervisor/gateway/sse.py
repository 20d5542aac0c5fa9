"""Judging a stream of server-sent events while it passes, without changing a byte of it.

A `StreamJudge` lets whole events through and holds back the beginning of the next one, so that whatever goes wrong, what the client has is whole
events, and an error can be told in an event of its own. It reads only as much as the judgement needs: the payload of an event is never parsed
unless it speaks of an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

from supervisor.gateway.stream_ends import DONE, OPENAI_END, StreamEnd, usage_in

EVENT_LIMIT_BYTES = 8 * 1024**2
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK_LINE = re.compile(rb"\n\n")
# `\r\n` alone ends one line, not two; the line end may be any of the three, and they may be mixed.
ANY_BLANK_LINE = re.compile(rb"\r\n(?:\r\n?|\n)|\n(?:\r\n?|\n)|\r\r\n?")
# Quotes inside a JSON string are escaped, so none of them can come from what a model says.
_MARKS = (b'"usage"', b'"timings"', b'"error"')
_ANY_LINE_END = re.compile(rb"\r\n|\n|\r")


class StreamJudge:
    """Decides whether a stream was a complete answer.

    `is_done`: its last event came, as `end` describes it. `has_error`: an event said that the engine failed. `fault`: why the stream is not well
    formed (None: it is, so far); from then on nothing more is let through. `events`: events that brought text so far.
    """

    __slots__ = (
        "_end",
        "_figures",
        "_has_payload",
        "_held",
        "_started",
        "_usage",
        "events",
        "fault",
        "has_error",
        "is_done",
    )

    def __init__(self, end: StreamEnd = OPENAI_END) -> None:
        self._end = end
        self._usage: dict[str, Any] = {}
        self._has_payload = False
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
        return self._has_payload or bool(self.events)

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
            self.fault = f"it ended without {self._end.name}"

    def _pass_plain(self, data: bytes) -> int:
        """Count the events in which nothing is to be judged, all at once, which costs half; where what is not so begins (0: at once)."""
        if self.is_done or self._end.is_typed or b"\r" in data:
            return 0
        end = data.rfind(b"}\n\n", 0, _first_mark(data)) + 3
        if end < 3:
            return 0
        events = data.count(b"\n\n", 0, end)
        are_plain = (
            data.startswith(b"data: {")
            and data.count(b"\n", 0, end) == 2 * events
            and data.count(b"}\n\ndata: {", 0, end) == events - 1
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
        self._has_payload = True
        if payload == DONE:
            self._judge_done()
        elif self.is_done:
            self.fault = f"it went on after {self._end.name}"
        elif failed or _is_error(payload):
            self.has_error = True
        elif not (payload.startswith(b"{") and payload.endswith(b"}")):
            self.fault = "it sent an event that is no JSON object"
        elif not payload.isascii() and not _is_utf8(payload):
            self.fault = "it sent an event that is not UTF-8"
        elif self._end.is_typed:
            self._judge_typed(payload)
        else:
            self.events += 1
            if b'"usage"' in payload or b'"timings"' in payload:
                self._figures = payload

    def _judge_done(self) -> None:
        """`[DONE]` is the end of most streams; vLLM adds it to the others too, once."""
        if self.is_done and not self._end.is_typed:
            self.fault = "it went on after [DONE]"
        elif not (self.is_done or self.has_error) and self._end.is_typed:
            self.fault = f"it ended without {self._end.name}"
        self.is_done = self.fault is None
        self._end = OPENAI_END

    def _judge_typed(self, payload: bytes) -> None:
        verdict = self._end.verdict(payload)
        self.is_done, self.has_error = verdict is True, self.has_error or verdict is False
        self.events += self._end.brings_tokens(payload)
        if b'"usage"' in payload:
            # Anthropic's are spread over two events; what a later one says corrects an earlier one.
            self._usage |= usage_in(payload)
            self._figures = json.dumps({"usage": self._usage}).encode()


def _first_mark(data: bytes) -> int:
    """Where something is said that has to be judged; the length of `data` where nothing is."""
    end = len(data)
    for mark in _MARKS:
        at = data.find(mark, 0, end)
        end = end if at < 0 else at
    return end


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
