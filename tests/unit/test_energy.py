"""Energy: what requests are charged adds up to what was drawn, and nothing is claimed where nobody gave a figure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import Settings
from supervisor.gateway.observing.energy import BusyMeter, Charge, EnergyBook
from supervisor.testing import FakeClock

WATTS = 100.0
STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "look"]), st.floats(0, 1_000), st.integers(0, 5)), max_size=60
)


def book(clock: FakeClock, energy: dict[str, Any], **instance: Any) -> EnergyBook:
    return EnergyBook(settings(energy, **instance), clock)


def settings(energy: dict[str, Any], **instance: Any) -> Settings:
    return Settings.model_validate({"energy": energy, "instances": {"one": {"model": "demo", **instance}}})


@given(STEPS)
def test_charges_add_up_to_the_power_times_the_busy_time(steps: list[tuple[str, float, int]]) -> None:
    meter, now, busy_seconds = BusyMeter(WATTS), 0.0, 0.0
    present: list[tuple[float, float]] = []
    charges: list[float] = []
    for action, seconds, which in [*steps, *[("end", 1.0, 0)] * len(steps)]:
        busy_seconds += seconds if present else 0.0
        now += seconds
        if action == "begin":
            present.append((meter.begin(now), now))
        elif action == "end" and present:
            begun, since = present.pop(which % len(present))
            charges.append(meter.end(begun, now))
            assert -1e-6 <= charges[-1] <= WATTS * (now - since) + 1e-6
        else:
            meter.joules_until(now)
    assert not present
    assert sum(charges) == pytest.approx(WATTS * busy_seconds)
    assert meter.joules == pytest.approx(WATTS * busy_seconds)


def test_two_at_a_time_share_and_who_is_alone_pays_alone() -> None:
    clock = FakeClock()
    energy = book(clock, {"busy_watts": WATTS, "co2_grams_per_kwh": 360.0})
    clock.advance(1_000)
    first = energy.begin("one")
    clock.advance(10)
    second = energy.begin("one")
    clock.advance(4)
    assert (first, second) == (0.0, 1_000.0)
    assert energy.end("one", first or 0.0) == Charge(1_200_000, 120_000)
    assert energy.end("one", second or 0.0) == Charge(200_000, 20_000)
    clock.advance(1_000)
    assert energy.joules() == {"one": 1_400.0}


def test_without_a_figure_nothing_is_claimed() -> None:
    clock = FakeClock()
    assert not book(clock, {"co2_grams_per_kwh": 400.0}).is_on
    assert book(clock, {"co2_grams_per_kwh": 400.0}).begin("one") is None
    unknown_grid = book(clock, {}, busy_watts=WATTS)
    begun = unknown_grid.begin("one")
    clock.advance(1)
    assert begun is not None
    assert unknown_grid.end("one", begun) == Charge(100_000, None)


def test_new_figures_hold_from_then_on() -> None:
    clock = FakeClock()
    energy = book(clock, {"busy_watts": WATTS})
    begun = energy.begin("one")
    clock.advance(1)
    energy.retune(settings({"busy_watts": WATTS}, busy_watts=2 * WATTS))
    clock.advance(1)
    energy.retune(settings({}))
    clock.advance(1)
    assert begun is not None
    assert energy.end("one", begun).millijoules == 300_000
    assert not energy.is_on
