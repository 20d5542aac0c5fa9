"""What can be said of an instance at one moment, for every façade alike; and the sentences that say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from supervisor.process.states import Cause, State

MILLISECONDS = 1_000


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """One instance at one moment.

    `models` are in wire shape; times with `_ms` are unix milliseconds; `uptime_seconds` counts from the start of the process;
    `state_seq` counts the changes of state, so that who hears of 7 after 5 knows that something was missed;
    `progress` is 0 to 1 while loading, when known; `on_demand`: a request for it starts it;
    `unloaded` says why it was stopped without an order, as long as it is `stopping` or `initial` for that;
    `cause` explains `crashed` and `error`; `last_crash` stays after the recovery.
    """

    name: str
    engine: str
    state: State
    state_seq: int
    models: tuple[Mapping[str, Any], ...]
    cause: Cause | None
    last_crash: Cause | None
    retries: int
    max_retries: int
    next_retry_at_ms: int | None
    started_at_ms: int | None
    ready_at_ms: int | None
    uptime_seconds: float
    progress: float | None
    pid: int | None
    adopted: bool
    address: str | None
    required: bool
    survive_supervisor: bool
    remains: bool
    requests_active: int
    on_demand: bool = False
    unloaded: str | None = None
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_loading(self) -> bool:
        """The model is being loaded."""
        return self.state is State.STARTING

    def headline(self) -> str:
        """The sentence of the status card, without the countdown, which each client counts itself from `nextRetryAt`."""
        parts = [self.state.value]
        if self.cause is not None and self.state in (State.CRASHED, State.ERROR):
            parts.append(self.cause.message)
        if self.unloaded is not None and self.state in (State.STOPPING, State.INITIAL):
            parts.append(f"unloaded: {self.unloaded}")
        if self.state is State.STARTING and self.progress is not None:
            parts.append(f"loading, {self.progress:.0%}")
        if self.retries and self.state in (State.CRASHED, State.STARTING):
            parts.append(f"retry {self.retries}/{self.max_retries}")
        if self.state is State.READY and self.adopted:
            parts.append("adopted")
        return " — ".join(parts)

    def explanation(self) -> str:
        """*Why is it not ready?* in a sentence (and when it is: what that means)."""
        return _EXPLANATIONS[self.state](self)

    def to_wire(self) -> dict[str, Any]:
        """The `data` of `llamaStatus` (`contracts.md` §1): the original's keys first, then those beyond it."""
        cause = self.cause
        status = cause.exit if cause is not None else None
        return {
            "status": self.state.value,
            "models": [dict(model) for model in self.models],
            "lastError": cause.message if cause is not None else None,
            "retries": self.retries,
            "uptime": round(self.uptime_seconds, 3),
            "startedAt": _iso(self.started_at_ms),
            "isLoading": self.is_loading,
            "instance": self.name,
            "engine": self.engine,
            "pid": self.pid,
            "maxRetries": self.max_retries,
            "nextRetryAt": self.next_retry_at_ms,
            "reason": cause.reason.value if cause is not None else None,
            "remedy": cause.remedy if cause is not None else None,
            "exitCode": status.code if status is not None else None,
            "signal": status.signal if status is not None else None,
            "stderrTail": list(cause.output_tail) if cause is not None else [],
            "progress": self.progress,
            "adopted": self.adopted,
            "address": self.address,
            "headline": self.headline(),
            "explanation": self.explanation(),
            "required": self.required,
            "readyAt": _iso(self.ready_at_ms),
            "surviveSupervisor": self.survive_supervisor,
            "lastCrash": self.last_crash.message if self.last_crash is not None else None,
            "requestsActive": self.requests_active,
            "stateSeq": self.state_seq,
        }


def _iso(unix_ms: int | None) -> str | None:
    if unix_ms is None:
        return None
    moment = datetime.fromtimestamp(unix_ms / MILLISECONDS, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _explain_initial(snapshot: InstanceSnapshot) -> str:
    if snapshot.unloaded is not None:
        helps = "The next request for it loads it." if snapshot.on_demand else "Start it to use it."
        return f"{snapshot.name} was unloaded: {snapshot.unloaded}. {helps}"
    if snapshot.on_demand:
        return f"{snapshot.name} is not loaded now: the next request for it loads it."
    return (
        f"{snapshot.name} is not running because nobody has started it, or because it was stopped. Start it to use it."
    )


def _explain_starting(snapshot: InstanceSnapshot) -> str:
    again = f" This is retry {snapshot.retries} of {snapshot.max_retries}." if snapshot.retries else ""
    if snapshot.pid is None:
        return f"{snapshot.name} is about to be launched.{again}"
    share = f" ({snapshot.progress:.0%} of the model file is in)" if snapshot.progress is not None else ""
    return f"The server process {snapshot.pid} is running and loading its model{share}; it does not answer yet.{again}"


def _explain_ready(snapshot: InstanceSnapshot) -> str:
    whose = "a server that was already running" if snapshot.adopted else f"process {snapshot.pid}"
    return f"{snapshot.name} is ready: {whose} answers, and its answers keep being checked."


def _explain_crashed(snapshot: InstanceSnapshot) -> str:
    why = snapshot.cause.message if snapshot.cause is not None else "it ended"
    return f"{snapshot.name} crashed: {why}. It is started again by itself (retry {snapshot.retries} of {snapshot.max_retries})."


def _explain_error(snapshot: InstanceSnapshot) -> str:
    if snapshot.cause is None:
        return f"{snapshot.name} cannot run."
    if snapshot.cause.permanent:
        helps = snapshot.cause.remedy or "Mend the cause, then start it again."
        return f"{snapshot.name} cannot run: {snapshot.cause.message}. No retry would help. {helps}"
    remedy = f" {snapshot.cause.remedy}" if snapshot.cause.remedy else ""
    return (
        f"{snapshot.name} was given up after {snapshot.retries} retries; the last time: {snapshot.cause.message}.{remedy} "
        "Look at its log, then start it again."
    )


def _explain_stopping(snapshot: InstanceSnapshot) -> str:
    if snapshot.unloaded is not None:
        return f"{snapshot.name} is being unloaded: {snapshot.unloaded}."
    return f"{snapshot.name} is being stopped: it gets a moment to finish, then it is killed."


_EXPLANATIONS = {
    State.INITIAL: _explain_initial,
    State.STARTING: _explain_starting,
    State.READY: _explain_ready,
    State.CRASHED: _explain_crashed,
    State.ERROR: _explain_error,
    State.STOPPING: _explain_stopping,
}
