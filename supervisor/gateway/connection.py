"""One connection to an engine, below the event loop's streams: bytes go out as one write, what comes is parsed by llhttp and handed on in callbacks.

A coroutine that waits for each piece of an answer would cost as much again as the piece itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import httptools

HEAD_LIMIT_BYTES = 64 * 1024
# Below it, an answer only says that the answer is still to come.
FINAL_STATUS = 200
# More of an answer than this waits in the kernel, at the engine's, until the client has read.
READ_AHEAD_BYTES = 256 * 1024


class BrokenAnswerError(ConnectionError):
    """What the engine sent is no HTTP."""


@dataclass(slots=True)
class Head:
    """The head of an answer. `headers` by lower-case name, the last of a name counts."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def media_type(self) -> bytes:
        """The content's type without its parameters, in lower case."""
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()

    def get(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Receiver(Protocol):
    """Who asked. After `on_end` or `on_loss` nothing more comes."""

    def on_head(self, head: Head) -> None:
        """The final head (1xx are left out)."""

    def on_body(self, data: bytes) -> None:
        """What came of the body in one read: one chunk of it or several."""

    def on_end(self) -> None:
        """The answer is whole, as far as HTTP goes."""

    def on_loss(self, error: Exception) -> None:
        """The connection ended before the answer did."""


class Keeper(Protocol):
    """Who owns the connections."""

    def keep(self, connection: Connection) -> None:
        """It is free, and the engine keeps it open."""

    def forget(self, connection: Connection) -> None:
        """It is gone."""


class Connection(asyncio.Protocol):
    """See the module. `send` a request while it is free; its receiver learns the rest. `freed_at`: loop time at which it became free."""

    def __init__(self, keeper: Keeper, loop: asyncio.AbstractEventLoop) -> None:
        self.freed_at = 0.0
        self._keeper = keeper
        self._loop = loop
        self._transport: asyncio.Transport
        self._receiver: Receiver | None = None
        self._parser: Any = None
        self._head = Head()
        self._head_bytes = 0
        self._ends_by_closing = False
        self._is_alone = False
        # Chunks that came in one read are handed on as one: what is done with them costs as much for many as for one.
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append

    @property
    def is_open(self) -> bool:
        """Whether a request can still be sent."""
        return not self._transport.is_closing()

    def send(self, receiver: Receiver, request: bytes, *, alone: bool) -> None:
        """Send a whole request. `alone`: the connection is closed after its answer, whatever the engine says."""
        self._receiver = receiver
        self._is_alone = alone
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)

    def pause(self) -> None:
        """Read no more for the moment."""
        if self._receiver is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """End it at once; the receiver hears nothing any more."""
        self._receiver = None
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._receiver is None:
            # Nobody asked: whatever this is, the next request must not take it for its answer.
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
            if self._pieces:
                self._hand_on()
        except httptools.HttpParserError as error:
            self._hand_on()
            self._lose(BrokenAnswerError(f"the engine's answer is no HTTP: {error}"))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._keeper.forget(self)
        if error is None and self._ends_by_closing and self._head.status:
            self._end()
        else:
            self._lose(error or ConnectionResetError("the engine closed the connection"))

    # httptools

    def on_message_begin(self) -> None:
        """An answer begins."""
        self._head = Head()
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._lose(BrokenAnswerError("the head of the engine's answer has no end"))
            self._transport.abort()
        self._head.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there."""
        head = self._head
        head.status = self._parser.get_status_code()
        headers = head.headers
        self._ends_by_closing = b"content-length" not in headers and b"transfer-encoding" not in headers
        if self._receiver is not None and head.status >= FINAL_STATUS:
            self._receiver.on_head(head)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._head.status >= FINAL_STATUS:
            self._end()

    def _hand_on(self) -> None:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if data and self._receiver is not None:
            self._receiver.on_body(data)

    def _end(self) -> None:
        self._hand_on()
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        if not self._is_alone and self._parser.should_keep_alive() and not self._transport.is_closing():
            self.freed_at = self._loop.time()
            self._transport.resume_reading()
            self._keeper.keep(self)
        else:
            self._transport.close()
        receiver.on_end()

    def _lose(self, error: Exception) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_loss(error)
