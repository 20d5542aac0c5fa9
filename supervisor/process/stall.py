"""How long nothing has moved, as far as we were awake to see it. Pure: fed with monotonic seconds."""

from __future__ import annotations

PAUSE_SHARE_OF_LIMIT = 0.25


class StallTimer:
    """Seconds without progress.

    A gap between two observations that is longer than a quarter of `limit_seconds` means that we, not the server, were paused (a suspended
    laptop, a stopped supervisor): the first such gap in a stall does not count (row 30). Only the first, so that observations that are always far
    apart still come to an end.
    """

    def __init__(self, limit_seconds: float, now: float) -> None:
        self._pause_seconds = limit_seconds * PAUSE_SHARE_OF_LIMIT
        self._observed_at = now
        self._had_grace = False
        self.seconds = 0.0

    def moved(self, now: float) -> None:
        """Something moved: the stall is over."""
        self._observed_at = now
        self._had_grace = False
        self.seconds = 0.0

    def still(self, now: float) -> float:
        """Nothing moved since the last observation; the length of the stall by now, in seconds."""
        gap_seconds = max(0.0, now - self._observed_at)
        self._observed_at = now
        if gap_seconds > self._pause_seconds and not self._had_grace:
            self._had_grace = True
        else:
            self.seconds += gap_seconds
        return self.seconds
