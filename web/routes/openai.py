"""The OpenAI routes: read, check, hand to the gateway, and bring the answer back as it comes (`contracts.md` §6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from supervisor.errors import LlamavisorError
from supervisor.gateway.calls import CHAT, COMPLETIONS, EMBEDDINGS, ROLES, Call, check
from supervisor.gateway.exchange import Answer, Exchange
from web.bodies import parse_json_object, read_body
from web.errors import error_body
from web.keys import REQUEST_ID, SUPERVISOR
from web.live.engine import bound_send_buffer
from web.registry import EVENT_STREAM, Body, Policy, Reply, RouteTable, Schema
from web.schemas import BOOLEAN, INTEGER, NUMBER, STRING, array, described, record, ref

routes = RouteTable("OpenAI")

PROCESSING_MS = "openai-processing-ms"
# Less than what a transport takes before it asks its writer to wait.
SMALL_BYTES = 16 * 1024
# A browser that notices the broken end drops what the page has not read by then: the reason would be lost.
LAST_WORDS_SECONDS = 0.5
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

_MODEL: Schema = record({"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING})
_SAMPLING: dict[str, Schema] = {
    "model": described(STRING, "An instance's name or a model's id; left out, the default instance."),
    "stream": described(BOOLEAN, "Answer in server-sent events, as the engine sends them."),
    "temperature": {**NUMBER, "minimum": 0, "maximum": 2},
    "top_p": {**NUMBER, "minimum": 0, "maximum": 1},
    "top_k": {**INTEGER, "minimum": 1},
    "max_tokens": {**INTEGER, "minimum": 1},
    "repeat_penalty": {**NUMBER, "minimum": 0},
}
_MESSAGE: Schema = {
    "type": "object",
    "properties": {"role": {"type": "string", "enum": list(ROLES)}},
    "required": ["role"],
}
_MESSAGES: Schema = {**array(_MESSAGE), "minItems": 1}
_HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
_BODIES: Mapping[str, Schema] = {
    CHAT: {
        "type": "object",
        "properties": {"messages": _MESSAGES, **_SAMPLING},
        "required": ["messages"],
        "examples": [_HELLO, {**_HELLO, "stream": True}],
    },
    COMPLETIONS: {
        "type": "object",
        "properties": {"prompt": {}, **_SAMPLING},
        "examples": [{"prompt": "The capital of", "max_tokens": 16}],
    },
    EMBEDDINGS: {
        "type": "object",
        "properties": {"input": {}, "model": _SAMPLING["model"]},
        "examples": [{"input": ["One text.", "Another."]}],
    },
}
_REFUSALS = {
    400: Reply(
        "The request breaks the contract, or the engine refuses it; `error.param` names the field.", ref("Error")
    ),
    404: Reply("No such model; the message has the nearest.", ref("Error")),
    408: Reply("The body was not complete within `server.body_deadline_seconds`.", ref("Error")),
    413: Reply("The body exceeds `server.max_body_bytes`.", ref("Error")),
    429: Reply("The engine has too much to do.", ref("Error")),
    500: Reply("The engine failed over it, or a defect of the server's own; its log has more.", ref("Error")),
    501: Reply("The engine was not started for this.", ref("Error")),
    502: Reply("The engine died, or its answer is not complete.", ref("Error")),
    503: Reply("Not ready now; `Retry-After` says when to come back, if it comes back by itself.", ref("Error")),
    504: Reply("The engine said nothing for `server.upstream_idle_seconds`.", ref("Error")),
}


def _inference(path: str, summary: str) -> Handler:
    """Register the route of an engine's path that is passed through."""
    answer: Schema = {"type": "object"}
    others = {} if path == EMBEDDINGS else {EVENT_STREAM: STRING}

    @routes.route(
        "POST",
        path,
        summary=summary,
        policy=Policy.INFERENCE,
        body=Body(_BODIES[path], "What is not named here goes to the engine as it is."),
        responses={200: Reply("The engine's answer.", answer, others=others), **_REFUSALS},
    )
    async def pass_on(request: web.Request) -> web.StreamResponse:
        """Passed to the instance that `model` names. A stream passes unchanged; when it fails on the way, an event `{"error": …}` comes in it and the
        connection ends without the proper end of the body."""
        return await _pass_on(request, path)

    return pass_on


