"""What requests are charged of the energy that their instances draw, where the configuration says how much that is; else nothing is claimed.

The method, `modelled:busy_share`: while an instance works on requests it draws `busy_watts`, in each moment shared equally among those that
are at it, so that their charges add up to the power times the time in which there was any. What it draws while there is none is charged to nobody.
"""

from __future__ import annotations

from typing import NamedTuple

from supervisor.clock import Clock
from supervisor.config.settings import Settings

METHOD = "modelled:busy_share"
JOULES_PER_KWH = 3_600_000
MILLI = 1_000
MICRO = 1_000_000


class Charge(NamedTuple):
    """What one request is charged; `co2_micrograms` is None where nobody said what a kilowatt hour emits."""

    millijoules: int
    co2_micrograms: int | None

    def plus(self, other: Charge) -> Charge:
        """Both: of one that was at two instances."""
        grams = (self.co2_micrograms, other.co2_micrograms)
        return Charge(self.millijoules + other.millijoules, None if None in grams else sum(each or 0 for each in grams))


class BusyMeter:
    """One instance. `joules` it has drawn while it was busy; at a time when nobody began or ended, ask for `joules_until`."""

    __slots__ = ("_at", "_share", "active", "joules", "watts")

    def __init__(self, watts: float) -> None:
        self.watts = watts
        self.active = 0
        self.joules = 0.0
        # What one that had been there all the time would have been charged: each is charged by how much it grew meanwhile.
        self._share = 0.0
        self._at = 0.0

    def begin(self, now: float) -> float:
        """One more is at it, `now` (monotonic seconds); pair the answer with `end`."""
        self._catch_up(now)
        self.active += 1
        return self._share

    def end(self, begun: float, now: float) -> float:
        """It is not any more: its charge, joules."""
        self._catch_up(now)
        self.active -= 1
        return self._share - begun

    def joules_until(self, now: float) -> float:
        """As `joules`, with what is being drawn."""
        self._catch_up(now)
        return self.joules

    def retune(self, watts: float, now: float) -> None:
        """From `now` on it draws so much."""
        self._catch_up(now)
        self.watts = watts

    def _catch_up(self, now: float) -> None:
        if self.active:
            drawn = self.watts * (now - self._at)
            self.joules += drawn
            self._share += drawn / self.active
        self._at = now


class EnergyBook:
    """The meters of the instances whose power is known; all methods are for the loop's thread."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._meters: dict[str, BusyMeter] = {}
        self._watts: dict[str, float] = {}
        self._grams_per_kwh: float | None = None
        self.retune(settings)

    @property
    def is_on(self) -> bool:
        """Whether anything is known of anybody's power."""
        return bool(self._watts)

    def retune(self, settings: Settings) -> None:
        """Take new figures, for the time from now on."""
        now, energy = self._clock.monotonic(), settings.energy
        self._grams_per_kwh = energy.co2_grams_per_kwh
        watts = {name: own.busy_watts or energy.busy_watts for name, own in settings.instances.items()}
        self._watts = {name: figure for name, figure in watts.items() if figure is not None}
        for name, meter in self._meters.items():
            meter.retune(self._watts.get(name, 0.0), now)

    def begin(self, instance: str) -> float | None:
        """A request is at an instance; pair the answer with `end`. None: nothing is known of its power."""
        watts = self._watts.get(instance)
        if watts is None:
            return None
        meter = self._meters.get(instance)
        if meter is None:
            meter = self._meters[instance] = BusyMeter(watts)
        return meter.begin(self._clock.monotonic())

    def end(self, instance: str, begun: float) -> Charge:
        """It has left, and is charged this."""
        joules = self._meters[instance].end(begun, self._clock.monotonic())
        grams_per_kwh = self._grams_per_kwh
        grams = None if grams_per_kwh is None else joules / JOULES_PER_KWH * grams_per_kwh
        return Charge(round(joules * MILLI), None if grams is None else round(grams * MICRO))

    def joules(self) -> dict[str, float]:
        """What each instance has drawn while it was busy, until now."""
        now = self._clock.monotonic()
        return {name: meter.joules_until(now) for name, meter in self._meters.items()}
