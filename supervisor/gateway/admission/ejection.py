"""Passive health of a replica: one that keeps failing is left alone for a while, and for twice as long each time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_DOUBLING = 30


@dataclass(frozen=True, slots=True)
class EjectionFigures:
    """`failures` in a row eject a replica for `first_seconds`; each time that it fails on its return doubles that, up to `longest_seconds`."""

    failures: int = 3
    first_seconds: float = 10.0
    longest_seconds: float = 300.0


class Ejection:
    """What is remembered of one replica. It is out (`is_out`) from the failure that ejects it until `returns` or a success says otherwise."""

    __slots__ = ("_failures", "_times", "is_out")

    def __init__(self) -> None:
        self._failures = 0
        self._times = 0
        self.is_out = False

    def failed(self, figures: EjectionFigures) -> float | None:
        """Count a failure. Seconds for which the replica is out from now on; None when this failure does not eject it.

        Those who were on their way when it was ejected fail too, and tell nothing new.
        """
        if self.is_out:
            return None
        self._failures += 1
        if self._failures < figures.failures:
            return None
        self.is_out = True
        self._times += 1
        return min(figures.longest_seconds, figures.first_seconds * 2.0 ** min(self._times - 1, LARGEST_DOUBLING))

    def succeeded(self) -> None:
        """It serves: all is forgotten."""
        self._failures = 0
        self._times = 0
        self.is_out = False

    def returns(self) -> None:
        """Its time is over: it is tried again, and the next failure ejects it anew."""
        self.is_out = False
