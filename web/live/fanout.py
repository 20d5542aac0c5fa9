"""Broadcasting: each event is encoded once, and one prebuilt frame is written to every client that has read what came before.

A client that lags gets the newest frame of each key once it has caught up; one that does not catch up within the deadline is dropped. So what
waits for a client is bounded by the number of instances, whatever its pace (python-engineio's own queue is unbounded).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from web.live.engine import LiveEngine, WireSocket
from web.live.wire import Frame

# So many writes take the loop a millisecond or two.
CLIENTS_PER_TURN = 200
CATCH_UP_INTERVAL_SECONDS = 0.05
EVERYTHING = "*"
DEFAULT_INSTANCE = ""
_AT_FIRST = frozenset({DEFAULT_INSTANCE})


class Client:
    """One Socket.IO client, and the newest frames that it has yet to get."""

    __slots__ = ("_engine", "blocked_since", "eio_sid", "pending", "rooms", "sid", "socket")

    def __init__(self, engine: LiveEngine, sid: str, eio_sid: str) -> None:
        self._engine = engine
        self.sid = sid
        self.eio_sid = eio_sid
        self.socket: Any = engine.sockets[eio_sid]
        self.rooms: frozenset[str] = _AT_FIRST
        self.pending: dict[tuple[str, str | None], Frame] | None = None
        self.blocked_since = 0.0

    @property
    def wire(self) -> WireSocket | None:
        """Its WebSocket; None while it polls."""
        return self._engine.wires.get(self.eio_sid)

    @property
    def queued_messages(self) -> int:
        """Packets in Engine.IO's queue."""
        return int(self.socket.queue.qsize())

    def offer(self, frame: Frame, now: float) -> bool:
        """Send `frame`, or keep it for later in place of an older one of its key; whether it was sent."""
        if self.pending is None:
            if self._send_if_idle(frame):
                return True
            self.pending = {}
            self.blocked_since = now
        self.pending.pop(frame.key, None)
        self.pending[frame.key] = frame
        return False

    def catch_up(self, now: float) -> bool:
        """Send what waits, as far as the client reads; whether nothing waits any more. Who reads at all, however slowly, is not blocked."""
        while self.pending:
            key = next(iter(self.pending))
            if not self._send_if_idle(self.pending[key]):
                return False
            self.blocked_since = now
            del self.pending[key]
        self.pending = None
        return True

    def greet(self, frame: Frame) -> None:
        """Send `frame` behind whatever is queued already."""
        if not self.socket.closed:
            self.socket.queue.put_nowait(frame.packet)

    async def drop(self) -> None:
        """End the connection at once."""
        wire = self.wire
        if wire is not None:
            wire.abort()
        elif not self.socket.closed:
            await self.socket.close(wait=False, abort=True)

    def _send_if_idle(self, frame: Frame) -> bool:
        if not self.socket.queue.empty():
            return False
        wire = self._engine.wires.get(self.eio_sid)
        if wire is None or not wire.is_direct:
            self.greet(frame)
            return True
        if wire.unsent_bytes:
            return False
        wire.write(frame.data)
        return True


class Fanout:
    """All clients, by Socket.IO id and by room. Rooms: an instance's name, EVERYTHING, DEFAULT_INSTANCE."""

    def __init__(self, engine: LiveEngine) -> None:
        self._engine = engine
        self._clients: dict[str, Client] = {}
        self._rooms: dict[str, dict[str, Client]] = {}
        self._blocked: dict[str, Client] = {}
        self._catching_up: asyncio.Task[None] | None = None
        self.dropped_total = 0

    def __len__(self) -> int:
        return len(self._clients)

    def join(self, sid: str, eio_sid: str) -> Client:
        """A client has connected; it is in the room of the default instance."""
        client = Client(self._engine, sid, eio_sid)
        self._clients[sid] = client
        self._enter(client, client.rooms)
        return client

    def get(self, sid: str) -> Client | None:
        """The client of that id, while it is connected."""
        return self._clients.get(sid)

    def clients(self) -> list[Client]:
        """Everyone who is connected."""
        return list(self._clients.values())

    def subscribe(self, client: Client, room: str) -> None:
        """Put a client into `room` too; who says what it wants leaves the room of the default instance."""
        rooms = (client.rooms - {DEFAULT_INSTANCE}) | {room}
        self._leave_rooms(client)
        client.rooms = rooms
        self._enter(client, rooms)

    def leave(self, sid: str) -> None:
        """A client has gone; idempotent."""
        client = self._clients.pop(sid, None)
        if client is not None:
            self._leave_rooms(client)
            self._blocked.pop(sid, None)

    async def broadcast(self, frame: Frame, rooms: Iterable[str]) -> None:
        """Offer `frame` once to every client in any of `rooms`; the loop gets its turn in between."""
        now = asyncio.get_running_loop().time()
        for number, client in enumerate(self._recipients(rooms), start=1):
            if not client.offer(frame, now):
                self._blocked[client.sid] = client
            if number % CLIENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        if self._blocked and self._catching_up is None:
            self._catching_up = asyncio.create_task(self._catch_up(), name="fanout:catch-up")

    async def close(self) -> None:
        """Stop catching up."""
        if self._catching_up is not None:
            self._catching_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._catching_up

    async def _catch_up(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._blocked:
                await asyncio.sleep(CATCH_UP_INTERVAL_SECONDS)
                for client in tuple(self._blocked.values()):
                    await self._catch_up_one(client, loop.time())
        finally:
            self._catching_up = None

    async def _catch_up_one(self, client: Client, now: float) -> None:
        if client.sid not in self._clients or client.catch_up(now):
            self._blocked.pop(client.sid, None)
        elif now - client.blocked_since > self._engine.limits.unread_seconds:
            self._blocked.pop(client.sid, None)
            self.dropped_total += 1
            await client.drop()

    def _recipients(self, rooms: Iterable[str]) -> list[Client]:
        members: dict[str, Client] = {}
        for room in rooms:
            members |= self._rooms.get(room, {})
        return list(members.values())

    def _enter(self, client: Client, rooms: Iterable[str]) -> None:
        for room in rooms:
            self._rooms.setdefault(room, {})[client.sid] = client

    def _leave_rooms(self, client: Client) -> None:
        for room in client.rooms:
            members = self._rooms.get(room, {})
            members.pop(client.sid, None)
            if not members:
                self._rooms.pop(room, None)
