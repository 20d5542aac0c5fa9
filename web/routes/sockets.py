"""Socket.IO, on the usual path and on the one that older clients know."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from web.live.server import LiveServer
from web.registry import PLAIN, Body, Parameter, Policy, Reply, RouteTable
from web.schemas import INTEGER, STRING, ref

LIVE = web.AppKey("live", LiveServer)

routes = RouteTable("Live status")

_PARAMETERS = (
    Parameter("EIO", "The Engine.IO protocol: 4.", INTEGER, required=True),
    Parameter("transport", "How messages travel.", {"type": "string", "enum": ["polling", "websocket"]}, required=True),
    Parameter("sid", "The session, after the handshake.", STRING),
)
_REPLIES = {
    101: Reply("A WebSocket that carries Engine.IO packets.", content_type=None),
    200: Reply("Engine.IO packets.", STRING, PLAIN),
    400: Reply("Not the protocol, or an unknown session.", content_type=None),
    429: Reply("Too many connections or messages.", ref("Error")),
}
_SENT = {200: Reply("Taken.", STRING, PLAIN), 400: _REPLIES[400], 429: _REPLIES[429]}
_PACKETS = Body(STRING, "Engine.IO packets.", content_type=PLAIN)


_PATHS = ("/socket.io", "/llamaproxws", "/socket.io/", "/llamaproxws/")


async def receive(request: web.Request) -> web.StreamResponse:
    """The handshake, a poll, or a WebSocket. The key goes into `auth: {token}`, the `Authorization` header or the session cookie; without a valid
    one the namespace refuses the client, and the connection ends after 5 seconds. Events: see the reference of live status."""
    return await request.app[LIVE].handle(request)


async def send(request: web.Request) -> web.StreamResponse:
    """What a polling client sends."""
    return await request.app[LIVE].handle(request)


# Open here: the namespace asks for the key, which browsers cannot put into the headers of a WebSocket.
for _path in _PATHS:
    _serve = partial(routes.route, path=_path, summary="Socket.IO", policy=Policy.OPEN, parameters=_PARAMETERS)
    _serve("GET", responses=_REPLIES)(receive)
    _serve("POST", responses=_SENT, body=_PACKETS)(send)
