"""The Engine.IO server below python-socketio, with what it lacks: bounded WebSockets without compression, and pings by the monotonic clock."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import engineio
import engineio.async_socket
from aiohttp import WSMsgType, web
from engineio.exceptions import QueueEmpty, SocketIsClosedError
from engineio.packet import PING, Packet

from web.live.limits import LiveLimits, TokenBucket

CLOSE_GRACE_SECONDS = 2.0
SEND_BUFFER_BYTES = 32 * 1024
# What clients say: PING (probe), PONG, MESSAGE, UPGRADE, CLOSE. Anything else is no client.
_CLIENT_PACKETS = frozenset("12345")

quiet = logging.getLogger("web.live.engine")
# These libraries log a traceback for whatever a client sends; our own handlers log their failures themselves.
quiet.setLevel(logging.CRITICAL)


class OutgoingQueue:
    """What `asyncio.Queue` is to Engine.IO, for its one reader, in a tenth of the memory: four deques a client are two kilobytes."""

    __slots__ = ("_packets", "_reader")

    def __init__(self) -> None:
        self._packets: list[Any] = []
        self._reader: asyncio.Future[None] | None = None

    def put_nowait(self, packet: Any) -> None:
        """Append; None is the end."""
        self._packets.append(packet)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def put(self, packet: Any) -> None:
        """The same, for who awaits it."""
        self.put_nowait(packet)

    async def get(self) -> Any:
        """The oldest, as soon as there is one."""
        while not self._packets:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._packets.pop(0)

    def get_nowait(self) -> Any:
        """The oldest; asyncio.QueueEmpty when there is none."""
        if not self._packets:
            raise asyncio.QueueEmpty
        return self._packets.pop(0)

    def empty(self) -> bool:
        """Nothing waits."""
        return not self._packets

    def qsize(self) -> int:
        """So many wait."""
        return len(self._packets)

    def task_done(self) -> None:
        """Nobody counts them."""

    async def join(self) -> None:
        """Does not wait: a client that reads nothing would be waited for without end."""


class SteadySocket(engineio.async_socket.AsyncSocket):  # type: ignore[misc]
    """One Engine.IO session whose pings go by the loop's clock: the original's wall clock drops every client when it jumps."""

    last_ping: float | None

    async def poll(self) -> list[Packet]:
        """What waits for the client, as soon as there is something; [] at the end. The original's `wait_for` costs a task a client."""
        try:
            async with asyncio.timeout(self.server.ping_interval + self.server.ping_timeout):
                packets = [await self.queue.get()]
        except TimeoutError:
            raise QueueEmpty from None
        while packets[-1] is not None and not self.queue.empty():
            packets.append(self.queue.get_nowait())
        if packets[-1] is None:
            packets.pop()
            if packets:
                # The end is for the next call to find.
                self.queue.put_nowait(None)
        return packets

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """End the session; who waits for packets of it learns that now (the original lets a poll wait for its whole timeout)."""
        was_closed = self.closed
        await super().close(wait=False, abort=abort, reason=reason)
        if self.closed and not was_closed:
            self.queue.put_nowait(None)

    def schedule_ping(self) -> None:
        """Ping one interval from now, unless a pong is still awaited. A timer costs a tenth of the original's task."""
        if self.last_ping:
            self.last_ping = None
            asyncio.get_running_loop().call_later(self.server.ping_interval, self._ping)

    async def check_ping_timeout(self) -> bool:
        """Whether the last ping was answered in time, or still can be; closes the session otherwise."""
        if self.closed:
            raise SocketIsClosedError()
        late = asyncio.get_running_loop().time() - self.server.ping_timeout
        if self.last_ping and self.last_ping < late:
            await self.close(wait=False, abort=False, reason=self.server.reason.PING_TIMEOUT)
            return False
        return True

    def _ping(self) -> None:
        if not self.closing and not self.closed:
            self.last_ping = asyncio.get_running_loop().time()
            self.queue.put_nowait(Packet(PING))


