"""What went through the door: requests by outcome, tokens, times. In memory, per instance, since the start of the supervisor."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.clock import Clock
from supervisor.errors import EngineDeadlineError, EngineDiedError, RequestCancelledError

TOKEN_WINDOW_SECONDS = 10
RESPONSE_WINDOW_SECONDS = 60
MILLISECONDS = 1_000


class Outcome(StrEnum):
    """How a request ended.

    `ok`: complete answer. `client_gone`: the client left, or did not read. `engine_died`: the process or the connection was lost. `engine_error`: the
    engine said that it failed. `cut`: a stream that ended, but not as a whole answer. `timeout`: the engine said nothing for too long, or the
    time that the client gave was over. `refused`: not served: the instance is not ready, or the engine found the request wrong. `cancelled`: somebody
    who may do so ended it.
    """

    OK = "ok"
    CLIENT_GONE = "client_gone"
    ENGINE_DIED = "engine_died"
    ENGINE_ERROR = "engine_error"
    CUT = "cut"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """The figures of one instance or of several together.

    `tokens_*` are generated tokens: since the start, and per second over the last 10 s. `average_response_ms` is over the complete answers of the
    last 60 s, 0.0 when there were none. `queued` requests wait for a place, or for the model.
    """

    requests_total: int
    by_outcome: Mapping[str, int]
    tokens_total: int
    tokens_per_second: float
    average_response_ms: float
    active: int
    queued: int


class Window:
    """Sum and number of what was added within the last so many seconds, to the second."""

    __slots__ = ("_buckets", "_seconds")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._buckets: deque[list[float]] = deque()

    def add(self, now: float, amount: float) -> None:
        """Add an amount at `now` (monotonic seconds, never before an earlier one)."""
        second = now // 1
        if not self._buckets or self._buckets[-1][0] != second:
            self._forget(second)
            self._buckets.append([second, 0.0, 0.0])
        self._buckets[-1][1] += amount
        self._buckets[-1][2] += 1

    def read(self, now: float) -> tuple[float, float]:
        """The sum and the number."""
        self._forget(now // 1)
        return sum(bucket[1] for bucket in self._buckets), sum(bucket[2] for bucket in self._buckets)

    def _forget(self, second: float) -> None:
        while self._buckets and self._buckets[0][0] <= second - self._seconds:
            self._buckets.popleft()


@dataclass(slots=True)
class _Counts:
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    tokens_total: int = 0
    active: int = 0
    tokens: Window = field(default_factory=lambda: Window(TOKEN_WINDOW_SECONDS))
    responses: Window = field(default_factory=lambda: Window(RESPONSE_WINDOW_SECONDS))


class Record:
    """One request while it is served. It has exactly one outcome: the first that is told."""

    __slots__ = ("_clock", "_counts", "_tokens", "outcome", "started_at")

    def __init__(self, counts: _Counts, clock: Clock, started_at: float | None) -> None:
        self._counts = counts
        self._clock = clock
        self._tokens = 0
        self.outcome: Outcome | None = None
        self.started_at = clock.monotonic() if started_at is None else started_at

    @property
    def milliseconds(self) -> float:
        """Time since the request began."""
        return (self._clock.monotonic() - self.started_at) * MILLISECONDS

    def count_tokens(self, total: int) -> None:
        """So many tokens have been generated for this request so far; a later figure corrects an earlier one."""
        new = total - self._tokens
        if new:
            self._tokens = total
            self._counts.tokens_total += new
            self._counts.tokens.add(self._clock.monotonic(), new)

    def end(self, error: BaseException | None) -> None:
        """The request is over, once: an exception settles it, and none means that all went well, unless its outcome is known better."""
        self.settle(Outcome.OK if error is None else outcome_of(error))
        self._counts.active -= 1

    def settle(self, outcome: Outcome) -> None:
        """Tell the outcome; what comes later changes nothing."""
        if self.outcome is None:
            self.outcome = outcome
            self._counts.outcomes[outcome] += 1
            if outcome is Outcome.OK:
                self._counts.responses.add(self._clock.monotonic(), self.milliseconds)


class TrafficStats:
    """The counts of every instance, by its name. `waiting_for` tells how many requests wait for one."""

    def __init__(self, clock: Clock, waiting_for: Callable[[str], int] = lambda instance: 0) -> None:
        self._clock = clock
        self._waiting_for = waiting_for
        self._counts: dict[str, _Counts] = {}

    def begin(self, instance: str, started_at: float | None = None) -> Record:
        """Count one request until its `end`; `started_at` (monotonic seconds) if it began before now."""
        counts = self._counts.get(instance)
        if counts is None:
            counts = self._counts[instance] = _Counts()
        counts.active += 1
        return Record(counts, self._clock, started_at)

    def figures(self, instances: Iterable[str]) -> TrafficFigures:
        """The figures of these instances together; names that are not known have had no traffic."""
        now, instances = self._clock.monotonic(), list(instances)
        chosen = [self._counts[name] for name in instances if name in self._counts]
        outcomes: Counter[Outcome] = sum((counts.outcomes for counts in chosen), Counter())
        spent, answers = (
            sum(column) for column in zip((0.0, 0.0), *(one.responses.read(now) for one in chosen), strict=True)
        )
        return TrafficFigures(
            requests_total=outcomes.total(),
            by_outcome={outcome.value: outcomes[outcome] for outcome in Outcome},
            tokens_total=sum(counts.tokens_total for counts in chosen),
            tokens_per_second=sum(max(0.0, counts.tokens.read(now)[0]) for counts in chosen) / TOKEN_WINDOW_SECONDS,
            average_response_ms=round(spent / answers, 3) if answers else 0.0,
            active=sum(counts.active for counts in chosen),
            queued=sum(map(self._waiting_for, instances)),
        )


def outcome_of(error: BaseException) -> Outcome:
    """The outcome that an exception stands for. Who leaves cancels the request, or breaks the connection that is written to."""
    if isinstance(error, EngineDeadlineError):
        return Outcome.TIMEOUT
    if isinstance(error, EngineDiedError):
        return Outcome.ENGINE_DIED
    if isinstance(error, RequestCancelledError):
        return Outcome.CANCELLED
    gone = isinstance(error, asyncio.CancelledError | ConnectionError)
    return Outcome.CLIENT_GONE if gone else Outcome.REFUSED
