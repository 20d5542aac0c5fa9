"""How long a wait will probably be. Pure: functions of what was learned, what is under way, and what is known of a load."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import State

FIRST_SERVICE_SECONDS = 2.0
"""What an answer takes before anybody has seen one."""


def service_seconds(learned: Sequence[float], ages: Sequence[float]) -> float:
    """How long a place is held: as long as was `learned` (the mean of each instance), or longer where those under way are older than that already."""
    usual = sum(learned) / len(learned) if learned else FIRST_SERVICE_SECONDS
    return sum(max(usual, age) for age in ages) / len(ages) if ages else usual


def turn_seconds(position: int, places: int, service: float) -> float:
    """Until whoever has that `position` (1 is next) gets one of so many places, all of them held."""
    return position * service / places


def load_seconds_left(snapshot: InstanceSnapshot) -> float | None:
    """Until a model is loaded, if it goes on as it went so far; None when nobody knows."""
    progress = snapshot.progress
    if snapshot.state is not State.STARTING or progress is None or not 0 < progress < 1:
        return None
    return snapshot.uptime_seconds * (1 - progress) / progress
