"""Streams that go on without their client, each in a task of its own, and whoever reads them.

Asking for a stream and reading it are two things here: the task takes the answer from the engine into the ring of its events, readers take it from
there. While somebody reads, the slowest of them sets the pace, as it does of every stream; without readers the stream goes on to its end.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from supervisor.clock import Clock, Timer
from supervisor.config.gateway_settings import GatewaySettings
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Waiting
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer, Exchange
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.passage import Passage
from supervisor.gateway.resumable import EventRing, KeptStream, Owner, StreamStoppedError, displaced, owned

logger = logging.getLogger(__name__)

ID_BYTES = 16


class ResumableStream(KeptStream):
    """One request, from its place in the line to the last event of its answer.

    `booking` is there once it waits or has begun, `answer` once it has begun; `error` is what it ended with, if it failed. `is_whole`: it ended as a
    client may believe. `stopped`: its client asked for its end.
    """

    def __init__(self, call: Call, caller: Caller, window_seconds: float, limit_bytes: int, clock: Clock) -> None:
        stream_id = f"stream_{secrets.token_hex(ID_BYTES)}"
        super().__init__(stream_id, Owner.of(caller), window_seconds, EventRing(limit_bytes), clock.monotonic())
        self.answer: Answer | None = None
        self.error: LlamavisorError | None = None
        self.is_whole = False
        self.stopped: StreamStoppedError | None = None
        self.waiting: Waiting | None = None
        self.booking: Booking
        self._call = call
        self._caller = caller
        self._readers: set[Reader] = set()
        self._room = asyncio.Event()

    @property
    def path(self) -> str:
        """The route that it was asked for on, whose words errors are told in."""
        return self._call.path

    async def run(self, gateway: Gateway) -> None:
        """See it through; what goes wrong is in `error`."""

        def tell(waiting: Waiting) -> None:
            self.waiting, self.booking = waiting, passage.booking
            self._wake()

        passage = Passage(gateway, self._call, self._caller, on_wait=tell, why=lambda: self.stopped)
        try:
            async with passage:
                self.booking = passage.booking
                answer = await passage.answer()
                self.answer = answer
                await self._take(passage.exchange, answer)
        except LlamavisorError as error:
            self.error = error

    def end(self, error: LlamavisorError | None, now: float) -> None:
        """Nothing more comes; `error` is why, where `run` could not tell."""
        self.error = self.error or error
        self.is_over, self.idle_since = True, now
        self._wake()

    def join(self, reader: Reader) -> None:
        """One more reads it."""
        self._readers.add(reader)
        self.readers = len(self._readers)

    def leave(self, reader: Reader, now: float) -> None:
        """One reads it no more."""
        self._readers.discard(reader)
        self.readers, self.idle_since = len(self._readers), now
        self._room.set()

    def advanced(self) -> None:
        """A reader has taken something."""
        self._room.set()

    async def _take(self, exchange: Exchange, answer: Answer) -> None:
        if not answer.is_stream:
            self.is_whole = True
            return
        data = answer.body
        while data:
            for portion in self.ring.portions(data):
                await self._until_room(portion)
                self.ring.add(portion)
                self._wake()
            data = await exchange.more()
        self.is_whole = exchange.is_done
        if not self.is_whole:
            exchange.close()

    async def _until_room(self, data: bytes) -> None:
        """Wait for readers who would lose something: each takes it, or is cut off for not reading."""
        while not all(self.ring.has_room(reader.seen, data) for reader in self._readers):
            self._room.clear()
            await self._room.wait()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader:
    """Somebody who reads a stream; `seen` is the number of the last event taken."""

    def __init__(self, stream: ResumableStream, seen: int) -> None:
        self.seen = seen
        self._stream = stream
        self._told: Waiting | None = None
        self._news = asyncio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._news.set()

    async def next(self) -> bytes | Waiting | None:
        """The events that come next; while the request waits, what for; None at the end of the stream.

        Raises what the stream failed with, EventsGoneError when what comes next is lost, MalformedRequestError when `seen` never was.
        """
        stream = self._stream
        while True:
            self._news.clear()
            data, self.seen = stream.ring.after(self.seen)
            if data:
                stream.advanced()
                return data
            if stream.is_over:
                if stream.error is not None:
                    raise stream.error
                return None
            if stream.answer is None and stream.waiting is not self._told:
                self._told = stream.waiting
                return self._told
            await self._news.wait()


class ResumableStreams:
    """The streams that can be joined again. All methods are for the loop's thread."""

    def __init__(self, gateway: Gateway, settings: Callable[[], GatewaySettings], clock: Clock) -> None:
        self._gateway = gateway
        self._settings = settings
        self._clock = clock
        self._streams: dict[str, ResumableStream] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, Timer] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def begin(self, call: Call, caller: Caller, seconds: float) -> ResumableStream | None:
        """Send a request whose answer outlives its client by `seconds`, at most `gateway.resume_seconds`.

        None when it cannot: it is switched off, or too many are kept already and needed all. One key has half of them at most.
        """
        settings = self._settings()
        seconds, most = min(seconds, settings.resume_seconds), settings.resume_streams
        if seconds <= 0 or not self._make_room(most, Owner.of(caller)):
            return None
        stream = ResumableStream(call, caller, seconds, settings.resume_bytes, self._clock)
        self._streams[stream.id] = stream
        task = asyncio.create_task(stream.run(self._gateway), name=stream.id)
        self._tasks[stream.id] = task
        task.add_done_callback(lambda done: self._on_done(stream, done))
        return stream

    def find(self, stream_id: str, caller: Caller) -> ResumableStream:
        """The caller's stream of that id; StreamNotFoundError."""
        return owned(self._streams, stream_id, Owner.of(caller))

    @contextmanager
    def reading(self, stream: ResumableStream, seen: int) -> Iterator[Reader]:
        """Read what comes after event `seen`. The time of the stream runs while nobody does."""
        reader = Reader(stream, seen)
        stream.join(reader)
        self._disarm(stream)
        try:
            yield reader
        finally:
            stream.leave(reader, self._clock.monotonic())
            self._arm(stream)

    def stop(self, stream: ResumableStream, *, is_asked: bool = False) -> None:
        """Forget it, and end it at the engine if it is still under way: as `cancelled` if its client has asked for that. Idempotent."""
        self._disarm(stream)
        self._streams.pop(stream.id, None)
        task = self._tasks.get(stream.id)
        if task is not None:
            stream.stopped = _stopped() if is_asked else None
            task.cancel()

    async def close(self) -> None:
        """End everything that is still under way, and wait until it has ended; idempotent."""
        for stream in tuple(self._streams.values()):
            self.stop(stream)
        tasks = tuple(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks)

    def _make_room(self, most: int, owner: Owner) -> bool:
        """For one more of that owner, by streams that have ended: first of its own share, then of all."""
        share = most if owner.key_id is None else max(1, most // 2)
        return self._thin(share, lambda stream: stream.owner == owner) and self._thin(most, lambda _: True)

    def _thin(self, most: int, counts: Callable[[ResumableStream], bool]) -> bool:
        """Forget streams that have ended until fewer than `most` of those that count are kept; False when those that are left are needed."""
        counted = [stream for stream in self._streams.values() if counts(stream)]
        while len(counted) >= most:
            old = displaced(counted)
            if old is None:
                return False
            counted.remove(old)
            self.stop(old)
        return True

    def _on_done(self, stream: ResumableStream, task: asyncio.Task[None]) -> None:
        del self._tasks[stream.id]
        error: LlamavisorError | None = None
        if task.cancelled():
            error = _stopped()
        elif task.exception() is not None:
            logger.error("A stream broke", exc_info=task.exception())
            error = LlamavisorError("An unexpected failure; the server's log has it.")
        stream.end(error, self._clock.monotonic())
        self._arm(stream)

    def _arm(self, stream: ResumableStream) -> None:
        self._disarm(stream)
        due_at = stream.due_at
        if due_at is not None and stream.id in self._streams:
            delay_seconds = due_at - self._clock.monotonic()
            self._timers[stream.id] = self._clock.call_later(delay_seconds, lambda: self.stop(stream))

    def _disarm(self, stream: ResumableStream) -> None:
        timer = self._timers.pop(stream.id, None)
        if timer is not None:
            timer.cancel()


def _stopped() -> StreamStoppedError:
    return StreamStoppedError("The stream was stopped before the answer was complete.")
