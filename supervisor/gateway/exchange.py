"""One request on its way through: sent to an engine, its answer taken as it comes, judged, and told honestly.

What comes is handled in callbacks; a coroutine wakes once for a whole answer, and for a stream once at its beginning and once at its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking
from supervisor.gateway.calls import REQUEST_ID, Call
from supervisor.gateway.connection import READ_AHEAD_BYTES, Connection, Head
from supervisor.gateway.dialects import engine_error
from supervisor.gateway.losses import (
    AMID,
    BEFORE,
    ENGINE_ERROR,
    UNREACHED,
    IncompleteAnswerError,
    check_refusal,
    code_in,
    explain_early_end,
    explain_loss,
    incomplete,
    refusal_in,
    said,
    silent,
)
from supervisor.gateway.openai_errors import SERVER_ERROR_STATUS
from supervisor.gateway.several import Several, as_stream, failure_in, joined
from supervisor.gateway.silence import RECHECK_SECONDS, Watchman, is_working
from supervisor.gateway.sse import StreamJudge
from supervisor.gateway.surfaces import check_supported, surface_of
from supervisor.gateway.traffic import Outcome, Record, outcome_of
from supervisor.gateway.upstream import CannotConnectError, Upstream
from supervisor.gateway.usage_events import (
    Prelude,
    asks_for_usage,
    usage_told,
    with_figures_asked,
    without_usage_event,
)
from supervisor.process.observe import Traffic
from supervisor.storage.records import TokenSource, TokenUsage

OK = 200
FIRST_ERROR = 400
EVENT_STREAM = b"text/event-stream"
JSON = "application/json"
JSON_TYPE = b"application/json"
ANSWER_LIMIT_BYTES = 256 * 1024**2
STATUS_OPEN_SECONDS = 10.0
# How far a stream is, is noted at 1, 2, 4, … of its events, and from here on every so many: so much of it a kill of the supervisor makes free.
NOTE_EVENTS = 256
# Engines whose server has one model, and answers whatever name the request gives it.
ENGINES_OF_ANY_NAME = frozenset({"embedded", "llama-server"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer. `headers` are those that the client gets. Of a stream, `body` is what came first; `Exchange.more` brings the rest.

    `cost_micros` is known of answers of `passage.ask` and `ask_within`, where the model has a price.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    is_stream: bool
    milliseconds: float
    cost_micros: int | None = None


class Exchange:
    """One request. `answer` first; then, of a stream, `more` until it brings nothing, or `pipe` once. Whatever ends it, call `close`.

    `usage` is what the engine told of tokens, or what was counted; complete once the answer is. `first_byte_ms`: until the first byte for the client.
    `booking` is the request in the books; `error_code` what was said of a stream that did not end well; `is_cut_short`: it was ended from here, while
    the engine was at it.
    """

    def __init__(
        self, call: Call, upstream: Upstream, record: Record, pulse: Traffic, watchman: Watchman, clock: Clock
    ) -> None:
        self.listening_since: float | None = None
        self.first_byte_ms: float | None = None
        self.error_code: str | None = None
        self.is_cut_short = False
        self.booking: Booking
        self._call = call
        self._upstream = upstream
        self.record = record
        self.pulse = pulse
        self._watchman = watchman
        self._clock = clock
        surface = surface_of(call.path)
        self._judge = StreamJudge(surface.end)
        self._asks_figures = call.wants_stream and surface.has_stream_options
        self._hides_usage = self._asks_figures and not asks_for_usage(call.document)
        hides_progress = "return_progress" not in call.document
        self._prelude = Prelude(hides=hides_progress)
        # An answer in one piece that is asked for as a stream.
        self._joins = False
        if surface.has_stream_options and call.answers > 1 and self._is_llama:
            self._prelude = Several(hides=hides_progress, choices=call.choices)
            self._joins = not call.wants_stream
        self._usage: TokenUsage | None = None
        self._connection: Connection | None = None
        self._head: Head | None = None
        self._has_events = False
        self._is_stream = False
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._note_at = 1
        self._sink: Callable[[bytes], None] | None = None
        self._is_over = False
        self._loss: Exception | None = None
        self._cut: LlamavisorError | None = None
        self._given_up_seconds: float | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def answer(self) -> Answer:
        """Send the request and wait for the answer: all of it, or of a stream the first whole event.

        Until then nothing is lost for the client, and every failure is an error with a status: `EngineDiedError`, `EngineDeadlineError`,
        `EngineRefusedError`.
        """
        await self._send()
        begun = self._clock.monotonic()
        while not self._is_over and not self._has_begun(begun):
            await self._news()
        if self._head is None or (self._is_over and not self._has_events):
            await self._check_whole(BEFORE)
        head = self._head
        assert head is not None
        if head.status != OK:
            check_refusal(self._upstream.instance, head.status)
        if not self._is_stream:
            return await self._whole(head, self._taken())
        if self._is_over and not self._judge.has_spoken:
            await self._conclude(BEFORE)
        return self._answered(head, self._taken(), is_stream=True)

    async def more(self) -> bytes:
        """What comes next of a stream, in whole events; nothing at its end. LlamavisorError when it turns out not to be a whole answer."""
        while not self._parts and not self._is_over:
            await self._news()
        if self._parts:
            return self._taken()
        await self._conclude(AMID)
        return b""

    async def pipe(self, sink: Callable[[bytes], None]) -> None:
        """Give everything that is still to come of a stream to `sink`, in whole events; returns at its good end, raises as `more`."""
        if self._parts:
            sink(self._taken())
        self._sink = sink
        while not self._is_over:
            await self._news()
        await self._conclude(AMID)

    def pause(self) -> None:
        """The client does not read: nor do we."""
        self.listening_since = None
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """It reads again."""
        if self._connection is not None and not self._is_over:
            self.listening_since = self._clock.monotonic()
            self._connection.resume()

    @property
    def was_sent(self) -> bool:
        """Whether the engine may have the request."""
        return self._connection is not None

    @property
    def model(self) -> str | None:
        """What the engine calls the model."""
        return self._upstream.spec.model_id

    @property
    def is_done(self) -> bool:
        """Whether a stream came to an end that the client may take for one: its last event, and nothing broken before or after it."""
        return self._judge.is_done and self._judge.fault is None

    @property
    def usage(self) -> TokenUsage:
        """The tokens so far."""
        if self._usage is not None:
            return self._usage
        prelude = self._prelude
        counted = self._judge.events - prelude.events
        prompt, cached = prelude.read_tokens, prelude.cached_tokens
        if not prompt and (told := usage_told(self._judge.figures)) is not None:
            prompt, cached = told.prompt_tokens, told.cached_tokens
        source = TokenSource.COUNTED if counted or prompt else TokenSource.NONE
        return TokenUsage(prompt, counted, cached, source)

    @property
    def _is_llama(self) -> bool:
        return self._upstream.spec.engine in ENGINES_OF_ANY_NAME

    def cut(self, why: LlamavisorError) -> None:
        """End it before its time; whoever waits for more of the answer gets `why`."""
        self._cut = why
        self._cut_short()
        self._lose(ConnectionAbortedError("cut"))

    def close(self) -> None:
        """End the connection, unless the answer was read to its end. A stream whose last event is out was answered, whoever leaves then."""
        self._watchman.forget(self)
        if self.is_done and self.record.outcome is None:
            self._finish()
        self._cut_short()
        self._is_over = True

    # Receiver

    def on_head(self, head: Head) -> None:
        """See `connection.Receiver`."""
        self._heard()
        self._head = head
        self._has_events = head.status == OK and head.media_type == EVENT_STREAM
        self._is_stream = self._has_events and self._call.wants_stream

    def on_body(self, data: bytes) -> None:
        """See `connection.Receiver`."""
        self._heard()
        if self._has_events:
            data = self._judged(data)
            if not data:
                return
        if self.first_byte_ms is None:
            self.first_byte_ms = self.record.milliseconds
        if self._sink is not None:
            self._sink(data)
            return
        self._parts.append(data)
        self._waiting_bytes += len(data)
        if self._is_stream:
            self._wake()
            if self._waiting_bytes > READ_AHEAD_BYTES:
                self.pause()
        elif self._waiting_bytes > ANSWER_LIMIT_BYTES:
            self._lose(incomplete(self._upstream.instance, f"it exceeds {ANSWER_LIMIT_BYTES} bytes"))

    def on_end(self) -> None:
        """See `connection.Receiver`."""
        self._over()

    def on_loss(self, error: Exception) -> None:
        """See `connection.Receiver`."""
        self._loss = error
        self._over()

    # Listener

    async def still_working(self) -> bool:
        """See `silence.Listener`."""
        recheck_seconds = min(self._watchman.limit_seconds, RECHECK_SECONDS)
        return await is_working(self._upstream.instance, self._upstream.spec, recheck_seconds)

    def give_up(self) -> None:
        """See `silence.Listener`."""
        self._given_up_seconds = self._watchman.limit_seconds
        self._lose(TimeoutError("silent"))

    # Taking it as it comes

    async def _send(self) -> None:
        call, headers = self._call, self._call.headers
        if REQUEST_ID not in headers:
            headers = {**headers, REQUEST_ID: self.booking.request.id}
        body, alone = self._body(), call.wants_stream or self._joins
        self._connection = self._upstream.send_at_once(self, call.path, body, headers, alone=alone)
        if self._connection is None:
            try:
                self._connection = await self._upstream.send(self, call.path, body, headers, alone=alone)
            except CannotConnectError as error:
                raise await self._explained(UNREACHED) from error
            if self._cut is not None:
                self._connection.abort()
                raise self._cut
        self.listening_since = self._clock.monotonic()
        self._watchman.watch(self)

    def _body(self) -> bytes:
        call, is_llama = self._call, self._is_llama
        if self._joins:
            return as_stream(call.document)
        body = call.body_for(None if is_llama else self._upstream.spec.model_id)
        return with_figures_asked(body, call.document, progress=is_llama) if self._asks_figures else body

    def _heard(self) -> None:
        now = self._clock.monotonic()
        self.pulse.last_byte_at = now
        if self.listening_since is not None:
            self.listening_since = now

    def _judged(self, data: bytes) -> bytes:
        judge = self._judge
        data = judge.feed(data)
        if (self._asks_figures or self._joins) and not self._prelude.is_over:
            data = self._prelude.take(data)
        counted = judge.events - self._prelude.events
        self.record.count_tokens(counted)
        if counted >= self._note_at:
            self._note_at = counted + min(counted, NOTE_EVENTS)
            self.booking.note(self.usage)
        if judge.fault is not None:
            # Nothing that comes after it would be let through.
            self._lose(ConnectionAbortedError("not a stream any more"))
        return without_usage_event(data) if self._hides_usage else data

    def _has_begun(self, since: float) -> bool:
        """Comments alone do not commit us to a status: while the engine only pings, a failure still gets its true one."""
        patient = self._clock.monotonic() - since < STATUS_OPEN_SECONDS
        return self._is_stream and bool(self._parts) and (self._judge.has_spoken or not patient)

    def _taken(self) -> bytes:
        parts, self._parts = self._parts, []
        was_paused, self._waiting_bytes = self._waiting_bytes > READ_AHEAD_BYTES, 0
        if was_paused and self._is_stream:
            self.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _news(self) -> None:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _over(self) -> None:
        self._is_over = True
        self.listening_since = None
        self._wake()

    def _cut_short(self) -> None:
        if self._connection is not None and not self._is_over:
            self._connection.abort()
            self.is_cut_short = True

    def _lose(self, error: Exception) -> None:
        if not self._is_over:
            if self._connection is not None:
                self._connection.abort()
            self.on_loss(error)

    # The end

    async def _conclude(self, when: str) -> None:
        """Judge a stream that has ended: settles it, or raises why it is not whole."""
        try:
            if self._loss is None:
                self._judge.finish()
            await self._check_whole(when)
        except LlamavisorError as error:
            self.record.settle(Outcome.CUT if isinstance(error, IncompleteAnswerError) else outcome_of(error))
            self.error_code = error.code
            if self._joins and self._cut is None:
                # The client has nothing of what was counted.
                self._usage = TokenUsage()
            raise
        self._finish()

    def _finish(self) -> None:
        """A stream came to its end."""
        self._tell_usage(self._prelude.told or usage_told(self._judge.figures))
        self.record.settle(Outcome.OK if self._judge.is_success else Outcome.ENGINE_ERROR)

    async def _check_whole(self, when: str) -> None:
        fault = self._judge.fault
        if fault is not None:
            raise (
                await self._early_end(fault, when) if self._loss is None else incomplete(self._upstream.instance, fault)
            )
        if self._loss is not None:
            raise await self._explained(when) from self._loss

    async def _early_end(self, fault: str, when: str) -> LlamavisorError:
        """What to say of an answer that is not whole, though its connection ended well: so it does, where its end is the body's, for a process that
        is killed."""
        upstream = self._upstream
        return await explain_early_end(upstream.instance, upstream.generation, fault, when, self._clock)

    async def _explained(self, when: str) -> LlamavisorError:
        """What to say of a connection that failed."""
        upstream = self._upstream
        if self._cut is not None:
            return self._cut
        if isinstance(self._loss, LlamavisorError):
            return self._loss
        if self._given_up_seconds is not None:
            return silent(upstream.instance, when, self._given_up_seconds)
        return await explain_loss(upstream.instance, upstream.generation, when, self._clock)

    def _tell_usage(self, usage: TokenUsage | None) -> None:
        self._usage = usage
        if usage is not None:
            self.record.count_tokens(usage.completion_tokens)

    async def _whole(self, head: Head, body: bytes) -> Answer:
        """An answer in one piece, an error included. Events that nobody asked for are judged as those of a stream."""
        if self._joins and self._judge.has_error:
            self._usage = TokenUsage()
            return self._failed(head, *failure_in(body))
        if self._has_events:
            await self._conclude(BEFORE)
            if not self._joins:
                return self._answered(head, body)
            # It may be long, and others wait for the loop.
            return self._answered(head, await asyncio.to_thread(joined, body, self._usage), content_type=JSON)
        if head.status >= FIRST_ERROR:
            return self._failed(head, head.status, body)
        if head.media_type == JSON_TYPE and not body.rstrip().endswith((b"}", b"]")):
            raise await self._early_end("its JSON ends too early", BEFORE)
        self._tell_usage(usage_told(body))
        return self._answered(head, body)

    def _failed(self, head: Head, status: int, body: bytes) -> Answer:
        """The engine's error. SurfaceNotSupportedError when it says that it has no such route."""
        refusal = refusal_in(status, body)
        if refusal is not None:
            status, body = FIRST_ERROR, refusal
        path = self._call.path
        check_supported(self._upstream.instance.name, self._upstream.spec.engine, path, status, body)
        self.record.settle(Outcome.ENGINE_ERROR if status >= SERVER_ERROR_STATUS else Outcome.REFUSED)
        self.error_code = code_in(said(body)) or ENGINE_ERROR
        return replace(self._answered(head, engine_error(path, body, status), content_type=JSON), status=status)

    def _answered(self, head: Head, body: bytes, *, is_stream: bool = False, content_type: str | None = None) -> Answer:
        headers = {"Content-Type": content_type or head.get(b"content-type") or JSON}
        retry_after = head.get(b"retry-after")
        if retry_after is not None:
            headers["Retry-After"] = retry_after
        return Answer(head.status, headers, body, is_stream, self.record.milliseconds)
