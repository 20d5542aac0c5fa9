"""Reading a stream that goes on without its client: from its beginning, and again from where the client left it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from supervisor.errors import LlamavisorError, MalformedRequestError
from supervisor.gateway.admission.admission import Waiting
from supervisor.gateway.calls import Call
from supervisor.gateway.resumable import LAST_EVENT_ID, RESUME_HEADER, event_seen, seconds_asked
from supervisor.gateway.resuming import Reader, ResumableStream
from web.calling import caller_of
from web.dialects import error_event, event_of
from web.idempotency import IDEMPOTENCY_KEY
from web.keys import SUPERVISOR
from web.receipts import booking_headers
from web.sending import STREAM_HEADERS, Sender, whole
from web.waiting import PROGRESS_HEADER, STREAM_TYPE, waiting_comment, waiting_event

STREAM_ID_HEADER = "x-llamavisor-stream-id"


def begun_resumable(request: web.Request, call: Call) -> ResumableStream | None:
    """The stream that `call` begins, if the client asked for one that it can join again; None when it did not, or when it cannot have it.

    MalformedRequestError for a header that is no number of seconds, or beside an `Idempotency-Key`.
    """
    asked = request.headers.get(RESUME_HEADER)
    if asked is None:
        return None
    seconds = seconds_asked(asked)
    if IDEMPOTENCY_KEY in request.headers:
        message = f"`{RESUME_HEADER}` and `{IDEMPOTENCY_KEY}` exclude one another."
        raise MalformedRequestError(
            message, param=RESUME_HEADER, remedy="A stream that can be joined again need not be asked for again."
        )
    return request.app[SUPERVISOR].resumable.begin(call, caller_of(request), seconds)


class Follower:
    """One client that reads a stream, at its own pace."""

    def __init__(self, request: web.Request, stream: ResumableStream, told: Mapping[str, str]) -> None:
        self._request = request
        self._stream = stream
        self._supervisor = request.app[SUPERVISOR]
        self._sender = Sender(request)
        self._told = {**told, STREAM_ID_HEADER: stream.id}
        self._wants_progress = request.headers.get(PROGRESS_HEADER) == "1"
        self._begun = self._supervisor.clock.monotonic()

    async def begin(self) -> web.StreamResponse:
        """The answer to who asked for the stream. Where the client never learned the id (it left before, or was refused), nothing is kept."""
        try:
            return await self.follow(0)
        finally:
            if self._sender.response is None:
                self._supervisor.resumable.stop(self._stream)

    async def rejoin(self) -> web.StreamResponse:
        """The answer to who comes back: everything after the `Last-Event-ID`, and what is still to come."""
        return await self.follow(event_seen(self._request.headers.get(LAST_EVENT_ID)))

    async def follow(self, seen: int) -> web.StreamResponse:
        """Send what comes after event `seen`, to the end; what goes wrong before the head is out is raised."""
        stream = self._stream
        with self._supervisor.resumable.reading(stream, seen) as reader:
            stream.ring.check(seen)
            try:
                await self._read(reader)
            except LlamavisorError as error:
                if self._sender.response is None:
                    raise
                return await self._sender.end_badly(self._sender.response, error_event(stream.path, error))
            return await self._end()

    async def _read(self, reader: Reader) -> None:
        """Pass everything on, until there is nothing more."""
        while (piece := await reader.next()) is not None:
            if isinstance(piece, Waiting):
                await self._tell(piece)
            else:
                await self._sender.send(await self._sender.begun(self._headers()), piece)

    async def _tell(self, waiting: Waiting) -> None:
        """Keep the connection alive while the request waits; as every stream does."""
        waited = self._supervisor.clock.monotonic() - self._begun
        if self._wants_progress or waited >= self._supervisor.settings.gateway.status_open_seconds:
            say = waiting_event if self._wants_progress else waiting_comment
            headers = {**STREAM_TYPE, **self._told, **booking_headers(self._stream.booking)}
            await self._sender.send(await self._sender.begun(headers), say(waiting))

    async def _end(self) -> web.StreamResponse:
        answer = self._stream.answer
        assert answer is not None
        if not answer.is_stream and self._sender.response is None:
            return whole(answer, self._headers())
        response = await self._sender.begun(self._headers())
        if not answer.is_stream:
            return await self._sender.end_badly(response, event_of(self._stream.path, json.loads(answer.body)))
        if not self._stream.is_whole:
            await self._sender.break_off()
        return response

    def _headers(self) -> dict[str, str]:
        answer = self._stream.answer
        assert answer is not None
        stream = STREAM_HEADERS if answer.is_stream else {}
        return {**answer.headers, **self._told, **booking_headers(self._stream.booking), **stream}
