"""Whether requests are traced, and how a request takes part in a trace. The spans themselves are made in `spans.py`, which needs the extra `otel`."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Protocol

from supervisor.config.settings import Settings
from supervisor.errors import InvalidConfigurationError
from supervisor.gateway.calls import Call
from supervisor.gateway.observing.trace_context import TRACEPARENT, TraceContext, begun
from supervisor.storage.records import AcceptedRequest, Settlement, UsageRecord


class SpanMaker(Protocol):
    """Makes the spans of a request, and sends them."""

    def make(self, context: TraceContext, request: AcceptedRequest, settlement: Settlement) -> None:
        """Make those of a request that was settled. Never waits, never fails."""

    async def close(self) -> None:
        """Send what waits, for a moment, and stop."""


class Tracing:
    """Knows the requests that are being traced: between acceptance and settlement only the identities of their spans are kept.

    All methods are for the loop's thread.
    """

    def __init__(self, spans: SpanMaker, sample_ratio: float, chance: Random | None = None) -> None:
        self._spans = spans
        self._sample_ratio = sample_ratio
        self._chance = chance or Random()
        self._followed: dict[str, TraceContext] = {}

    def follow(self, call: Call, request_id: str) -> Call:
        """Trace an accepted request, if it is to be; the call as the engine is to get it. Its settlement ends the trace."""
        context = begun(call.headers, self._sample_ratio, self._chance)
        if context is None:
            return call
        self._followed[request_id] = context
        return replace(call, headers={**call.headers, TRACEPARENT: context.traceparent})

    def settled(self, record: UsageRecord) -> None:
        """Have the spans of a request made; for `Bookkeeper.on_settled`."""
        context = self._followed.pop(record.request.id, None)
        if context is not None and record.settlement is not None:
            self._spans.make(context, record.request, record.settlement)

    async def close(self) -> None:
        """See `SpanMaker.close`."""
        await self._spans.close()


def open_tracing(settings: Settings, version: str) -> Tracing | None:
    """Tracing as it is configured; None when it is off. It takes half a second, of imports. InvalidConfigurationError without the extra `otel`."""
    telemetry = settings.telemetry
    if telemetry.endpoint is None:
        return None
    try:
        from supervisor.gateway.observing.spans import OtlpSpans
    except ModuleNotFoundError as error:
        raise InvalidConfigurationError(
            f"`telemetry.endpoint` asks for traces, which need what is not installed ({error.name}).",
            param="telemetry.endpoint",
            remedy="Install it (pip install 'llamavisor[otel]'), or remove `telemetry.endpoint`.",
        ) from None
    return Tracing(OtlpSpans(telemetry, settings.server.host, settings.server.port, version), telemetry.sample_ratio)
