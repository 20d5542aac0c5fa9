"""The OpenAI routes: read, check, hand to the gateway, and bring the answer back as it comes (`contracts.md` §6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking
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
from supervisor.gateway.idempotency import Keeping
from supervisor.gateway.passage import Passage
from supervisor.gateway.resumable import RESUME_HEADER
from web.bodies import parse_json_object, read_body
from web.calling import call_of, caller_of
from web.dialects import error_event, event_of
from web.flat import answer_flat
from web.idempotency import KEY_PARAMETER, REPEATED, answered_once, kept
from web.keys import SUPERVISOR
from web.receipts import booking_headers
from web.registry import EVENT_STREAM, Body, Parameter, Policy, Reply, RouteTable, Schema
from web.resuming import Follower, begun_resumable
from web.schemas import INTEGER, STRING, array, record
from web.sending import STREAM_HEADERS, Sender, whole
from web.surface_schemas import BODIES, answer_schema, refusals
from web.waiting import PROGRESS_HEADER, STREAM_TYPE, waiting_comment, waiting_event

routes = RouteTable("OpenAI")

_MODEL: Schema = record({"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING})
_STREAMED = frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES})
_RESUME = (
    "Seconds, at most `gateway.resume_seconds`, for which a stream goes on when its client is gone. The answer names it in `x-llamavisor-stream-id`: "
    "join it again, or stop it, at `/v1/streams/{id}`. Without that header in the answer the stream ends with its client."
)


def _inference(path: str, summary: str) -> Handler:
    """Register the route of an engine's path that is passed through."""
    others = {EVENT_STREAM: STRING} if path in _STREAMED else {}

    @routes.route(
        "POST",
        path,
        summary=summary,
        policy=Policy.INFERENCE,
        parameters=(
            KEY_PARAMETER,
            *((Parameter(RESUME_HEADER, _RESUME, STRING, location="header"),) if path in _STREAMED else ()),
        ),
        body=Body(BODIES[path], "What is not named here goes to the engine as it is."),
        responses={
            200: Reply("The engine's answer.", answer_schema(path), others=others),
            **refusals(path),
            **REPEATED,
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
    body = await read_body(request, request.app[SUPERVISOR].settings.server.max_body_bytes)
    return await answered_once(request, lambda keeping: _answered(request, path, body, keeping), body)


async def _answered(request: web.Request, path: str, body: bytes, keeping: Keeping | None) -> web.StreamResponse:
    document = parse_json_object(body)
    if path == CHAT and is_flat(document, request.headers.get(HEADER)):
        return kept(await answer_flat(request, document), keeping)
    check(path, document)
    call, told = call_of(request, path, document, body)
    if call.wants_stream:
        stream = begun_resumable(request, call)
        if stream is not None:
            return await Follower(request, stream, told).begin()
        return await _Stream(request, told, keeping).answer(call)
    async with Passage(request.app[SUPERVISOR].gateway, call, caller_of(request)) as passage:
        answer = await passage.answer()
    return kept(whole(answer, {**told, **booking_headers(passage.booking)}), keeping)


class _Stream:
    """A stream on its way to the client, who sets the pace: what it does not read is not read from the engine either."""

    def __init__(self, request: web.Request, told: Mapping[str, str], keeping: Keeping | None) -> None:
        self._request = request
        self._told_headers = told
        self._keeping = keeping
        self._supervisor = request.app[SUPERVISOR]
        self._sender = Sender(request)
        self._wants_progress = request.headers.get(PROGRESS_HEADER) == "1"
        self._told: asyncio.Queue[Waiting] = asyncio.Queue(1)

    async def answer(self, call: Call) -> web.StreamResponse:
        """Send the answer, whole; or as far as it came, an event that says why it ends, and an end that cannot be taken for a good one."""
        passage = Passage(self._supervisor.gateway, call, caller_of(self._request), on_wait=self._wait)
        telling = asyncio.create_task(self._tell(passage), name="waiting")
        try:
            async with passage:
                answer = await passage.answer()
                await _ended(telling)
                if answer.is_stream:
                    return await self._carry(passage.exchange, answer)
        except LlamavisorError as error:
            await _ended(telling)
            if self._sender.response is None:
                raise
            return await self._sender.end_badly(self._sender.response, error_event(self._request.path, error))
        finally:
            telling.cancel()
        if self._sender.response is None:
            return kept(whole(answer, self._headers(passage.booking)), self._keeping)
        return await self._sender.end_badly(
            self._sender.response, event_of(self._request.path, json.loads(answer.body))
        )

    def _wait(self, waiting: Waiting) -> None:
        if self._told.full():
            self._told.get_nowait()
        self._told.put_nowait(waiting)

    def _headers(self, booking: Booking) -> dict[str, str]:
        return {**self._told_headers, **booking_headers(booking)}

    async def _tell(self, passage: Passage) -> None:
        """Keep the connection alive while the request waits. Once that has cost the status, what goes wrong is said in the stream."""
        begun = self._supervisor.clock.monotonic()
        while True:
            waiting = await self._told.get()
            waited = self._supervisor.clock.monotonic() - begun
            if self._wants_progress or waited >= self._supervisor.settings.gateway.status_open_seconds:
                say = waiting_event if self._wants_progress else waiting_comment
                headers = {**STREAM_TYPE, **self._headers(passage.booking)}
                await self._sender.send(await self._sender.begun(headers), say(waiting))

    async def _carry(self, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        headers = {**answer.headers, **self._headers(exchange.booking), **STREAM_HEADERS}
        response = await self._sender.begun(headers)
        data = answer.body
        try:
            while data:
                if self._keeping is not None:
                    self._keeping.add(data)
                await self._sender.send(response, data)
                data = await exchange.more()
        except LlamavisorError as error:
            return await self._sender.end_badly(response, error_event(self._request.path, error))
        if not exchange.is_done:
            exchange.close()
            await self._sender.break_off()
        elif self._keeping is not None:
            self._keeping.complete(answer.status, headers)
        return response


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has said its last word."""
    task.cancel()
    await asyncio.wait([task])