class WireSocket:
    """The WebSocket of one session, as Engine.IO's driver expects it: `__call__`, `send`, `wait`, `close`."""

    def __init__(self, handler: Callable[[WireSocket], Awaitable[None]], server: LiveEngine) -> None:
        self._handler = handler
        self._server = server
        self._session: SteadySocket = handler.__self__  # type: ignore[attr-defined]
        limits = server.limits
        self._bucket = TokenBucket(limits.messages_per_second, limits.message_burst, asyncio.get_running_loop().time())
        # Deflate would take six times the memory of everything else a connection has.
        self._socket = web.WebSocketResponse(
            compress=False, max_msg_size=limits.message_bytes, timeout=CLOSE_GRACE_SECONDS, autoping=True
        )
        self._transport: asyncio.Transport | None = None
        self._has_spoken = False

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        """Serve the session until it ends."""
        request: web.Request = environ["aiohttp.request"]
        # Two kilobytes of headers a second time; the request has them.
        environ.clear()
        environ["aiohttp.request"] = request
        await self._socket.prepare(request)
        self._transport = request.transport
        bound_send_buffer(self._transport)
        self._server.wires[self._session.sid] = self
        try:
            await self._handler(self)
        finally:
            await self._end()
        return self._socket

    async def _end(self) -> None:
        # The original forgets to end a session whose connection, and with it this task, was cancelled while it was being closed.
        self._server.wires.pop(self._session.sid, None)
        if not self._session.closed:
            await self._session.close(abort=True, reason=self._server.reason.TRANSPORT_CLOSE)
        self._server.sockets.pop(self._session.sid, None)

    async def send(self, message: str | bytes) -> None:
        """Send one packet; waits while the client does not read."""
        if isinstance(message, bytes):
            await self._socket.send_bytes(message)
        else:
            await self._socket.send_str(message)
        self._has_spoken = self._has_spoken or message[:2] == "42"

    async def wait(self) -> str:
        """The next packet of the client. OSError, which ends the session, when it left, sends too much, or sends no packet."""
        message = await self._socket.receive()
        if message.type is not WSMsgType.TEXT or message.data[:1] not in _CLIENT_PACKETS:
            raise OSError("not a packet")
        if not self._bucket.take(asyncio.get_running_loop().time()):
            raise OSError("too many messages")
        return str(message.data)

    async def close(self) -> None:
        """Close politely within the grace, then for good: `transport.close` alone waits for ever for a client that never reads."""
        self._has_spoken = False
        try:
            await self._socket.close()
        finally:
            self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_direct(self) -> bool:
        """Whether frames may be written past Engine.IO's queue: an event has passed through it, so the session is set up."""
        return self._has_spoken

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process because the client does not read."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def write(self, frame: bytes) -> None:
        """Write a prebuilt frame; nothing happens on a connection that is ending."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)


class LiveEngine(engineio.AsyncServer):  # type: ignore[misc]
    """The Engine.IO server; `wires` holds the WebSocket of each session that has one, by its Engine.IO id."""

    _async: dict[str, Any]

    def __init__(self, *, limits: LiveLimits, **options: Any) -> None:
        super().__init__(
            async_mode="aiohttp",
            max_http_buffer_size=limits.message_bytes,
            http_compression=False,
            # The guard has checked the origin; see web.middlewares.
            cors_allowed_origins=[],
            logger=quiet,
            **options,
        )
        self.limits = limits
        self.wires: dict[str, WireSocket] = {}
        self._async = {**self._async, "websocket": WireSocket}

    def create_queue(self, *_: Any, **__: Any) -> OutgoingQueue:
        """The queue of one session."""
        return OutgoingQueue()


def bound_send_buffer(transport: asyncio.BaseTransport | None) -> None:
    """Keep the kernel from buffering megabytes for a client that never reads."""
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
