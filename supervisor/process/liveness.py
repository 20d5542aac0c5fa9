"""Judges of a ready server: does it answer, and does it still decode? Pure: fed with observations, told the time, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor.process.stall import StallTimer

# An overloaded host gives an honest prefill little, and a deadlock burns nothing at all.
BUSY_CORES = 0.1


class Verdict(StrEnum):
    """What a judge makes of an observation. DOUBT: only a canary can tell."""

    OK = "ok"
    DOUBT = "doubt"
    UNRESPONSIVE = "unresponsive"
    WEDGED = "wedged"


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of a server at one moment.

    `advancing`: their sum, which grows with each decode; `busy`: requests being worked on or waiting; `free_slots`: how many requests it could begin
    at once, None when it does not say. `answered` False: the page did not come within its deadline, and the figures mean nothing. llama.cpp answers
    that page from its decoding loop, so this is what a wedge looks like there.
    """

    advancing: float = 0.0
    busy: float = 0.0
    free_slots: int | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of a server at `now` (monotonic seconds).

    `counters` is None when the engine has none. `requests_active_here`: requests that we passed to it and that have not ended.
    `cpu_seconds`: processor time that its processes have used so far; 0 when nobody can tell (a server elsewhere).
    `last_byte_at`: when bytes of an answer last came through us.
    """

    now: float
    counters: Counters | None
    requests_active_here: int
    cpu_seconds: float
    last_byte_at: float = float("-inf")


class LivenessJudge:
    """Counts health probes missed in a row. One answer forgives all, so that a flapping server is left alone (row 14)."""

    def __init__(self, misses_allowed: int) -> None:
        self._misses_allowed = misses_allowed
        self.misses = 0

    def observe(self, ok: bool) -> Verdict:
        """Take one probe in: UNRESPONSIVE from the `misses_allowed`-th miss in a row on."""
        self.misses = 0 if ok else self.misses + 1
        return Verdict.UNRESPONSIVE if self.misses >= self._misses_allowed else Verdict.OK


class ProgressJudge:
    """Tells a wedged server from a slow one (rows 17, 18).

    Requests are active and nothing has moved — no counter, no byte through us — for `wedge_seconds`, or for `busy_seconds` when the process
    burns at least a tenth of a core meanwhile, as a long prompt read in one big batch does. Then: DOUBT; but WEDGED when every slot is
    taken, since a canary would only queue behind them (and where nobody can tell whether the processor is busy, that takes `busy_seconds` too).
    """

    def __init__(self, wedge_seconds: float, busy_seconds: float) -> None:
        self._wedge_seconds = wedge_seconds
        self._busy_seconds = busy_seconds
        self._stall: StallTimer | None = None
        self._last: Observation | None = None
        self._advancing: float | None = None
        self._cpu_at_last_move = 0.0

    def observe(self, observation: Observation) -> Verdict:
        """Take one observation in; `now` must not go back."""
        moved = self._has_moved(observation)
        active = self._is_active(observation)
        self._remember(observation)
        if self._stall is None or moved or not active:
            self._restart(observation.now, observation.cpu_seconds)
            return Verdict.OK
        all_taken = _every_slot_is_taken(observation)
        if self._stall.still(observation.now) < self._limit_seconds(observation, all_taken):
            return Verdict.OK
        return Verdict.WEDGED if all_taken else Verdict.DOUBT

    def canary_answered(self, now: float) -> None:
        """A canary came back: it decodes. The next doubt is a whole stall away."""
        self._restart(now, self._last.cpu_seconds if self._last else 0.0)

    def _restart(self, now: float, cpu_seconds: float) -> None:
        self._cpu_at_last_move = cpu_seconds
        if self._stall is None:
            self._stall = StallTimer(self._wedge_seconds, now)
        self._stall.moved(now)

    def _has_moved(self, observation: Observation) -> bool:
        if self._last is not None and observation.last_byte_at > self._last.now:
            return True
        counters = observation.counters
        return counters is not None and counters.answered and counters.advancing != self._advancing

    def _is_active(self, observation: Observation) -> bool:
        if observation.requests_active_here > 0:
            return True
        counters = observation.counters
        # A page that stays silent hides whether somebody else's request is stuck: take it that one is, the canary will tell.
        return counters is not None and (not counters.answered or counters.busy > 0)

    def _remember(self, observation: Observation) -> None:
        self._last = observation
        if observation.counters is not None and observation.counters.answered:
            self._advancing = observation.counters.advancing

    def _limit_seconds(self, observation: Observation, all_taken: bool) -> float:
        if observation.cpu_seconds <= 0:
            return self._busy_seconds if all_taken else self._wedge_seconds
        stalled_seconds = self._stall.seconds if self._stall else 0.0
        burnt_seconds = observation.cpu_seconds - self._cpu_at_last_move
        return self._busy_seconds if burnt_seconds >= BUSY_CORES * stalled_seconds else self._wedge_seconds


def _every_slot_is_taken(observation: Observation) -> bool:
    counters = observation.counters
    return counters is not None and counters.answered and counters.free_slots == 0
