"""The OpenAI routes: read, check, hand to the gateway, and bring the answer back as it comes (`contracts.md` §6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from supervisor.errors import LlamavisorError
from supervisor.gateway.admission.admission import Waiting
from supervisor.gateway.calls import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RERANK,
    RESPONSES,
    Call,
    check,
)
from supervisor.gateway.exchange import Answer, Exchange
from supervisor.gateway.flat import HEADER, is_flat
from supervisor.gateway.idempotency import Keeping, KeptAnswer, Scope
from web.bodies import parse_json_object, read_body
from web.calling import call_of, caller_of
from web.dialects import error_event, event_of
from web.flat import answer_flat
from web.keys import SUPERVISOR
from web.live.engine import bound_send_buffer
from web.receipts import booking_headers
from web.registry import EVENT_STREAM, Body, Parameter, Policy, Reply, RouteTable, Schema
from web.schemas import INTEGER, STRING, array, record, ref
from web.surface_schemas import BODIES, answer_schema, refusals
from web.waiting import PROGRESS_HEADER, STREAM_TYPE, waiting_comment, waiting_event

routes = RouteTable("OpenAI")

PROCESSING_MS = "openai-processing-ms"
IDEMPOTENCY_KEY = "Idempotency-Key"
REPLAYED = "idempotent-replayed"
# Less than what a transport takes before it asks its writer to wait.
SMALL_BYTES = 16 * 1024
# A browser that notices the broken end drops what the page has not read by then: the reason would be lost.
LAST_WORDS_SECONDS = 0.5
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

_MODEL: Schema = record({"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING})
_STREAMED = frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES})
_IDEMPOTENCY = (
    "Names the request: sent again with the same body within 24 h, it is answered as before, with `idempotent-replayed: true`. "
    "Only good answers are kept, in memory."
)
_REPEATED = {
    409: Reply("A request with the same `Idempotency-Key` is being answered.", ref("Error")),
    422: Reply("The `Idempotency-Key` was given to another request.", ref("Error")),
}


def _inference(path: str, summary: str) -> Handler:
    """Register the route of an engine's path that is passed through."""
    others = {EVENT_STREAM: STRING} if path in _STREAMED else {}

    @routes.route(
        "POST",
        path,
        summary=summary,
        policy=Policy.INFERENCE,
        parameters=(Parameter(IDEMPOTENCY_KEY, _IDEMPOTENCY, STRING, location="header"),),
        body=Body(BODIES[path], "What is not named here goes to the engine as it is."),
        responses={
            200: Reply("The engine's answer.", answer_schema(path), others=others),
            **refusals(path),
            **_REPEATED,
        },
    )
    async def pass_on(request: web.Request) -> web.StreamResponse:
        """Passed to the instance that `model` names. A stream passes unchanged; when it fails on the way, an event that tells of the error, in the
        words of the route, comes in it, and the connection ends without the proper end of the body."""
        return await _pass_on(request, path)

    return pass_on


create_chat_completion = _inference(CHAT, "Chat")
create_completion = _inference(COMPLETIONS, "Complete a text")
create_embeddings = _inference(EMBEDDINGS, "Embed texts")
create_rerank = _inference(RERANK, "Rank documents by what they have to do with a query")
create_response = _inference(RESPONSES, "A response, of OpenAI's Responses API")
create_message = _inference(MESSAGES, "A message, of Anthropic's Messages API")
count_message_tokens = _inference(COUNT_TOKENS, "Count the tokens of a message's prompt")


@routes.route(
    "GET",
    "/v1/models",
    summary="What can be named as `model`",
    policy=Policy.ANY,
    responses={200: Reply("The models.", record({"object": {"const": "list"}, "data": array(_MODEL)}))},
)
async def list_models(request: web.Request) -> web.Response:
    """The name of each instance, and the ids of the models that are ready."""
    return web.json_response({"object": "list", "data": request.app[SUPERVISOR].gateway.models()})


@routes.route(
    "GET",
    "/v1/models/{id:.+}",
    summary="One model",
    policy=Policy.ANY,
    responses={200: Reply("The model.", _MODEL), 404: refusals("/v1/models")[404]},
)
async def show_model(request: web.Request) -> web.Response:
    """The id may hold slashes."""
    return web.json_response(request.app[SUPERVISOR].gateway.model(request.match_info["id"]))


async def _pass_on(request: web.Request, path: str) -> web.StreamResponse:
    supervisor = request.app[SUPERVISOR]
    body = await read_body(request, supervisor.settings.server.max_body_bytes)
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return await _answered(request, path, body, None)
    caller = caller_of(request)
    begun = supervisor.idempotency.begin(Scope(caller.project, caller.key_id, path), key, body)
    if isinstance(begun, KeptAnswer):
        return web.Response(status=begun.status, body=begun.body, headers={**begun.headers, REPLAYED: "true"})
    with begun as keeping:
        return await _answered(request, path, body, keeping)


