"""Sending an engine's answer on: whole, or as a stream whose client sets the pace."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from supervisor.gateway.exchange import Answer
from web.keys import SUPERVISOR
from web.live.engine import bound_send_buffer

PROCESSING_MS = "openai-processing-ms"
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
# Less than what a transport takes before it asks its writer to wait.
SMALL_BYTES = 16 * 1024
# A browser that notices the broken end drops what the page has not read by then: the reason would be lost.
LAST_WORDS_SECONDS = 0.5


def whole(answer: Answer, told: Mapping[str, str]) -> web.Response:
    """An answer in one piece, an engine's refusal included; `told` are headers of ours."""
    headers = {**answer.headers, **told, PROCESSING_MS: str(round(answer.milliseconds))}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


class Sender:
    """A stream on its way to the client. `response` is there once its head is out: from then on, what goes wrong is said in the stream."""

    def __init__(self, request: web.Request) -> None:
        self.response: web.StreamResponse | None = None
        self._request = request
        self._unread_seconds = request.app[SUPERVISOR].settings.server.slow_reader_seconds

    async def begun(self, headers: Mapping[str, str]) -> web.StreamResponse:
        """The response, whose head is out; with these headers, if it was not before."""
        if self.response is None:
            bound_send_buffer(self._request.transport)
            self.response = web.StreamResponse(headers=headers)
            await self.response.prepare(self._request)
        return self.response

    async def send(self, response: web.StreamResponse, data: bytes) -> None:
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

    async def end_badly(self, response: web.StreamResponse, event: bytes) -> web.StreamResponse:
        """Say why the stream ends, and end it so that nobody takes it for a whole one."""
        await self.send(response, event)
        await self.break_off()
        return response

    async def break_off(self) -> None:
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
