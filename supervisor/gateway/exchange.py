"""One request on its way through: sent to an engine, its answer taken as it comes, judged, and told honestly."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError
from supervisor.gateway.calls import Call
from supervisor.gateway.dialects import engine_error
from supervisor.gateway.losses import (
    AMID,
    BEFORE,
    UNREACHED,
    check_refusal,
    explain_loss,
    incomplete,
    silent,
)
from supervisor.gateway.silence import Silence
from supervisor.gateway.sse import StreamJudge, tokens_told
from supervisor.gateway.surfaces import check_supported, surface_of
from supervisor.gateway.traffic import Outcome, Record, outcome_of
from supervisor.gateway.upstream import Upstream
from supervisor.process.observe import Traffic

EVENT_STREAM = "text/event-stream"
JSON = "application/json"
ANSWER_LIMIT_BYTES = 256 * 1024**2
RETRY_AFTER = "Retry-After"
STATUS_OPEN_SECONDS = 10.0
# Engines whose server has one model, and answers whatever name the request gives it.
ENGINES_OF_ANY_NAME = frozenset({"embedded", "llama-server"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer. `headers` are those that the client gets. Of a stream, `body` is what came first; `Exchange.more` brings the rest."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_stream: bool
    milliseconds: float


class Exchange:
    """One request. `answer` first; then, of a stream, `more`. Whatever ends it, call `close`."""

    def __init__(
        self, call: Call, upstream: Upstream, record: Record, pulse: Traffic, silence: Silence, clock: Clock
    ) -> None:
        self._call = call
        self._upstream = upstream
        self._record = record
        self._pulse = pulse
        self._silence = silence
        self._clock = clock
        self._judge = StreamJudge(surface_of(call.path).end)
        self._response: aiohttp.ClientResponse | None = None
        self._cut: LlamavisorError | None = None

    async def answer(self) -> Answer:
        """Send the request and wait for the answer: all of it, or of a stream the first whole event.

        Until then nothing is lost for the client, and every failure is an error with a status: `EngineDiedError`, `EngineDeadlineError`,
        `EngineRefusedError`.
        """
        response = self._response = await self._head()
        self._silence.watch(response.close)
        check_refusal(self._upstream.instance, response.status)
        if response.status == HTTPStatus.OK and response.content_type == EVENT_STREAM:
            return self._answered(response, await self._begin(response), is_stream=True)
        return self._whole(response, await self._read(response))

    async def more(self) -> bytes:
        """What comes next of a stream, in whole events; nothing at its end. LlamavisorError when it turns out not to be a whole answer."""
        return await self._next(self._response, AMID) if self._response is not None else b""

    @property
    def is_done(self) -> bool:
        """Whether a stream came to an end that the client may take for one: its last event, and nothing broken before or after it."""
        return self._judge.is_done and self._judge.fault is None

    def cut(self, why: LlamavisorError) -> None:
        """End it before its time; whoever waits for more of the answer gets `why`."""
        self._cut = why
        if self._response is not None:
            self._response.close()

    def close(self) -> None:
        """End the connection, unless the answer was read to its end."""
        self._silence.close()
        if self._response is not None:
            self._response.close()

    async def _head(self) -> aiohttp.ClientResponse:
        call, spec = self._call, self._upstream.spec
        model_id = None if spec.engine in ENGINES_OF_ANY_NAME else spec.model_id
        sending = self._upstream.post(call.path, call.body_for(model_id), call.headers, alone=call.wants_stream)
        try:
            response = await self._silence.until_answered(sending)
        except (aiohttp.ClientError, OSError) as error:
            raise await self._explained(error, BEFORE) from error
        self._pulse.last_byte_at = self._clock.monotonic()
        return response

    async def _chunk(self, response: aiohttp.ClientResponse, when: str) -> bytes:
        """What comes next, as it comes; nothing at the end."""
        self._silence.listening()
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise await self._explained(error, when) from error
        self._silence.heard()
        self._pulse.last_byte_at = self._clock.monotonic()
        return chunk

    async def _explained(self, error: Exception, when: str) -> LlamavisorError:
        """What to say of a connection that failed."""
        upstream = self._upstream
        if self._cut is not None:
            return self._cut
        if self._silence.has_given_up:
            return silent(upstream.instance, when, self._silence.limit_seconds)
        never_was = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        return await explain_loss(upstream.instance, upstream.generation, UNREACHED if never_was else when, self._clock)

    async def _begin(self, response: aiohttp.ClientResponse) -> bytes:
        """What a stream begins with. Comments alone do not commit us yet: while the engine only pings, a failure still gets its true status."""
        begun = self._clock.monotonic()
        data = await self._next(response, BEFORE)
        while not self._judge.has_spoken and self._clock.monotonic() - begun < STATUS_OPEN_SECONDS:
            data += await self._next(response, BEFORE)
        return data

    async def _next(self, response: aiohttp.ClientResponse, when: str) -> bytes:
        """The next whole events of a stream; nothing at its good end."""
        try:
            self._check_stream()
            while chunk := await self._chunk(response, when):
                data = self._judge.feed(chunk)
                self._record.count_tokens(self._judge.events)
                if data:
                    return data
                self._check_stream()
            self._judge.finish()
            self._check_stream()
        except LlamavisorError as error:
            self._record.settle(Outcome.CUT if self._judge.fault is not None else outcome_of(error))
            raise
        self._settle_stream()
        return b""

    def _check_stream(self) -> None:
        if self._judge.fault is not None:
            raise incomplete(self._upstream.instance, self._judge.fault)

    def _settle_stream(self) -> None:
        told = self._judge.tokens
        if told is not None:
            self._record.count_tokens(told)
        self._record.settle(Outcome.OK if self._judge.is_success else Outcome.ENGINE_ERROR)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        while chunk := await self._chunk(response, BEFORE):
            body += chunk
            if len(body) > ANSWER_LIMIT_BYTES:
                raise incomplete(self._upstream.instance, f"it exceeds {ANSWER_LIMIT_BYTES} bytes")
        return bytes(body)

    def _whole(self, response: aiohttp.ClientResponse, body: bytes) -> Answer:
        """An answer in one piece, an error included."""
        if response.status >= HTTPStatus.BAD_REQUEST:
            instance, engine = self._upstream.instance.name, self._upstream.spec.engine
            check_supported(instance, engine, self._call.path, response.status, body)
            failed = response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            self._record.settle(Outcome.ENGINE_ERROR if failed else Outcome.REFUSED)
            return self._answered(response, engine_error(self._call.path, body, response.status), content_type=JSON)
        if response.content_type == JSON and not body.rstrip().endswith((b"}", b"]")):
            raise incomplete(self._upstream.instance, "its JSON ends too early")
        self._record.count_tokens(tokens_told(body) or 0)
        return self._answered(response, body)

    def _answered(
        self, response: aiohttp.ClientResponse, body: bytes, *, is_stream: bool = False, content_type: str | None = None
    ) -> Answer:
        headers: dict[str, str] = {"Content-Type": content_type or response.headers.get("Content-Type") or JSON}
        if RETRY_AFTER in response.headers:
            headers[RETRY_AFTER] = response.headers[RETRY_AFTER]
        return Answer(response.status, headers, body, is_stream, self._record.milliseconds)
