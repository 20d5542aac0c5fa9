"""Chat over a WebSocket."""

from __future__ import annotations

from aiohttp import web

from web.chat_socket import CHAT_SOCKETS
from web.registry import Policy, Reply, RouteTable
from web.schemas import ref

routes = RouteTable("Chat over a WebSocket")


@routes.route(
    "GET",
    "/v1/stream",
    summary="Chat over a WebSocket",
    policy=Policy.INFERENCE,
    responses={
        101: Reply("A WebSocket, with a JSON object in each message.", content_type=None),
        400: Reply("Not the handshake of a WebSocket.", ref("Error")),
        429: Reply("The address holds too many connections.", ref("Error")),
    },
)
async def chat_over_websocket(request: web.Request) -> web.StreamResponse:
    """The client sends `{type: "chat", model?, messages, project_id?, id?}`, and whatever else a chat completion may have; it is answered with a
    `{type: "token", content}` for each piece of text, then `{type: "done", usage: {input_tokens, output_tokens, total_tokens}, cost, model}` or
    `{type: "error", error, code}`. An `id` comes back in each answer. `project_id` says who pays, as for chat completions. Chats on one connection
    are answered in their order, up to 16 wait; who leaves cancels them. A message holds at most 1 MiB. Binary messages (1003) and floods (1008) end
    the connection."""
    return await request.app[CHAT_SOCKETS].serve(request)
