"""The spans of a request, by OpenTelemetry's SDK (extra `otel`): made from its usage record, sent by a thread of the SDK as OTLP over HTTP.

What the receiver does, or whether there is one, is of no consequence to requests: spans that wait are bounded, and beyond that the oldest
are dropped.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, StatusCode, TraceFlags

from supervisor.config.observing_settings import TelemetrySettings
from supervisor.gateway.observing.trace_context import TraceContext
from supervisor.gateway.traffic import Outcome
from supervisor.storage.records import AcceptedRequest, Settlement

EXPORT_SECONDS = 5.0
# What the end of the supervisor waits for the last spans to be sent.
CLOSE_SECONDS = 3.0
SEND_EVERY_MILLISECONDS = 1_000
MOST_SPANS_AT_ONCE = 512
NANOS_PER_MILLISECOND = 1_000_000
MILLISECONDS = 1_000
PROVIDER = "llamavisor"
# A surface for which the conventions have no name keeps its own.
OPERATIONS = {
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
}
# That a client leaves is no error of ours.
NO_ERRORS = frozenset({Outcome.OK.value, Outcome.CLIENT_GONE.value})

Attributes = dict[str, str | int | float | bool]


class PresetIds(RandomIdGenerator):
    """The SDK's identities, but for those that were told to somebody before the span was made."""

    def __init__(self) -> None:
        self._trace_id: int | None = None
        self._span_id: int | None = None

    def preset(self, span_id: int, trace_id: int | None = None) -> None:
        """What the next span (and, if it begins one, trace) is to be called."""
        self._span_id, self._trace_id = span_id, trace_id

    def generate_span_id(self) -> int:
        """See `IdGenerator`."""
        preset, self._span_id = self._span_id, None
        return super().generate_span_id() if preset is None else preset

    def generate_trace_id(self) -> int:
        """See `IdGenerator`."""
        preset, self._trace_id = self._trace_id, None
        return super().generate_trace_id() if preset is None else preset


class OtlpSpans:
    """See the module, and `tracing.SpanMaker`. Certificates and headers for the receiver: the SDK's own variables, `OTEL_EXPORTER_OTLP_…`."""

    def __init__(self, settings: TelemetrySettings, host: str, port: int, version: str) -> None:
        self._server: Attributes = {"server.address": host, "server.port": port}
        self._ids = PresetIds()
        resource = Resource.create({"service.name": settings.service_name, "service.version": version})
        self._exporter = OTLPSpanExporter(_receiver(settings), timeout=EXPORT_SECONDS)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=settings.queue_spans,
                schedule_delay_millis=SEND_EVERY_MILLISECONDS,
                max_export_batch_size=min(MOST_SPANS_AT_ONCE, settings.queue_spans),
            )
        )
        self._tracer = self._provider.get_tracer("llamavisor", version)

    def make(self, context: TraceContext, request: AcceptedRequest, settlement: Settlement) -> None:
        """See `SpanMaker`. One span for the request; below it one for its waiting, if it waited, and one for the engine, if it came so far."""
        start = request.accepted_at_ms * NANOS_PER_MILLISECOND
        end = start + _nanos(settlement.total_ms)
        placed = end if settlement.instance is None else min(end, start + _nanos(settlement.queued_ms))
        whole = self._whole(context, request, settlement, start)
        if placed > start:
            self._below(whole, "queue", SpanKind.INTERNAL, start).end(placed)
        if settlement.instance is not None:
            self._ids.preset(context.upstream_id)
            upstream = self._below(whole, "upstream", SpanKind.CLIENT, placed)
            upstream.set_attribute("llamavisor.instance", settlement.instance)
            _tell_end(upstream, settlement)
            if settlement.first_byte_ms is not None:
                upstream.add_event("first_byte", timestamp=start + _nanos(settlement.first_byte_ms))
            upstream.end(end)
        _tell_end(whole, settlement)
        whole.end(end)

    async def close(self) -> None:
        """See `SpanMaker`; at most `CLOSE_SECONDS`."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send_and_end() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(sent.set)

        # Not one of the loop's own threads: those are waited for at the end, however long it takes.
        threading.Thread(target=send_and_end, name="traces:close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await sent.wait()
        except TimeoutError:
            # Between two tries to send, this ends it.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _whole(self, context: TraceContext, request: AcceptedRequest, settlement: Settlement, start: int) -> Span:
        operation = OPERATIONS.get(request.surface, request.surface)
        if context.parent_id is None:
            self._ids.preset(context.span_id, context.trace_id)
            parent: Span = trace.INVALID_SPAN
        else:
            self._ids.preset(context.span_id)
            flags = TraceFlags(TraceFlags.SAMPLED)
            theirs = trace.SpanContext(context.trace_id, context.parent_id, is_remote=True, trace_flags=flags)
            parent = trace.NonRecordingSpan(theirs)
        attributes = {**self._server, **_attributes(operation, request, settlement)}
        name, above = f"{operation} {request.endpoint}", trace.set_span_in_context(parent)
        return self._tracer.start_span(name, above, SpanKind.SERVER, attributes, start_time=start)

    def _below(self, whole: Span, name: str, kind: SpanKind, start: int) -> Span:
        return self._tracer.start_span(name, trace.set_span_in_context(whole), kind, start_time=start)


def _receiver(settings: TelemetrySettings) -> str:
    """The address; that of a server alone gets the usual path."""
    address = str(settings.endpoint)
    return f"{address}v1/traces" if address.count("/") == 3 and address.endswith("/") else address


def _attributes(operation: str, request: AcceptedRequest, settlement: Settlement) -> Attributes:
    usage = settlement.usage
    told: dict[str, str | int | float | bool | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": request.endpoint,
        "gen_ai.request.stream": request.stream,
        "gen_ai.response.model": settlement.model,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "llamavisor.request.id": request.id,
        "llamavisor.project": request.project,
        "llamavisor.outcome": settlement.outcome,
        "llamavisor.cost_micros": settlement.cost_micros,
    }
    if request.stream and settlement.first_byte_ms is not None:
        told["gen_ai.response.time_to_first_chunk"] = settlement.first_byte_ms / MILLISECONDS
    return {name: value for name, value in told.items() if value is not None}


def _tell_end(span: Span, settlement: Settlement) -> None:
    if settlement.outcome not in NO_ERRORS:
        span.set_attribute("error.type", settlement.error_code or settlement.outcome)
        span.set_status(StatusCode.ERROR)


def _nanos(milliseconds: float | None) -> int:
    return round((milliseconds or 0.0) * NANOS_PER_MILLISECOND)
