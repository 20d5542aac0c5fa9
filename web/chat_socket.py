"""The WebSocket of the original chat clients (`contracts.md` §4): chats in, tokens out, several on one connection, one after the other."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from supervisor.errors import LlamavisorError, MalformedRequestError
from supervisor.gateway.calls import CHAT, check, check_one_choice
from supervisor.gateway.chat_answers import ChatStream, flat_usage
from supervisor.gateway.costs import cost_number
from supervisor.gateway.losses import IncompleteAnswerError, said
from supervisor.gateway.passage import Passage
from supervisor.request_fields import refuse, shown
from web.bodies import parse_json_object
from web.calling import call_of, payer_of
from web.errors import TooManyRequestsError
from web.guard import GUARD
from web.keys import CLIENT_ADDRESS, SUPERVISOR
from web.live.engine import bound_send_buffer
from web.live.limits import LiveLimits, TokenBucket
from web.streams import STREAMS

logger = logging.getLogger(__name__)

# A long conversation with everything that was said in it; images go to POST /v1/chat/completions.
MESSAGE_BYTES = 1024**2
WAITING_CHATS = 16
PING_SECONDS = 20.0
CLOSE_SECONDS = 2.0
RETRY_SECONDS = 5.0
# What a message says about itself, not about the chat. A stream is always asked for, with its usage.
_ENVELOPE = frozenset({"type", "id", "project_id", "stream", "stream_options"})


class ChatSockets:
    """The connections there are, by the address that holds them."""

    def __init__(self, limits: LiveLimits) -> None:
        self.limits = limits
        self._held: Counter[str] = Counter()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One connection, from its handshake to its end. TooManyRequestsError when its address holds too many."""
        address = request[CLIENT_ADDRESS]
        limit = self.limits.connections_from(address)
        if self._held[address] >= limit:
            message = f"{address} holds {limit} connections already."
            raise TooManyRequestsError(message, code="too_many_connections", retry_after_seconds=RETRY_SECONDS)
        self._held[address] += 1
        try:
            return await _ChatSocket(request, self.limits).serve()
        finally:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]


class _ChatSocket:
    """One connection: one task reads what the client sends, another answers the chats in their order."""

    def __init__(self, request: web.Request, limits: LiveLimits) -> None:
        self._request = request
        self._supervisor = request.app[SUPERVISOR]
        self._unread_seconds = limits.unread_seconds
        now = asyncio.get_running_loop().time()
        self._bucket = TokenBucket(limits.messages_per_second, limits.message_burst, now)
        self._socket = web.WebSocketResponse(
            # Pings of the client count against its limit, so they are answered here.
            compress=False,
            max_msg_size=MESSAGE_BYTES,
            heartbeat=PING_SECONDS,
            timeout=CLOSE_SECONDS,
            autoping=False,
        )
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(WAITING_CHATS)
        self._close_code = WSCloseCode.OK
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def serve(self) -> web.StreamResponse:
        """Until the client leaves, breaks the rules, or the server ends. Whatever is being answered then is cut off at its engine."""
        await self._socket.prepare(self._request)
        bound_send_buffer(self._request.transport)
        peer = self._request[CLIENT_ADDRESS]
        self._tasks = (
            asyncio.create_task(self._read(), name=f"chat-socket:{peer}:read"),
            asyncio.create_task(self._answer(), name=f"chat-socket:{peer}:answer"),
        )
        try:
            with self._request.app[STREAMS].holding(self):
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end()
        return self._socket

    def close(self) -> None:
        """End it because the server ends; nothing happens when it is ending already."""
        if not any(task.done() for task in self._tasks):
            self._close_code = WSCloseCode.GOING_AWAY
        for task in self._tasks:
            task.cancel()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
                self._close_code = WSCloseCode.INTERNAL_ERROR
                logger.error("A chat connection broke", exc_info=outcome)
        try:
            # What waits for a client that does not read would hold it up for ever.
            async with asyncio.timeout(2 * CLOSE_SECONDS):
                await self._socket.close(code=self._close_code)
        except TimeoutError:
            self._abort()

    async def _read(self) -> None:
        """Take messages until the client leaves or breaks the rules."""
        while True:
            message = await self._socket.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            if not self._bucket.take(asyncio.get_running_loop().time()):
                self._close_code = WSCloseCode.POLICY_VIOLATION
                return
            if message.type is WSMsgType.BINARY:
                self._close_code = WSCloseCode.UNSUPPORTED_DATA
                return
            if message.type is WSMsgType.TEXT:
                await self._take(message.data)
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)

    async def _take(self, text: str) -> None:
        document: dict[str, Any] = {}
        try:
            document = parse_json_object(text.encode("utf-8", "replace"))
            if document.get("type") != "chat":
                raise refuse("type", f'must be "chat", not {shown(document.get("type"))}.')
            self._waiting.put_nowait(document)
        except MalformedRequestError as error:
            await self._send_error(document, error)
        except asyncio.QueueFull:
            refusal = TooManyRequestsError(f"{WAITING_CHATS} chats wait on this connection already.")
            await self._send_error(document, refusal)

    async def _answer(self) -> None:
        while True:
            document = await self._waiting.get()
            try:
                done = await self._chat(document)
            except LlamavisorError as error:
                await self._send_error(document, error)
            else:
                await self._send(document, done)

    async def _chat(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one chat, token by token; what is said at its end."""
        self._request.app[GUARD].check_takes_work(self._supervisor)
        caller = payer_of(self._request, document)
        asked = {name: value for name, value in document.items() if name not in _ENVELOPE}
        check(CHAT, asked)
        check_one_choice(asked, "on this WebSocket")
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
        call, _ = call_of(self._request, CHAT, asked, caller=caller)
        # The id of the request is the connection's; each chat has one of its own.
        call = replace(call, id=None)
        reader = ChatStream()
        async with Passage(self._supervisor.gateway, call, caller) as passage:
            answer, exchange = await passage.answer(), passage.exchange
            _check_stream(answer.status, answer.is_stream, answer.body)
            data = answer.body
            while data:
                for content in reader.feed(data):
                    await self._send(document, {"type": "token", "content": content})
                data = await exchange.more()
            if reader.error is not None or not exchange.is_done:
                raise IncompleteAnswerError(reader.error or "The engine's answer is not complete.", code="engine_error")
        cost = cost_number(passage.cost_micros)
        return {"type": "done", "usage": flat_usage(reader.usage), "cost": cost, "model": reader.model}

    async def _send_error(self, document: Mapping[str, Any], error: LlamavisorError) -> None:
        await self._send(document, {"type": "error", "error": str(error), "code": error.code})

    async def _send(self, document: Mapping[str, Any], message: dict[str, Any]) -> None:
        """Send, with the chat's own `id` if it has one; ConnectionResetError, and the connection is cut, when the client does not read."""
        told = {**message, "id": document["id"]} if "id" in document else message
        try:
            async with asyncio.timeout(self._unread_seconds):
                await self._socket.send_str(json.dumps(told))
        except TimeoutError:
            self._abort()
            raise ConnectionResetError("the client does not read") from None

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _check_stream(status: int, is_stream: bool, body: bytes) -> None:
    """Raise what an engine said instead of a stream."""
    if status >= HTTPStatus.BAD_REQUEST:
        words = said(body)
        raise MalformedRequestError(str(words.get("message")), code=str(words.get("code") or "engine_error"))
    if not is_stream:
        raise IncompleteAnswerError("The engine does not stream.")


CHAT_SOCKETS = web.AppKey("chat_sockets", ChatSockets)
