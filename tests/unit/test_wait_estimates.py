"""How long a wait will be: never less than was learned, longer when those before are, and unknown when it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.gateway.admission.estimates import (
    FIRST_SERVICE_SECONDS,
    load_seconds_left,
    service_seconds,
    turn_seconds,
)
from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import State

LOADING = InstanceSnapshot(
    "one", "embedded", State.STARTING, 1, (), None, None, 0, 5, None, 0, None, 6.0, 0.75, 1, False, None, True, False, False, 0
)  # fmt: skip


@pytest.mark.parametrize(
    ("learned", "ages", "seconds"),
    [
        ([], [], FIRST_SERVICE_SECONDS),
        ([], [0.5], FIRST_SERVICE_SECONDS),
        ([], [16.0], 16.0),
        ([4.0], [1.0, 3.0], 4.0),
        ([4.0], [1.0, 8.0], 6.0),
        ([4.0, 8.0], [], 6.0),
    ],
)
def test_a_place_is_held_as_long_as_was_learned_or_as_it_is_already(
    learned: list[float], ages: list[float], seconds: float
) -> None:
    assert service_seconds(learned, ages) == seconds


def test_a_turn_comes_with_each_place_that_is_given_back() -> None:
    assert [turn_seconds(position, 2, 4.0) for position in (0, 1, 2, 3)] == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("state", "progress", "seconds"),
    [
        (State.STARTING, 0.75, 2.0),
        (State.STARTING, 0.0, None),
        (State.STARTING, None, None),
        (State.STARTING, 1.0, None),
        (State.CRASHED, None, None),
        (State.INITIAL, None, None),
    ],
)
def test_a_load_goes_on_as_it_went(state: State, progress: float | None, seconds: float | None) -> None:
    assert load_seconds_left(replace(LOADING, state=state, progress=progress)) == seconds
