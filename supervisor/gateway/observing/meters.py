"""Figures of the requests that were settled, by model and by project, for Prometheus. In memory, since the start of the supervisor.

They are counted once a request, from its usage record, so that they agree with the books; nothing is counted a token. Everything is in whole numbers:
sums of milliseconds with three digits would drift otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from supervisor.storage.records import Settlement, UsageRecord

OTHER = "other"
"""The label of everything that came when there were as many names as there may be."""

# From an answer of a cache to a prompt of a hundred thousand tokens on a processor.
DURATION_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FIRST_TOKEN_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
QUEUE_BUCKETS_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
# From 1,000 tokens a second to one in two seconds.
INTER_TOKEN_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0)
MICROS_PER_MILLISECOND = 1_000
MICROS_PER_SECOND = 1_000_000

Meters = TypeVar("Meters")


class Histogram:
    """How often values fell into each bucket. `sum_micros` is the sum of all of them, in microseconds."""

    __slots__ = ("_bounds_micros", "_counts", "bounds", "sum_micros")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._bounds_micros = [round(bound * MICROS_PER_SECOND) for bound in bounds]
        self._counts = [0] * (len(bounds) + 1)
        self.sum_micros = 0

    def observe(self, milliseconds: float) -> None:
        """Take one value in; it is kept to the microsecond."""
        # Rounds as `round` does not need to: values have three digits, or are means.
        micros = int(milliseconds * MICROS_PER_MILLISECOND + 0.5)
        self._counts[bisect_left(self._bounds_micros, micros)] += 1
        self.sum_micros += micros

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    @property
    def sum_seconds(self) -> float:
        """Their sum."""
        return self.sum_micros / MICROS_PER_SECOND

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus's buckets: each upper bound (inclusive, `+Inf` at last) with the number of values up to it."""
        total, buckets = 0, []
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class Used:
    """What requests came to. `by_outcome`: `Outcome`'s words. `cost_micros` is over those that have a price."""

    __slots__ = ("by_outcome", "cached_tokens", "completion_tokens", "cost_micros", "prompt_tokens")

    def __init__(self) -> None:
        self.by_outcome: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.cost_micros = 0

    def count(self, settlement: Settlement) -> None:
        """Count one request."""
        prompt, completion, cached, _ = settlement.usage
        self.by_outcome[settlement.outcome] += 1
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.completion_tokens += completion
        if settlement.cost_micros:
            self.cost_micros += settlement.cost_micros


class ModelMeters:
    """The figures of one model: what was used, and the times."""

    __slots__ = ("duration", "first_token", "inter_token", "queue_wait", "used")

    def __init__(self) -> None:
        self.used = Used()
        self.duration = Histogram(DURATION_BUCKETS_SECONDS)
        self.queue_wait = Histogram(QUEUE_BUCKETS_SECONDS)
        self.first_token = Histogram(FIRST_TOKEN_BUCKETS_SECONDS)
        self.inter_token = Histogram(INTER_TOKEN_BUCKETS_SECONDS)

    def count(self, settlement: Settlement, *, stream: bool) -> None:
        """Count one request. Only of a stream is it known when tokens came."""
        self.used.count(settlement)
        total_ms, first_ms = settlement.total_ms, settlement.first_byte_ms
        if total_ms is not None:
            self.duration.observe(total_ms)
        if settlement.queued_ms is not None:
            self.queue_wait.observe(settlement.queued_ms)
        if stream and first_ms is not None:
            self.first_token.observe(first_ms)
            following = settlement.usage.completion_tokens - 1
            if following > 0 and total_ms is not None:
                self.inter_token.observe(max(0.0, total_ms - first_ms) / following)


class _Named(Generic[Meters]):
    """Meters by name; when there are `limit` of them, the rest share one."""

    def __init__(self, make: type[Meters], limit: int) -> None:
        self.meters: dict[str, Meters] = {}
        self._make = make
        self._limit = limit

    def of(self, name: str) -> Meters:
        found = self.meters.get(name)
        return self._new(name) if found is None else found

    def _new(self, name: str) -> Meters:
        if len(self.meters) >= self._limit:
            name = OTHER
        return self.meters.setdefault(name, self._make())


class MeterBook:
    """See the module. `limit`: models, and projects, that have a name of their own; those that come later are `other`.

    `observe` is for `Bookkeeper.on_settled`, `refused` for `Bookkeeper.on_refused`.
    """

    def __init__(self, limit: int) -> None:
        self._models = _Named(ModelMeters, limit)
        self._projects = _Named(Used, limit)
        self._refusals: _Named[Counter[str]] = _Named(Counter, limit)

    @property
    def models(self) -> Mapping[str, ModelMeters]:
        """By the name under which the books have them: what the engine calls the model, else what was asked for."""
        return self._models.meters

    @property
    def projects(self) -> Mapping[str, Used]:
        """By the name of the project."""
        return self._projects.meters

    @property
    def refusals(self) -> Mapping[str, Mapping[str, int]]:
        """Requests that were refused at a limit or a budget, and are in no book: by the name of the project, then by code."""
        return self._refusals.meters

    def refused(self, project: str, code: str) -> None:
        """Count one of those."""
        self._refusals.of(project)[code] += 1

    def observe(self, record: UsageRecord) -> None:
        """Count a request that was settled."""
        request, settlement = record
        if settlement is not None:
            self._models.of(settlement.model or request.endpoint).count(settlement, stream=request.stream)
            self._projects.of(request.project).count(settlement)


def tokens_by_kind(used: Used) -> Iterable[tuple[str, int]]:
    """The tokens of each kind; `cached` are part of `prompt`."""
    return ("prompt", used.prompt_tokens), ("cached", used.cached_tokens), ("completion", used.completion_tokens)
