"""The tables of the gateway benchmark, and its goals beside what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks._findings import DEMO_STREAM_TITLE, PACED_TITLE, REQUEST_TITLE, Findings, Seen, found
from benchmarks._processors import Memory
from benchmarks._results import NOTHING, Table, median, middle, spread
from benchmarks._ways import BARE, DIRECT, LITELLM, NGINX, OURS


def request_table(findings: Findings) -> Table:
    """Requests that are answered in one piece."""
    columns = ("workload", "clients", "way", "requests/s", "median, ms", "added, ms", "CPU µs/request", "failed")
    rows = [
        (
            workload.title, str(workload.clients), way, spread(seen.requests_per_second, 0), middle(seen.total_ms, 3),
            spread(seen.added_ms, 3), spread(seen.cpu_us_per_request, 1), failures(seen),
        )
        for workload, ways in findings.items() if not workload.kind.stream for way, seen in ways.items()
    ]  # fmt: skip
    note = "Medians (quartiles) over the rounds; failed: of all requests, refused, torn or on a connection that had been closed."
    return Table("Requests", columns, tuple(rows), (note,))


def stream_table(findings: Findings) -> Table:
    """Streams."""
    columns = (
        "workload", "clients", "way", "events/s", "first event, ms", "added to all, ms", "event delay, ms", "its p99", "gap p99, ms",
        "CPU µs/event", "failed",
    )  # fmt: skip
    rows = [
        (
            workload.title, str(workload.clients), way, spread(seen.events_per_second, 0), middle(seen.first_ms, 3),
            spread(seen.added_ms, 3), middle(seen.delay_ms, 3), middle(seen.delay_p99_ms, 3), middle(seen.gap_p99_ms, 3),
            spread(seen.cpu_us_per_event, 1), failures(seen),
        )
        for workload, ways in findings.items() if workload.kind.stream for way, seen in ways.items()
    ]  # fmt: skip
    note = (
        "Event delay: from the moment at which the mock engine wrote it until the client read it. Gap: between two events of a stream. "
        "Llamavisor reads every event and judges it, asks for the usage and books it; the others copy bytes, or (LiteLLM) write them anew."
    )
    return Table("Streams", columns, tuple(rows), (note,))


def failures(seen: Seen) -> str:
    """How many failed, and of how many."""
    whole = seen.requests + seen.failures
    return f"{seen.failures:,} of {whole:,}" if seen.failures else "0"


def memory_table(memories: Mapping[str, Sequence[Memory]]) -> Table:
    """Memory after the warm-up and after the last load."""
    columns = ("way", "RSS at first, MiB", "RSS at last, MiB", "PSS at first, MiB", "PSS at last, MiB")
    rows = [
        (way, *(f"{value:.1f}" for value in (before.rss_mib, after.rss_mib, before.pss_mib, after.pss_mib)))
        for way, (before, after) in memories.items()
    ]
    note = "After the warm-up, and after the last load. All processes of the way (the bare proxy is three, one to each engine), engines left out."
    return Table("Memory", columns, tuple(rows), (note,))


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio that is to be at most, or at least, so much. `ratio` is None when what it needs was not run."""

    text: str
    limit: float
    is_at_most: bool
    ratio: Callable[[Findings], float | None]

    def row(self, findings: Findings) -> tuple[str, ...]:
        """Its line of the table."""
        ratio = self.ratio(findings)
        sign = "≤" if self.is_at_most else "≥"
        if ratio is None:
            return (self.text, f"{sign} {self.limit:g} ×", NOTHING, "not measured")
        is_met = ratio <= self.limit if self.is_at_most else ratio >= self.limit
        off = ratio / self.limit if self.is_at_most else self.limit / ratio
        return (
            self.text,
            f"{sign} {self.limit:g} ×",
            f"{ratio:.2f} ×",
            "met" if is_met else f"missed, by a factor of {off:.2f}",
        )


def quotient(title: str, clients: int, figure: str, other: str) -> Callable[[Findings], float | None]:
    """Our median of a figure as a multiple of another way's; None when either is not there."""

    def ratio(findings: Findings) -> float | None:
        one, two = (median(getattr(found(findings, title, clients, way), figure) or [0.0]) for way in (OURS, other))
        return one / two if one > 0 and two > 0 else None

    return ratio


GOALS = (
    Goal("CPU a request, 16 clients, of nginx", 2.5, True, quotient(REQUEST_TITLE, 16, "cpu_us_per_request", NGINX)),
    Goal("CPU a request, 16 clients, of bare aiohttp", 0.4, True, quotient(REQUEST_TITLE, 16, "cpu_us_per_request", BARE)),
    Goal("CPU an event, 64 streams, of nginx", 1.5, True, quotient(PACED_TITLE, 64, "cpu_us_per_event", NGINX)),
    Goal("added median, 1 client, of nginx", 2.0, True, quotient(REQUEST_TITLE, 1, "added_ms", NGINX)),
    Goal("requests/s, 16 clients, of LiteLLM", 100.0, False, quotient(REQUEST_TITLE, 16, "requests_per_second", LITELLM)),
    Goal(
        "events/s of the real engine, 64 streams, of direct", 1.5, False, quotient(DEMO_STREAM_TITLE, 64, "events_per_second", DIRECT)
    ),
)  # fmt: skip


def goals_table(findings: Findings) -> Table:
    """What was aimed at beside what was found."""
    lost = [ways[OURS].failures for workload, ways in findings.items() if workload.kind.stream and OURS in ways]
    failed = (
        "failed streams through Llamavisor",
        "0",
        str(sum(lost)) if lost else NOTHING,
        "not measured" if not lost else "missed" if sum(lost) else "met",
    )
    rows = [goal.row(findings) for goal in GOALS]
    return Table("Goals", ("what", "goal", "found", ""), (*rows, failed))
