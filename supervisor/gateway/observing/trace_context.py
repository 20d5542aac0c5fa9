"""W3C trace context: read from a client's headers, decided on, and written for the engine. Pure, but for chance where it is handed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
SAMPLED = 0x01
TRACESTATE_LIMIT_CHARACTERS = 512
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?\Z")
_TRACESTATE = re.compile(r"[\x20-\x7e]+\Z")
_VERSION = "00"
_FORBIDDEN_VERSION = "ff"


class Parent(NamedTuple):
    """The span of whoever calls. `is_sampled`: it is traced there, so that it should be here."""

    trace_id: int
    span_id: int
    is_sampled: bool


class TraceContext(NamedTuple):
    """A request that is traced: its own span, that of what the engine does for it, and the client's span (None: the trace begins here)."""

    trace_id: int
    span_id: int
    upstream_id: int
    parent_id: int | None

    @property
    def traceparent(self) -> str:
        """For the engine, whose spans belong below `upstream_id`."""
        return f"{_VERSION}-{self.trace_id:032x}-{self.upstream_id:016x}-{SAMPLED:02x}"


def parse(traceparent: str | None) -> Parent | None:
    """The span that the header names; None where there is none, or none that can be understood."""
    found = None if traceparent is None else _TRACEPARENT.match(traceparent)
    if found is None or found[1] == _FORBIDDEN_VERSION or (found[1] == _VERSION and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    return Parent(trace_id, span_id, bool(int(found[4], 16) & SAMPLED))


def passed_on(traceparent: str | None, tracestate: str | None) -> dict[str, str]:
    """Which of a client's headers the engine is to see: both, if they are well-formed."""
    if traceparent is None or parse(traceparent) is None:
        return {}
    is_whole = tracestate is not None and len(tracestate) <= TRACESTATE_LIMIT_CHARACTERS
    if tracestate is None or not is_whole or _TRACESTATE.match(tracestate) is None:
        return {TRACEPARENT: traceparent}
    return {TRACEPARENT: traceparent, TRACESTATE: tracestate}


def begun(headers: Mapping[str, str], sample_ratio: float, chance: Random) -> TraceContext | None:
    """The trace of a request with these headers; None when it is not to be traced. A client's decision goes before our own."""
    parent = parse(headers.get(TRACEPARENT))
    if parent is None:
        if chance.random() >= sample_ratio:
            return None
        return TraceContext(_identity(chance, 128), _identity(chance, 64), _identity(chance, 64), None)
    if not parent.is_sampled:
        return None
    return TraceContext(parent.trace_id, _identity(chance, 64), _identity(chance, 64), parent.span_id)


def _identity(chance: Random, bits: int) -> int:
    """Any but zero, which means none."""
    return chance.getrandbits(bits) or 1
