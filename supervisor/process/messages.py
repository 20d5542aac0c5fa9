"""What the owner task of an instance is told (messages), and what its lifecycle wants done (effects). Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor.process.states import Cause, State


@dataclass(frozen=True, slots=True)
class Start:
    """Someone wants the instance to run."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Someone wants it to stop; an adopted server is only let go unless `kill_adopted`."""

    kill_adopted: bool = False


@dataclass(frozen=True, slots=True)
class Unload:
    """Someone needs its place, or nobody it: stop, if it is in one of `states` and no request is under way when this is taken.

    `why` is for people, and follows "was unloaded: ".
    """

    states: frozenset[State]
    why: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop, then start, as one request."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The server of this generation answered a readiness probe; `adopted`: it is not ours."""

    generation: int
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class Exited:
    """The process of this generation is gone (its descendants may not be)."""

    generation: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Failed:
    """The watch gave this generation up: unresponsive, wedged, start_timeout. Its process may still run."""

    generation: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class CannotStart:
    """This generation cannot start, and no retry helps."""

    generation: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Gone:
    """Every process of this generation is gone."""

    generation: int


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something of this generation survives SIGKILL."""

    generation: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A timer that an `Arm` effect set went off."""

    timer: Timer
    generation: int


class Timer(StrEnum):
    """The two timers of a lifecycle."""

    RETRY = "retry"
    STABLE = "stable"


Message = Start | Stop | Unload | Restart | Answered | Exited | Failed | CannotStart | Gone | Stuck | TimerDue


@dataclass(frozen=True, slots=True)
class Launch:
    """Adopt or spawn the server, watch it, and report with this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class End:
    """Stop watching this generation and end its processes; answer with `Gone` or `Stuck`.

    `graceful`: the stop signal and its grace first. `kill_adopted`: an adopted server too, which otherwise is only let go.
    """

    generation: int
    graceful: bool
    kill_adopted: bool = False


@dataclass(frozen=True, slots=True)
class Arm:
    """Send `TimerDue` after `delay_seconds`."""

    timer: Timer
    generation: int
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Disarm:
    """Forget this timer."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Changed:
    """The state moved: tell everybody."""

    state: State


Effect = Launch | End | Arm | Disarm | Changed
