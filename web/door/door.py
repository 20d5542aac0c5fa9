"""The door itself: what its connections share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor.config.gateway_settings import GatewaySettings
from supervisor.config.server_settings import ServerSettings
from supervisor.core import Supervisor
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.accounting.keys import require_scope
from supervisor.gateway.calls import INFERENCE_PATHS, REQUEST_ID, Call, check
from supervisor.gateway.flat import is_flat
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.observing.trace_context import passed_on
from supervisor.storage.records import Scope
from web.bodies import parse_json_object
from web.door.connection import DoorConnection, LongWayError
from web.door.head import PlainHead, plain_lines
from web.guard import Guard

SOCKET_ADDRESS = "sockname"


class Door:
    """Makes the connections, and lets their requests through: the same decisions as the long way, in the same order."""

    def __init__(
        self, supervisor: Supervisor, guard: Guard, long_way: Callable[[], asyncio.Protocol], keep_alive_seconds: float
    ) -> None:
        self.connections: set[DoorConnection] = set()
        self.lines = plain_lines(INFERENCE_PATHS)
        self.long_way = long_way
        self.keep_alive_seconds = keep_alive_seconds
        self.is_closing = False
        self._supervisor = supervisor
        self._guard = guard
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return DoorConnection(self, self._loop)

    @property
    def settings(self) -> ServerSettings:
        """The settings in force."""
        return self._supervisor.settings.server

    @property
    def gateway_settings(self) -> GatewaySettings:
        """The gateway's settings in force."""
        return self._supervisor.settings.gateway

    @property
    def gateway(self) -> Gateway:
        """Where the requests go."""
        return self._supervisor.gateway

    def check_host(self, head: PlainHead, transport: asyncio.Transport) -> None:
        """Raise unless the request is addressed to this server."""
        own = transport.get_extra_info(SOCKET_ADDRESS)
        self._guard.check_host(
            [head.headers[b"host"].decode("latin-1")], str(own[0]) if isinstance(own, tuple) else None
        )

    def caller_of(self, head: PlainHead) -> Caller:
        """Who makes a plain request; UnauthorizedError, ForbiddenError."""
        caller = self._guard.identify(head.get(b"authorization"), None)
        require_scope(caller, Scope.INFERENCE)
        return caller

    def call_of(self, head: PlainHead, caller: Caller, body: bytes, request_id: str) -> Call:
        """The call that a plain request makes; `request_id` is the client's own or, where it has given none, ours.

        Errors as those of the long way; LongWayError when it needs more than an answer.
        """
        self._guard.check_takes_work(self._supervisor)
        document = parse_json_object(body)
        if is_flat(document, None) or self._supervisor.router.route(document, caller) is not None:
            raise LongWayError
        check(head.path, document)
        accept = head.get(b"accept")
        headers = {"Content-Type": "application/json"}
        if accept is not None:
            headers["Accept"] = accept
        is_clients = head.get(b"x-request-id") == request_id
        if is_clients:
            headers[REQUEST_ID] = request_id
        traceparent = head.get(b"traceparent")
        if traceparent is not None:
            headers |= passed_on(traceparent, head.get(b"tracestate"))
        return Call(head.path, body, document, headers, id=None if is_clients else request_id)

    def close_idle(self) -> None:
        """No more requests: end the connections that have none under way; the others end with theirs."""
        self.is_closing = True
        for connection in tuple(self.connections):
            if connection.is_idle:
                connection.close()

    def abort(self) -> None:
        """End whatever is left."""
        for connection in tuple(self.connections):
            connection.abort()
