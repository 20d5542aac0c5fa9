"""How many requests an instance works on at once, and whether it is trusted with more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from supervisor.config.engine_settings import EmbeddedEngine, LlamaServerEngine
from supervisor.config.settings import InstanceSettings
from supervisor.process.instance import Instance
from supervisor.process.probe import Prober

# What llama.cpp's server makes of itself when nobody says how many.
LLAMA_DEFAULT_SLOTS = 4
# Engines that batch by themselves, and servers of which nothing is known: they have a line of their own.
UNKNOWN_LIMIT = 256
FAILURES_BEFORE_EJECTION = 3
EJECTION_SECONDS = 5.0
EJECTION_LIMIT_SECONDS = 60.0
ASK_SECONDS = 5.0
# Of the newest time in the running average.
SERVICE_WEIGHT = 0.1


def in_flight_limit(settings: InstanceSettings, per_slot: int, told_slots: int | None = None) -> int:
    """Requests that are passed to the engine at once: `max_in_flight`, else `per_slot` times its slots (`told_slots`: those that it told of itself).

    Twice the slots keeps every slot busy while an answer is on its way; more makes llama.cpp wake every waiting connection at every token, which
    halves its throughput (measured).
    """
    if settings.max_in_flight is not None:
        return settings.max_in_flight
    slots = configured_slots(settings) or told_slots
    return UNKNOWN_LIMIT if slots is None else per_slot * slots


def configured_slots(settings: InstanceSettings) -> int | None:
    """The slots that the settings tell; None: only the engine knows. An adopted server was not started with our settings."""
    if settings.url is None and isinstance(settings.engine, EmbeddedEngine | LlamaServerEngine):
        return settings.engine.parallel or LLAMA_DEFAULT_SLOTS
    return None


async def ask_slots(instance: Instance) -> int | None:
    """The slots that a ready engine tells of; None when it does not, or cannot be asked."""
    spec = instance.watch.spec if instance.watch is not None else None
    if spec is None or spec.probe.slots_path is None:
        return None
    prober = Prober(spec.address, spec.probe)
    try:
        slots = await prober.get_json(spec.probe.slots_path, ASK_SECONDS)
    finally:
        await prober.close()
    return len(slots) if isinstance(slots, list) and slots else None


@dataclass(eq=False, slots=True)
class Places:
    """The places of the instance of one name; they stay when another takes its place. `limit` follows from `settings` and `told_slots`.

    `began`: since when those that are taken are, by whoever has them (monotonic seconds); `service_seconds`: how long one is held, as was learned.
    `failures` in a row; until `ejected_until` (monotonic seconds) it is passed over where another can serve.
    """

    instance: Instance
    limit: int
    settings: InstanceSettings | None = None
    told_slots: int | None = None
    began: dict[object, float] = field(default_factory=dict)
    service_seconds: float | None = None
    failures: int = 0
    ejected_until: float = float("-inf")

    @property
    def taken(self) -> int:
        """How many are."""
        return len(self.began)

    @property
    def slots(self) -> int:
        """How many requests the engine works on side by side, as far as is known."""
        known = (None if self.settings is None else configured_slots(self.settings)) or self.told_slots
        return self.limit if known is None else min(self.limit, known)

    @property
    def is_free(self) -> bool:
        """Whether it can take one more now."""
        return self.taken < self.limit and self.instance.accepts_requests

    def move_to(self, instance: Instance) -> None:
        """Another instance has the name now. What is `taken` at the one before is given back by those who have it."""
        self.instance = instance
        self.forget()

    def forget(self) -> None:
        """What was learned of a process that is not there any more."""
        self.failures, self.ejected_until = 0, float("-inf")
        self.settings, self.told_slots = None, None

    def learn(self, seconds: float) -> None:
        """One was held for so long."""
        before = seconds if self.service_seconds is None else self.service_seconds
        self.service_seconds = before + SERVICE_WEIGHT * (seconds - before)

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
