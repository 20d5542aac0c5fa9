"""What the gateway benchmark asks for, and what it saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from benchmarks._load import Told
from benchmarks._ways import BURST, BURST_EVENTS, DEMO, PACE_US, PACED, PACED_EVENTS, Kind

US_PER_SECOND = 1e6
CLIENTS = (1, 16, 64)
REQUEST_TITLE = "mock: request"
PACED_TITLE = f"mock: stream of {PACED_EVENTS}, one each {PACE_US / 1000:g} ms"
DEMO_STREAM_TITLE = "demo model: stream of 32 tokens"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked, by how many at once."""

    title: str
    kind: Kind
    clients: int
    max_tokens: int = 16

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        messages = [{"role": "user", "content": "What is the capital of France? Then tell me a story."}]
        return {
            "model": self.kind.instance,
            "messages": messages,
            "stream": self.kind.stream,
            "max_tokens": self.max_tokens,
        }


@dataclass(slots=True)
class Seen:
    """What one way did with one workload: a figure a round, failures altogether."""

    requests_per_second: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    events_per_second: list[float] = field(default_factory=list)
    delay_ms: list[float] = field(default_factory=list)
    delay_p99_ms: list[float] = field(default_factory=list)
    gap_p99_ms: list[float] = field(default_factory=list)
    cpu_us_per_request: list[float] = field(default_factory=list)
    cpu_us_per_event: list[float] = field(default_factory=list)
    failures: int = 0
    requests: int = 0

    def note(self, told: Told, cpu_seconds: float | None, direct_ms: float | None) -> None:
        """Add one round. `direct_ms`: the median answer time of the direct way; None when this is it, or took longer than the round.

        `cpu_seconds`: of the way's processes; None when it has none.
        """
        self.failures += told.failures
        self.requests += told.all_requests
        self.requests_per_second.append(told.requests / told.seconds)
        self.events_per_second.append(told.events / told.seconds)
        if told.total_ms.p50:
            self.total_ms.append(told.total_ms.p50)
            self.first_ms.append(told.first_ms.p50)
        if told.total_ms.p50 and direct_ms is not None:
            self.added_ms.append(told.total_ms.p50 - direct_ms)
        if told.delay_ms.p50:
            self.delay_ms.append(told.delay_ms.p50)
            self.delay_p99_ms.append(told.delay_ms.p99)
        if told.gap_ms.p99:
            self.gap_p99_ms.append(told.gap_ms.p99)
        if cpu_seconds is not None:
            self.cpu_us_per_request.append(cpu_seconds / told.all_requests * US_PER_SECOND)
        if cpu_seconds is not None and told.all_events:
            self.cpu_us_per_event.append(cpu_seconds / told.all_events * US_PER_SECOND)


Findings = Mapping[Workload, Mapping[str, Seen]]


def workloads() -> list[Workload]:
    """All of them, each for one client, for sixteen and for sixty-four."""
    kinds = (
        (REQUEST_TITLE, Kind(BURST, False), 16),
        (f"mock: stream of {BURST_EVENTS}, at once", Kind(BURST, True), 16),
        (PACED_TITLE, Kind(PACED, True), 16),
        ("demo model: request of 8 tokens", Kind(DEMO, False), 8),
        (DEMO_STREAM_TITLE, Kind(DEMO, True), 32),
    )
    return [Workload(title, kind, clients, tokens) for title, kind, tokens in kinds for clients in CLIENTS]


def found(findings: Findings, title: str, clients: int, way: str) -> Seen:
    """What was seen there; nothing, if that was not run."""
    for workload, ways in findings.items():
        if workload.title == title and workload.clients == clients:
            return ways.get(way, Seen())
    return Seen()


def samples_of(findings: Findings) -> dict[str, Sequence[float]]:
    """Raw figures by name."""
    names = [each.name for each in fields(Seen) if each.name not in ("failures", "requests")]
    return {
        f"{workload.title}, {workload.clients} clients, {way}: {name}": getattr(seen, name)
        for workload, ways in findings.items()
        for way, seen in ways.items()
        for name in names
    }
