"""The words of supervision: states, reasons, exit statuses and causes. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The six states of an instance (`contracts.md` §1)."""

    INITIAL = "initial"
    STARTING = "starting"
    READY = "ready"
    CRASHED = "crashed"
    ERROR = "error"
    STOPPING = "stopping"


class Reason(StrEnum):
    """Machine codes for why an instance is not serving."""

    OOM = "oom"
    GPU_LOST = "gpu_lost"
    PORT_IN_USE = "port_in_use"
    STRANGER = "stranger"
    BAD_MODEL = "bad_model"
    BAD_FLAGS = "bad_flags"
    MISSING_BINARY = "missing_binary"
    NOT_EXECUTABLE = "not_executable"
    SPAWN_FAILED = "spawn_failed"
    START_TIMEOUT = "start_timeout"
    UNRESPONSIVE = "unresponsive"
    WEDGED = "wedged"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    EXITED_UNKNOWN = "exited_unknown"
    ADOPTED_EXITED = "adopted_exited"
    NOT_ANSWERING = "not_answering"
    UNKILLABLE = "unkillable"
    WATCH_FAILED = "watch_failed"


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: exactly one of `code` and `signal`; both None when it was not our child, so that nobody could tell."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        return "exited" if self.code is None else f"exited with code {self.code}"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an instance crashed or cannot start.

    `reason` for programs, `message` for people, `remedy` a sentence that says what would help; `permanent`: no retry helps;
    `output_tail` the last lines of the process's stderr (of its stdout when stderr said nothing), escaped.
    """

    reason: Reason
    message: str
    remedy: str | None = None
    permanent: bool = False
    exit: ExitStatus | None = None
    output_tail: tuple[str, ...] = ()