create_chat_completion = _inference(CHAT, "Chat")
create_completion = _inference(COMPLETIONS, "Complete a text")
create_embeddings = _inference(EMBEDDINGS, "Embed texts")


@routes.route(
    "GET",
    "/v1/models",
    summary="What can be named as `model`",
    policy=Policy.READ,
    responses={200: Reply("The models.", record({"object": {"const": "list"}, "data": array(_MODEL)}))},
)
async def list_models(request: web.Request) -> web.Response:
    """The name of each instance, and the ids of the models that are ready."""
    return web.json_response({"object": "list", "data": request.app[SUPERVISOR].gateway.models()})


@routes.route(
    "GET",
    "/v1/models/{id:.+}",
    summary="One model",
    policy=Policy.READ,
    responses={200: Reply("The model.", _MODEL), 404: _REFUSALS[404]},
)
async def show_model(request: web.Request) -> web.Response:
    """The id may hold slashes."""
    return web.json_response(request.app[SUPERVISOR].gateway.model(request.match_info["id"]))


async def _pass_on(request: web.Request, path: str) -> web.StreamResponse:
    supervisor = request.app[SUPERVISOR]
    body = await read_body(request, supervisor.settings.server.max_body_bytes)
    document = parse_json_object(body)
    check(path, document)
    async with supervisor.gateway.exchange(Call(path, body, document, _headers(request))) as exchange:
        answer = await exchange.answer()
        if answer.is_stream:
            return await _Stream(request, exchange).carry(answer)
    headers = {**answer.headers, PROCESSING_MS: str(round(answer.milliseconds))}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def _headers(request: web.Request) -> dict[str, str]:
    """What the engine gets to see of the client's headers; the key is not among it."""
    given = {"Accept": request.headers[hdrs.ACCEPT]} if hdrs.ACCEPT in request.headers else {}
    return {**given, "Content-Type": "application/json", "X-Request-Id": request[REQUEST_ID]}


class _Stream:
    """A stream on its way to the client, who sets the pace: what it does not read is not read from the engine either."""

    def __init__(self, request: web.Request, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self._unread_seconds = request.app[SUPERVISOR].settings.server.slow_reader_seconds

    async def carry(self, answer: Answer) -> web.StreamResponse:
        """Send the answer, whole; or as far as it came, an event that says why it ends, and an end that cannot be taken for a good one."""
        bound_send_buffer(self._request.transport)
        response = web.StreamResponse(status=answer.status, headers={**answer.headers, **STREAM_HEADERS})
        await response.prepare(self._request)
        try:
            data = answer.body
            while data:
                await self._send(response, data)
                data = await self._exchange.more()
        except LlamavisorError as error:
            event = f"data: {json.dumps(error_body(error))}\n\n"
            await self._send(response, event.encode())
        if not self._exchange.is_done:
            self._exchange.close()
            await asyncio.sleep(LAST_WORDS_SECONDS)
            self._break_off()
        return response

    async def _send(self, response: web.StreamResponse, data: bytes) -> None:
        """Write; ConnectionResetError, and the connection is cut, when the client leaves sent data unread for too long."""
        transport = self._request.transport
        if transport is not None and not transport.get_write_buffer_size() and len(data) < SMALL_BYTES:
            # Nothing waits, so this cannot wait either: the usual case is spared the price of a deadline.
            await response.write(data)
            return
        try:
            async with asyncio.timeout(self._unread_seconds):
                await response.write(data)
        except TimeoutError:
            self._abort()
            raise ConnectionResetError("the client does not read") from None

    def _break_off(self) -> None:
        """Close the connection when everything is out, but without the last chunk that would say that this was all."""
        transport = self._request.transport
        if transport is not None:
            waiting = transport.get_write_buffer_size()
            transport.close()
            if waiting:
                asyncio.get_running_loop().call_later(self._unread_seconds, self._abort)

    def _abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()
