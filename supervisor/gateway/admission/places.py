"""How many requests an instance works on at once, and whether it is trusted with more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supervisor.config.engine_settings import EmbeddedEngine, LlamaServerEngine
from supervisor.config.settings import InstanceSettings
from supervisor.process.instance import Instance

# What llama.cpp's server makes of itself when nobody says how many.
LLAMA_DEFAULT_SLOTS = 4
# Engines that batch by themselves, and servers of which nothing is known: they have a line of their own.
UNKNOWN_LIMIT = 256
FAILURES_BEFORE_EJECTION = 3
EJECTION_SECONDS = 5.0
EJECTION_LIMIT_SECONDS = 60.0


def in_flight_limit(settings: InstanceSettings, per_slot: int) -> int:
    """Requests that are passed to the engine at once: `max_in_flight`, else `per_slot` times its slots.

    Twice the slots keeps every slot busy while an answer is on its way; more makes llama.cpp wake every waiting connection at every token, which
    halves its throughput (measured).
    """
    if settings.max_in_flight is not None:
        return settings.max_in_flight
    if isinstance(settings.engine, EmbeddedEngine | LlamaServerEngine):
        return per_slot * (settings.engine.parallel or LLAMA_DEFAULT_SLOTS)
    return UNKNOWN_LIMIT


@dataclass(slots=True)
class Places:
    """The places of one instance. `failures` in a row; until `ejected_until` (monotonic seconds) it is passed over where another can serve."""

    instance: Instance
    limit: int
    taken: int = 0
    failures: int = 0
    ejected_until: float = float("-inf")

    @property
    def is_free(self) -> bool:
        """Whether it can take one more now."""
        return self.taken < self.limit and self.instance.accepts_requests

    def note(self, now: float, *, failed: bool) -> None:
        """A request to it has ended; failures in a row eject it, each time for twice as long."""
        if not failed:
            self.failures = 0
            return
        self.failures += 1
        beyond = self.failures - FAILURES_BEFORE_EJECTION
        if beyond >= 0:
            self.ejected_until = now + min(EJECTION_LIMIT_SECONDS, EJECTION_SECONDS * 2 ** min(beyond, 10))


def choose(candidates: Sequence[Places], now: float) -> Places | None:
    """The free one with the fewest requests under way; one that fails only when there is no other. None: all are busy, or none is ready."""
    free = [places for places in candidates if places.is_free]
    if len(free) < 2:
        return free[0] if free else None
    trusted = [places for places in free if places.ejected_until <= now]
    return min(trusted or free, key=_load)


_load: Callable[[Places], tuple[int, int]] = lambda places: (places.taken, places.instance.requests_active)  # noqa: E731
