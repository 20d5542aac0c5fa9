"""How long places are held, and what that means for who waits. Pure."""

from __future__ import annotations

NEWEST_SHARE = 0.1
"""Weight of the newest figure in the running average: some ten requests make it forget what was."""


class Pace:
    """A running average of the seconds for which a place is held; None before the first."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds: float | None = None

    def add(self, seconds: float) -> None:
        """Take in one request's time."""
        self.seconds = seconds if self.seconds is None else self.seconds + NEWEST_SHARE * (seconds - self.seconds)

    def wait_seconds(self, position: int, places: int) -> float | None:
        """How long who stands at `position` (1 is next) may have to wait, all places being taken; None when nobody can tell."""
        if self.seconds is None or not places:
            return None
        return self.seconds * position / places
