"""Socket.IO as one part: sessions admitted within limits, changes broadcast, everything closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import socketio
from aiohttp import web

from supervisor.core import Supervisor
from supervisor.events import Event, Subscription
from web import views
from web.auth import KeyCheck
from web.errors import TooManyRequestsError
from web.keys import CLIENT_ADDRESS
from web.live.engine import LiveEngine, SteadySocket, quiet
from web.live.fanout import DEFAULT_INSTANCE, EVERYTHING, Fanout
from web.live.limits import LiveLimits, TokenBucket
from web.live.namespace import StatusNamespace
from web.live.wire import Frame, StrictJson, event_frame

EVENT_NAMES = {
    "llama_status": "llamaStatus",
    "instance_removed": "instanceRemoved",
    "configuration_reloaded": "configurationReloaded",
    "configuration_refused": "configurationRefused",
    "evicted": "evicted",
    "unloaded": "unloaded",
    "load_cancelled": "loadCancelled",
    "shutdown": "shutdown",
}
RETRY_SECONDS = 5.0


@dataclass(slots=True)
class _Session:
    address: str
    bucket: TokenBucket
    deadline: asyncio.TimerHandle


class _Manager(socketio.AsyncManager):  # type: ignore[misc]
    """python-socketio's client list, which also tells when a client is connected for good: its handler runs too early to send to it."""

    def __init__(self, connected: Callable[[str, str], None]) -> None:
        super().__init__()
        self._connected = connected

    async def connect(self, sid: str, namespace: str) -> None:
        """The client has been told that it is connected."""
        await super().connect(sid, namespace)
        self._connected(sid, self.eio_sid_from_sid(sid, namespace))


class _Server(socketio.AsyncServer):  # type: ignore[misc]
    def _engineio_server_class(self) -> type[LiveEngine]:
        return LiveEngine


class LiveServer:
    """Socket.IO over a supervisor. `start` it on the loop, `handle` its requests, `close` it. `engine`, `fanout`: its parts."""

    def __init__(self, supervisor: Supervisor, keys: KeyCheck, limits: LiveLimits) -> None:
        self._supervisor = supervisor
        self._limits = limits
        self._sessions: dict[str, _Session] = {}
        self._connections: Counter[str] = Counter()
        self._subscription: Subscription | None = None
        self._broadcasting: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._io = _Server(
            client_manager=_Manager(self._greet),
            logger=quiet,
            json=StrictJson,
            # Handled one after the other, a client's messages cannot pile up as tasks.
            async_handlers=False,
            limits=limits,
        )
        self.engine: LiveEngine = self._io.eio
        self.fanout = Fanout(self.engine)
        self.namespace = StatusNamespace(supervisor, self.fanout, keys, limits.queued_messages)
        self._io.register_namespace(self.namespace)
        self._joined = self.engine.handlers["connect"]
        self._left = self.engine.handlers["disconnect"]
        self.engine.on("connect", self._on_engine_connect)
        self.engine.on("disconnect", self._on_engine_disconnect)

    @property
    def connections(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One HTTP request or WebSocket of Socket.IO. Raises TooManyRequestsError beyond the limits."""
        session = self._sessions.get(request.query.get("sid", ""))
        if session is None and "sid" not in request.query:
            self._admit(request[CLIENT_ADDRESS])
        elif session is not None and not session.bucket.take(asyncio.get_running_loop().time()):
            raise TooManyRequestsError("Too many messages.", retry_after_seconds=RETRY_SECONDS)
        response: web.StreamResponse = await self._io.handle_request(request)
        return response

    def start(self) -> None:
        """Begin to broadcast."""
        self._subscription = self._supervisor.events.subscribe()
        self._broadcasting = asyncio.create_task(self._broadcast(self._subscription), name="live:broadcast")

    async def close(self) -> None:
        """Say what is still to be said, disconnect every client, end every task."""
        if self._subscription is not None:
            self._subscription.close()
        if self._broadcasting is not None:
            await self._broadcasting
        await self.fanout.close()
        for session in tuple(self._sessions.values()):
            session.deadline.cancel()
        for socket in tuple(self.engine.sockets.values()):
            await socket.close()
        with contextlib.suppress(TimeoutError):
            await self._io.shutdown()

    def _admit(self, address: str) -> None:
        limit = self._limits.connections_from(address)
        if self._connections[address] >= limit:
            message = f"{address} holds {limit} live connections already."
            raise TooManyRequestsError(message, code="too_many_connections", retry_after_seconds=RETRY_SECONDS)

    async def _on_engine_connect(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        # Engine.IO leaves no other way to have its sessions of another class.
        self.engine.sockets[eio_sid].__class__ = SteadySocket
        loop = asyncio.get_running_loop()
        address = environ["aiohttp.request"][CLIENT_ADDRESS]
        bucket = TokenBucket(self._limits.messages_per_second, self._limits.message_burst, loop.time())
        deadline = loop.call_later(self._limits.auth_deadline_seconds, self._end_of_patience, eio_sid)
        self._sessions[eio_sid] = _Session(address, bucket, deadline)
        self._connections[address] += 1
        return await self._joined(eio_sid, environ)

    async def _on_engine_disconnect(self, eio_sid: str, reason: str) -> Any:
        session = self._sessions.pop(eio_sid, None)
        if session is not None:
            session.deadline.cancel()
            self._connections[session.address] -= 1
            if not self._connections[session.address]:
                del self._connections[session.address]
        return await self._left(eio_sid, reason)

    def _end_of_patience(self, eio_sid: str) -> None:
        """The session has not joined the namespace within the deadline."""
        socket, wire = self.engine.sockets.get(eio_sid), self.engine.wires.get(eio_sid)
        if wire is not None:
            wire.abort()
        elif socket is not None and not socket.closed:
            closing = socket.close(wait=False, abort=True)
            ending = asyncio.create_task(closing, name=f"live:unauthenticated:{eio_sid}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def _greet(self, sid: str, eio_sid: str) -> None:
        session = self._sessions.get(eio_sid)
        if session is None:
            return
        session.deadline.cancel()
        client = self.fanout.join(sid, eio_sid)
        instances = self._supervisor.fleet.instances()
        if instances:
            message = views.status_message(self._supervisor, instances[0])
            client.greet(event_frame("llamaStatus", message, ("llama_status", instances[0].name)))

    async def _broadcast(self, subscription: Subscription) -> None:
        async for event in subscription:
            if not self.fanout:
                continue
            await self.namespace.drop_ended()
            await self.fanout.broadcast(_frame(event), self._rooms(event))

    def _rooms(self, event: Event) -> list[str]:
        if event.instance is None:
            return [EVERYTHING]
        is_default = event.instance == views.default_name(self._supervisor)
        return [EVERYTHING, event.instance, *([DEFAULT_INSTANCE] if is_default else [])]


def _frame(event: Event) -> Frame:
    return event_frame(EVENT_NAMES.get(event.type, event.type), event.to_wire(), event.key)
