"""What the instances' processes use of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.clock import Clock
from supervisor.process import posix

# Two dashboards asking in the same breath must not halve the interval that the share is measured over.
SHORTEST_INTERVAL_SECONDS = 0.5
PERCENT = 100


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident memory in bytes and processor share in percent of one core (200: two cores), since the reading before."""

    memory_bytes: int = 0
    cpu_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetUsage:
    """The whole fleet, and each instance by name."""

    memory_bytes: int = 0
    cpu_percent: float = 0.0
    instances: Mapping[str, Usage] = field(default_factory=dict)


class UsageMeter:
    """Reads usage on demand; the processor share is that since the reading before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read_at = float("-inf")
        self._cpu_seconds: dict[tuple[str, int], float] = {}
        self._latest = FleetUsage()

    def read(self, pids_by_instance: Mapping[str, list[int]]) -> FleetUsage:
        """The usage now; at most every half second anew."""
        now = self._clock.monotonic()
        interval = now - self._read_at
        if interval < SHORTEST_INTERVAL_SECONDS:
            return self._latest
        before, self._cpu_seconds = self._cpu_seconds, {}
        readings = {name: self._read_one(name, pids, before, interval) for name, pids in pids_by_instance.items()}
        self._read_at = now
        self._latest = FleetUsage(
            memory_bytes=sum(usage.memory_bytes for usage in readings.values()),
            cpu_percent=round(sum(usage.cpu_percent for usage in readings.values()), 1),
            instances=readings,
        )
        return self._latest

    def _read_one(
        self, name: str, pids: list[int], before: Mapping[tuple[str, int], float], interval_seconds: float
    ) -> Usage:
        used = 0.0
        for pid in pids:
            seconds = posix.cpu_seconds([pid])
            self._cpu_seconds[name, pid] = seconds
            used += seconds - before.get((name, pid), seconds)
        return Usage(posix.memory_bytes(pids), round(max(0.0, used) / interval_seconds * PERCENT, 1))
