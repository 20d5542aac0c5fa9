"""One client's connection, until it turns out to be aiohttp's."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from supervisor.errors import LlamavisorError, RequestTimeoutError
from supervisor.gateway.accounting.bookkeeper import Booking
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Waiting
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer, Exchange
from supervisor.gateway.passage import Passage
from web.door import wire
from web.door.head import HEAD_END, HEAD_LIMIT_BYTES, PlainHead, read_plain
from web.middlewares import request_id
from web.receipts import booking_headers
from web.waiting import STREAM_TYPE, waiting_comment

if TYPE_CHECKING:
    from web.door.door import Door

logger = logging.getLogger(__name__)

# A browser or an SDK that notices the broken end drops what it has not read by then: the reason would be lost.
LAST_WORDS_SECONDS = 0.5
# What a client sends while its last request is being answered waits in the kernel beyond this.
AHEAD_LIMIT_BYTES = 64 * 1024
_POST = b"POST /v1/"
_HEAD_ENDS = (HEAD_END, b"\n\n", b"\n\r\n")


class LongWayError(Exception):
    """What the body asks for, only the long way does."""


class DoorConnection(asyncio.Protocol):
    """See the module. One request at a time; what comes meanwhile waits."""

    __slots__ = (
        "_deadline", "_door", "_exchange", "_head", "_host", "_idle_since", "_idle_timer", "_is_paused", "_loop", "_parts", "_received_bytes",
        "_slow_timer", "_task", "_transport",
    )  # fmt: skip

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        self._door = door
        self._loop = loop
        self._transport: asyncio.Transport
        self._parts: list[bytes] = []
        self._received_bytes = 0
        self._head: PlainHead | None = None
        self._host: bytes | None = None
        self._task: asyncio.Task[None] | None = None
        self._exchange: Exchange | None = None
        self._is_paused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._slow_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    @property
    def is_idle(self) -> bool:
        """Nothing of a request is here."""
        return self._task is None and not self._received_bytes

    def close(self) -> None:
        """Close it once what was written is out."""
        self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._door.connections.add(self)
        self._idle_since = self._loop.time()
        self._idle_timer = self._loop.call_later(self._door.keep_alive_seconds, self._end_idleness)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._parts.append(data)
        self._received_bytes += len(data)
        if self._task is None and not self._is_paused:
            self._look()
        elif self._received_bytes > AHEAD_LIMIT_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """A client that ends its side has left: nobody half-closes and waits for an answer of a model."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._door.connections.discard(self)
        for timer in (self._deadline, self._slow_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client does not read as fast as the engine writes."""
        self._is_paused = True
        if self._exchange is not None:
            self._exchange.pause()
        self._slow_timer = self._loop.call_later(self._door.settings.slow_reader_seconds, self.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_paused = False
        if self._slow_timer is not None:
            self._slow_timer.cancel()
        if self._exchange is not None:
            self._exchange.resume()
        elif self._task is None:
            self._go_on()

    # Requests

    def _look(self) -> None:
        """Is there a whole request, and is it ours?"""
        if self._head is None and not self._find_head():
            return
        head = self._head
        if head is None or self._received_bytes < head.length:
            return
        self._wait_no_more()
        self._head = None
        self._task = self._loop.create_task(self._serve(head, self._take(head.length)))

    def _find_head(self) -> bool:
        """Look for the head of a plain request; hand the connection over when it is none. False: there is nothing to go on with."""
        data = self._joined()
        end = data.find(HEAD_END)
        if end < 0 and not _has_head(data):
            self._wait_for_rest(self._door.settings.head_deadline_seconds)
            return False
        is_candidate = 0 <= end < HEAD_LIMIT_BYTES and data.startswith(_POST)
        head = read_plain(data[: end + len(HEAD_END)], self._door.lines) if is_candidate else None
        if head is None or head.length > self._door.settings.max_body_bytes:
            self._hand_over(data)
            return False
        self._take(end + len(HEAD_END))
        self._head = head
        self._wait_no_more()
        if self._received_bytes < head.length:
            self._wait_for_rest(self._door.settings.body_deadline_seconds)
        return True

    def _joined(self) -> bytes:
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def _take(self, count: int) -> bytes:
        """The first `count` of the bytes that are here."""
        data = self._joined()
        rest = data[count:]
        self._parts = [rest] if rest else []
        self._received_bytes = len(rest)
        return data[:count]

    def _hand_over(self, data: bytes) -> None:
        """From now on this connection is aiohttp's."""
        self._wait_no_more()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._door.connections.discard(self)
        protocol = self._door.long_way()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    async def _serve(self, head: PlainHead, body: bytes) -> None:
        given = request_id(head.get(b"x-request-id"))
        try:
            await self._answer(head, body, given)
        except LlamavisorError as error:
            self._transport.write(wire.refusal(error, given, closes=not head.keeps_alive))
        except LongWayError:
            self._task = None
            self._hand_over(head.raw + body + self._joined())
            return
        except ConnectionError:
            self.abort()
        except Exception:
            logger.exception("Unexpected failure of POST %s [%s]", head.path, given)
            failure = LlamavisorError(f"An unexpected failure; the server's log has it as {given}.")
            self._transport.write(wire.refusal(failure, given, closes=not head.keeps_alive))
        self._task = None
        self._idle_since = self._loop.time()
        if not head.keeps_alive or self._door.is_closing:
            self._transport.close()
        elif not self._is_paused:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next request; not before the client has read most of the answer to the last one."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
            if self._received_bytes:
                self._look()

    async def _answer(self, head: PlainHead, body: bytes, given: str) -> None:
        door = self._door
        if head.headers[b"host"] != self._host:
            door.check_host(head, self._transport)
            self._host = head.headers[b"host"]
        caller = door.caller_of(head)
        call = door.call_of(head, caller, body, given)
        if call.wants_stream:
            await self._answer_stream(call, caller, head, given)
            return
        async with Passage(door.gateway, call, caller) as passage:
            answer = await passage.answer()
        self._write_whole(answer, passage.booking, head, given)

    def _write_whole(self, answer: Answer, booking: Booking, head: PlainHead, given: str) -> None:
        headers = {
            **answer.headers,
            **booking_headers(booking),
            wire.PROCESSING_MS: str(round(answer.milliseconds)),
        }
        self._transport.write(wire.whole(answer.status, headers, answer.body, given, closes=not head.keeps_alive))

    async def _answer_stream(self, call: Call, caller: Caller, head: PlainHead, given: str) -> None:
        """Keep the connection alive while the request waits; once that has cost the status, what goes wrong is said in the stream."""
        begun = self._loop.time()
        has_begun = False

        def tell(waiting: Waiting) -> None:
            nonlocal has_begun
            if not has_begun and self._loop.time() - begun >= self._door.gateway_settings.status_open_seconds:
                has_begun = True
                headers = {**STREAM_TYPE, **booking_headers(passage.booking)}
                self._transport.write(wire.stream_head(200, headers, given, closes=not head.keeps_alive))
            if has_begun:
                self._write_chunk(waiting_comment(waiting))

        passage = Passage(self._door.gateway, call, caller, on_wait=tell)
        try:
            async with passage:
                answer = await passage.answer()
                if answer.is_stream:
                    await self._stream(passage.exchange, answer, head, given, has_begun=has_begun)
                    return
            if not has_begun:
                self._write_whole(answer, passage.booking, head, given)
                return
            self._write_chunk(b"data: " + answer.body + b"\n\n")
        except LlamavisorError as error:
            if not has_begun:
                raise
            self._write_chunk(wire.error_event(error))
        await self._break_off()

    async def _stream(
        self, exchange: Exchange, answer: Answer, head: PlainHead, given: str, *, has_begun: bool = False
    ) -> None:
        """Send the answer, whole; or as far as it came, an event that says why it ends, and an end that cannot be taken for a good one."""
        write = self._transport.write
        headers = {**answer.headers, **booking_headers(exchange.booking), **wire.STREAM_HEADERS}
        begin = b"" if has_begun else wire.stream_head(answer.status, headers, given, closes=not head.keeps_alive)
        self._exchange = exchange
        if self._is_paused:
            exchange.pause()
        try:
            write(begin + wire.chunk(answer.body))
            await exchange.pipe(self._write_chunk)
        except LlamavisorError as error:
            write(wire.chunk(wire.error_event(error)))
        finally:
            self._exchange = None
        if exchange.is_done:
            write(wire.LAST_CHUNK)
            return
        exchange.close()
        await self._break_off()

    async def _break_off(self) -> None:
        await asyncio.sleep(LAST_WORDS_SECONDS)
        self._transport.close()

    def _write_chunk(self, data: bytes) -> None:
        if data:
            self._transport.write(wire.chunk(data))

    # Deadlines

    def _wait_for_rest(self, seconds: float) -> None:
        """The rest of a head, or of a body, has to come within `seconds` from its beginning."""
        if self._deadline is None:
            self._deadline = self._loop.call_later(seconds, self._too_late)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        what, param = ("head", None) if self._head is None else ("body", "body")
        error = RequestTimeoutError(
            f"The {what} of the request was not complete in time.", param=param, remedy="Send it faster."
        )
        self._transport.write(wire.refusal(error, request_id(None), closes=True))
        self._transport.close()

    def _end_idleness(self) -> None:
        left = self._idle_since + self._door.keep_alive_seconds - self._loop.time()
        if self.is_idle and left <= 0:
            self._transport.close()
            return
        self._idle_timer = self._loop.call_later(
            left if left > 0 else self._door.keep_alive_seconds, self._end_idleness
        )


def _has_head(data: bytes) -> bool:
    """Whether there is an end of a head, by anybody's reading, or so much without one that it has to be refused."""
    return len(data) >= HEAD_LIMIT_BYTES or any(end in data for end in _HEAD_ENDS)
