"""Trace context: what a client says is understood or left out, and what the engine is told belongs to it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.calls import CHAT, Call
from supervisor.gateway.observing.trace_context import Parent, TraceContext, begun, parse, passed_on
from supervisor.gateway.observing.tracing import Tracing
from supervisor.storage.records import AcceptedRequest, Settlement, TokenUsage, UsageRecord

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
MALFORMED = [
    "",
    "00",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01-more",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE}-{SPAN}-01\r\nX-Evil: 1",
    f" {SAMPLED}",
]
IDENTITIES = st.integers(1, 2**64 - 1)


class RecordingSpans:
    """Keeps what it is to make."""

    def __init__(self) -> None:
        self.made: list[tuple[TraceContext, AcceptedRequest, Settlement]] = []

    def make(self, context: TraceContext, request: AcceptedRequest, settlement: Settlement) -> None:
        self.made.append((context, request, settlement))

    async def close(self) -> None:
        """Nothing to send."""


def call(**headers: str) -> Call:
    return Call(CHAT, b"{}", {}, headers)


def record(identity: str) -> UsageRecord:
    request = AcceptedRequest(identity, "p", None, "m", "chat", False, 0)
    return UsageRecord(request, Settlement(identity, "ok", TokenUsage(), None, 0))


def test_a_parent_is_read() -> None:
    assert parse(SAMPLED) == Parent(int(TRACE, 16), int(SPAN, 16), True)
    assert parse(NOT_SAMPLED) == Parent(int(TRACE, 16), int(SPAN, 16), False)
    assert parse(f"01-{TRACE}-{SPAN}-01-what.comes.later") == parse(SAMPLED)
    assert parse(None) is None


@pytest.mark.parametrize("header", MALFORMED)
def test_what_cannot_be_understood_is_no_parent_and_goes_no_further(header: str) -> None:
    assert parse(header) is None
    assert passed_on(header, "vendor=1") == {}


@given(st.text(max_size=70) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,3}"))
def test_what_is_passed_on_is_one_line_of_ascii(header: str) -> None:
    for name, value in passed_on(header, header).items():
        assert value.isascii()
        assert value.isprintable(), name


def test_the_state_goes_with_its_parent_or_not_at_all() -> None:
    assert passed_on(SAMPLED, "vendor=1") == {"traceparent": SAMPLED, "tracestate": "vendor=1"}
    for state in (None, "a\nb", "é=1", "x" * 513):
        assert passed_on(SAMPLED, state) == {"traceparent": SAMPLED}
    assert passed_on(None, "vendor=1") == {}


@given(IDENTITIES, IDENTITIES, st.integers())
def test_the_engine_is_below_us_in_the_trace_of_the_client(trace_id: int, span_id: int, seed: int) -> None:
    headers = {"traceparent": f"00-{trace_id:032x}-{span_id:016x}-01"}
    context = begun(headers, 0.0, Random(seed))
    assert context is not None
    assert (context.trace_id, context.parent_id) == (trace_id, span_id)
    assert parse(context.traceparent) == Parent(trace_id, context.upstream_id, True)
    assert len({context.span_id, context.upstream_id, span_id}) == 3


def test_the_clients_decision_goes_before_ours() -> None:
    assert begun({"traceparent": NOT_SAMPLED}, 1.0, Random(1)) is None
    assert begun({"traceparent": SAMPLED}, 0.0, Random(1)) is not None


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_so_many_of_the_others_are_traced(ratio: float) -> None:
    chance = Random(1)
    traced = sum(begun({}, ratio, chance) is not None for _ in range(2_000)) / 2_000
    assert abs(traced - ratio) < 0.05


def test_a_request_is_followed_until_it_is_settled_and_no_longer() -> None:
    spans = RecordingSpans()
    tracing = Tracing(spans, 1.0, Random(1))
    sent = tracing.follow(call(Accept="*/*", traceparent=SAMPLED), "req_1")
    assert sent.headers["Accept"] == "*/*"
    assert sent.headers["traceparent"] != SAMPLED
    tracing.settled(record("req_2"))
    tracing.settled(record("req_1"))
    tracing.settled(record("req_1"))
    ((context, request, _),) = spans.made
    assert (request.id, context.traceparent) == ("req_1", sent.headers["traceparent"])


def test_a_request_that_is_not_traced_is_sent_as_it_came() -> None:
    tracing = Tracing(RecordingSpans(), 0.0)
    untraced = call(traceparent=NOT_SAMPLED)
    assert tracing.follow(untraced, "req_1") is untraced
    plain = call()
    assert tracing.follow(plain, "req_2") is plain
