"""Server-sent events, taken apart as they arrive. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from supervisor.errors import LlamavisorError

EVENT_BYTES_MAX = 16 * 1024**2
# A carriage return at the very end may be the first half of a line's end.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class EventTooLargeError(LlamavisorError):
    """A server sent an event, or a line, that is larger than any of ours."""

    code, status = "event_too_large", 502


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: `type` (`message` when none was sent), `data` with its lines joined, `id` of the newest event that had one."""

    type: str
    data: str
    id: str


class EventParser:
    """Takes bytes however they are cut, and gives whole events."""

    def __init__(self) -> None:
        self._buffer = b""
        self._type = ""
        self._data: list[str] = []
        self._data_size = 0
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes. Raises EventTooLargeError rather than to hold more than `EVENT_BYTES_MAX`."""
        *lines, self._buffer = _LINE_END.split(self._buffer + chunk)
        events = [event for line in lines if (event := self._take(line)) is not None]
        if len(self._buffer) + self._data_size > EVENT_BYTES_MAX:
            raise EventTooLargeError(f"The server sent an event of more than {EVENT_BYTES_MAX} bytes.")
        return events

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._data_size += len(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event = ServerSentEvent(self._type or "message", "\n".join(self._data), self._id) if self._data else None
        self._type, self._data, self._data_size = "", [], 0
        return event