async def _answered(request: web.Request, path: str, body: bytes, keeping: Keeping | None) -> web.StreamResponse:
    document = parse_json_object(body)
    if path == CHAT and is_flat(document, request.headers.get(HEADER)):
        return _kept(await answer_flat(request, document), keeping)
    check(path, document)
    call, told = call_of(request, path, document, body)
    if call.wants_stream:
        return await _Stream(request, told, keeping).answer(call)
    async with request.app[SUPERVISOR].gateway.exchange(call, caller_of(request)) as exchange:
        answer = await exchange.answer()
    return _kept(_whole(answer, {**told, **booking_headers(exchange.booking)}), keeping)


def _whole(answer: Answer, told: Mapping[str, str]) -> web.Response:
    headers = {**answer.headers, **told, PROCESSING_MS: str(round(answer.milliseconds))}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def _kept(response: web.Response, keeping: Keeping | None) -> web.Response:
    """An answer in one piece, for when it is asked for again."""
    if keeping is not None and isinstance(response.body, bytes):
        keeping.add(response.body)
        keeping.complete(response.status, {**response.headers})
    return response


class _Stream:
    """A stream on its way to the client, who sets the pace: what it does not read is not read from the engine either."""

    def __init__(self, request: web.Request, told: Mapping[str, str], keeping: Keeping | None) -> None:
        self._request = request
        self._told_headers = told
        self._keeping = keeping
        self._supervisor = request.app[SUPERVISOR]
        self._unread_seconds = self._supervisor.settings.server.slow_reader_seconds
        self._wants_progress = request.headers.get(PROGRESS_HEADER) == "1"
        self._response: web.StreamResponse | None = None
        self._told: asyncio.Queue[Waiting] = asyncio.Queue(1)

    async def answer(self, call: Call) -> web.StreamResponse:
        """Send the answer, whole; or as far as it came, an event that says why it ends, and an end that cannot be taken for a good one."""
        telling = asyncio.create_task(self._tell(), name="waiting")
        try:
            async with self._supervisor.gateway.exchange(
                call, caller_of(self._request), on_wait=self._wait
            ) as exchange:
                await _ended(telling)
                answer = await exchange.answer()
                if answer.is_stream:
                    return await self._carry(exchange, answer)
        except LlamavisorError as error:
            await _ended(telling)
            if self._response is None:
                raise
            return await self._end_badly(self._response, error_event(self._request.path, error))
        finally:
            telling.cancel()
        if self._response is None:
            return _kept(_whole(answer, {**self._told_headers, **booking_headers(exchange.booking)}), self._keeping)
        return await self._end_badly(self._response, event_of(self._request.path, json.loads(answer.body)))

    def _wait(self, waiting: Waiting) -> None:
        if self._told.full():
            self._told.get_nowait()
        self._told.put_nowait(waiting)

    async def _tell(self) -> None:
        """Keep the connection alive while the request waits. Once that has cost the status, what goes wrong is said in the stream."""
        begun = self._supervisor.clock.monotonic()
        while True:
            waiting = await self._told.get()
            waited = self._supervisor.clock.monotonic() - begun
            if self._wants_progress or waited >= self._supervisor.settings.gateway.status_open_seconds:
                say = waiting_event if self._wants_progress else waiting_comment
                await self._send(await self._begun(STREAM_TYPE), say(waiting))

    async def _begun(self, headers: Mapping[str, str]) -> web.StreamResponse:
        """The response, whose head is out."""
        if self._response is None:
            bound_send_buffer(self._request.transport)
            self._response = web.StreamResponse(headers=headers)
            await self._response.prepare(self._request)
        return self._response

    async def _carry(self, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        response = await self._begun(
            {**answer.headers, **self._told_headers, **booking_headers(exchange.booking), **STREAM_HEADERS}
        )
        data = answer.body
        try:
            while data:
                if self._keeping is not None:
                    self._keeping.add(data)
                await self._send(response, data)
                data = await exchange.more()
        except LlamavisorError as error:
            return await self._end_badly(response, error_event(self._request.path, error))
        if not exchange.is_done:
            exchange.close()
            await self._break_off()
        elif self._keeping is not None:
            self._keeping.complete(answer.status, {**answer.headers, **STREAM_HEADERS})
        return response

    async def _end_badly(self, response: web.StreamResponse, event: bytes) -> web.StreamResponse:
        await self._send(response, event)
        await self._break_off()
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

    async def _break_off(self) -> None:
        """Close the connection when everything is out, but without the last chunk that would say that this was all."""
        await asyncio.sleep(LAST_WORDS_SECONDS)
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


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has said its last word."""
    task.cancel()
    await asyncio.wait([task])
