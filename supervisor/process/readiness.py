"""When to ask a starting server whether it is ready, and when to give it up. Pure: fed with monotonic seconds."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.process.stall import StallTimer

DELAY_GROWTH = 1.5
# What /proc says of a mapped file jitters by single pages; a model that is being read grows by much more.
LEAST_GROWTH = 1e-4


def probe_delays(minimum_seconds: float, maximum_seconds: float) -> Iterator[float]:
    """Pauses between readiness probes, without end: from `minimum_seconds`, growing by half each time, to `maximum_seconds`."""
    delay_seconds = min(minimum_seconds, maximum_seconds)
    while True:
        yield delay_seconds
        delay_seconds = min(delay_seconds * DELAY_GROWTH, maximum_seconds)


class StartDeadline:
    """Expires `seconds` after the last sign of progress, so that a slow load is never cut off while it moves (rows 15, 16).

    Signs are output of the process and growth of the loaded share. Start it with the process: `now` is the first sign.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._limit_seconds = seconds
        self._stall = StallTimer(seconds, now)
        self._last_output_at = now
        self._best_fraction = 0.0

    def note_output(self, last_output_at: float | None, now: float) -> None:
        """Tell when the process last printed something (monotonic seconds; None: never)."""
        if last_output_at is not None and last_output_at > self._last_output_at:
            self._last_output_at = last_output_at
            self._stall.moved(now)

    def note_fraction(self, fraction: float, now: float) -> None:
        """Tell the loaded share, 0 to 1. Only more than ever before is progress: a share that swings is none."""
        if fraction > self._best_fraction + LEAST_GROWTH:
            self._best_fraction = fraction
            self._stall.moved(now)

    def expired(self, now: float) -> bool:
        """Whether the start has failed. Ask regularly, after the notes of the same round."""
        return self._stall.still(now) >= self._limit_seconds
