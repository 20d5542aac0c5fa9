"""What is kept of a stream so that its client can join it again: its events, numbered, within bounds of memory and time. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

from supervisor.errors import LlamavisorError, MalformedRequestError, NotFoundError, RequestCancelledError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.sse import ANY_BLANK_LINE

RESUME_HEADER = "X-Llamavisor-Resume"
LAST_EVENT_ID = "Last-Event-ID"
# What a reader takes at a time: a long replay need not be in memory once more for each that asks for it.
PIECE_BYTES = 64 * 1024
NUMBER_LINE_BYTES = 20
SHOWN_CHARACTERS = 60


class StreamNotFoundError(NotFoundError):
    """The caller has no stream of that id: there never was one, it was stopped, or its time is over."""

    code = "stream_not_found"


class EventsGoneError(LlamavisorError):
    """The stream is there, but what comes next for this reader is not kept any more."""

    code, status = "events_gone", 410


class StreamStoppedError(RequestCancelledError):
    """The stream was stopped by its client, or nobody read it for as long as was agreed."""

    code, status = "stream_stopped", 409


class Owner(NamedTuple):
    """Who alone may join a stream again, or stop it."""

    project: str
    key_id: str | None

    @classmethod
    def of(cls, caller: Caller) -> Owner:
        """The owner of what `caller` asks for."""
        return cls(caller.project, caller.key_id)


def seconds_asked(header: str) -> float:
    """The value of `X-Llamavisor-Resume`: seconds above 0. MalformedRequestError for anything else."""
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        message = f"`{RESUME_HEADER}` must be a number of seconds above 0: how long the stream is to go on without its client."
        raise MalformedRequestError(message, param=RESUME_HEADER)
    return seconds


def event_seen(header: str | None) -> int:
    """The value of `Last-Event-ID`: the number of an event, 0 when it is missing. MalformedRequestError for anything else."""
    if not header:
        return 0
    if not (header.isascii() and header.isdigit() and len(header) < 16):
        message = f"`{LAST_EVENT_ID}` must be the `id` of an event of this stream, a whole number."
        raise MalformedRequestError(message, param=LAST_EVENT_ID)
    return int(header)


class EventRing:
    """The newest events of a stream, numbered from 1: as many as fit into `limit_bytes`, but never less than the last one.

    Each carries its number in a line `id:` of its own, behind what the engine sent of it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._events: deque[bytes] = deque()
        self._ends: deque[int] = deque()
        self._total_bytes = 0
        self.last = 0

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept; one beyond `last` when there is none."""
        return self.last + 1 - len(self._events)

    def add(self, data: bytes) -> None:
        """Take whole events, as they came; the oldest make room for them."""
        start = 0
        for blank in ANY_BLANK_LINE.finditer(data):
            self.last += 1
            # The last `id` of an event counts, should the engine number its events too.
            event = b"%b\nid: %d%b" % (data[start : blank.start()], self.last, blank.group())
            start = blank.end()
            self._total_bytes += len(event)
            self._events.append(event)
            self._ends.append(self._total_bytes)
        while len(self._events) > 1 and self._total_bytes - self._start_of_first() > self._limit_bytes:
            self._events.popleft()
            self._ends.popleft()

    def after(self, seen: int) -> tuple[bytes, int]:
        """What comes after event `seen`, about 64 KiB at most, and the number of its last event; nothing and `seen` when nothing does.

        EventsGoneError when some of it is not kept any more, MalformedRequestError when `seen` is an event that has not been sent.
        """
        self.check(seen)
        taken: list[bytes] = []
        size = 0
        # By index: readers follow the end, which a deque reaches at once, and an iterator only after everything before it.
        for index in range(seen + 1 - self.first, len(self._events)):
            event = self._events[index]
            taken.append(event)
            size += len(event)
            if size >= PIECE_BYTES:
                break
        return b"".join(taken), seen + len(taken)

    def check(self, seen: int) -> None:
        """Raise what `after` would."""
        if seen > self.last:
            message = f"`{LAST_EVENT_ID}` is {seen}, but the stream has had only {self.last} events so far."
            raise MalformedRequestError(message, param=LAST_EVENT_ID)
        if seen + 1 < self.first:
            raise EventsGoneError(
                f"Event {seen + 1} of the stream is not kept any more; the oldest that is has the id {self.first}.",
                param=LAST_EVENT_ID,
                remedy=f"Send `{LAST_EVENT_ID}: {self.first - 1}` to go on from there.",
                details={"first": self.first, "last": self.last},
            )

    def portions(self, data: bytes) -> list[bytes]:
        """Whole events in pieces that do not displace one another: all at once, if they fit, else one by one."""
        if _size_within(data) <= self._limit_bytes:
            return [data]
        ends = [blank.end() for blank in ANY_BLANK_LINE.finditer(data)]
        return [data[start:end] for start, end in pairwise([0, *ends])]

    def has_room(self, seen: int, data: bytes) -> bool:
        """Whether `data` can be added without loss for a reader who has seen event `seen`; always, when it has seen all."""
        if seen >= self.last:
            return True
        if seen + 1 < self.first:
            return False
        unread_from = self._ends[seen - self.first] if seen >= self.first else self._start_of_first()
        return self._total_bytes - unread_from + _size_within(data) <= self._limit_bytes

    def _start_of_first(self) -> int:
        return self._ends[0] - len(self._events[0]) if self._events else self._total_bytes


def _size_within(data: bytes) -> int:
    """What `data` takes in a ring, at most: a blank line is at least two characters."""
    events_most = (data.count(b"\n") + data.count(b"\r")) // 2
    return len(data) + events_most * NUMBER_LINE_BYTES


@dataclass(eq=False)
class KeptStream:
    """A stream as the keeper sees it. `idle_since` (monotonic seconds): when its last reader left it, or when it ended, whichever came last."""

    id: str
    owner: Owner
    window_seconds: float
    ring: EventRing
    idle_since: float
    readers: int = field(default=0, init=False)
    is_over: bool = field(default=False, init=False)

    @property
    def due_at(self) -> float | None:
        """When nobody needs it any more, monotonic seconds; None while somebody reads it."""
        return None if self.readers else self.idle_since + self.window_seconds


Kept = TypeVar("Kept", bound=KeptStream)


def owned(streams: Mapping[str, Kept], stream_id: str, owner: Owner) -> Kept:
    """The stream of that id; StreamNotFoundError unless there is one and it is the owner's: strangers do not learn that it exists."""
    stream = streams.get(stream_id)
    if stream is None or stream.owner != owner:
        raise StreamNotFoundError(
            f"There is no stream `{stream_id[:SHOWN_CHARACTERS]}` of yours.",
            remedy="A stream can be joined with the key that it was asked for with, until nobody has read it for the time agreed.",
        )
    return stream


def displaced(streams: Iterable[Kept]) -> Kept | None:
    """The stream that goes first where there are too many: of those that ended and nobody reads, the one idle longest. None: all are needed."""
    return min(
        (stream for stream in streams if stream.is_over and not stream.readers),
        key=lambda stream: stream.idle_since,
        default=None,
    )
