"""Health and readiness of the whole, as pure functions of the instances' snapshots (`contracts.md` §2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from supervisor.process.instance import Instance
from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import State


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`degraded`: at least one instance that should be ready is not; `down`: none is. `http_status` is 200 or 503."""

    status: Literal["ok", "degraded", "down"]
    version: str
    message: str
    services: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def http_status(self) -> int:
        """503 only when down."""
        return 503 if self.status == "down" else 200

    def to_wire(self) -> dict[str, Any]:
        """The body of `GET /health`."""
        return {
            "status": self.status,
            "version": self.version,
            "message": self.message,
            "services": dict(self.services),
            "details": dict(self.details),
        }


@dataclass(frozen=True, slots=True)
class ReadyReport:
    """Whether every required instance is ready; `waiting` lists the others as `{instance, status, reason}`."""

    ready: bool
    waiting: Sequence[Mapping[str, Any]]

    def to_wire(self) -> dict[str, Any]:
        """The body of `GET /readyz`."""
        return {"ready": self.ready, "waiting": [dict(one) for one in self.waiting]}


def health_report(instances: Sequence[Instance], version: str) -> HealthReport:
    """See `HealthReport`. An instance should be ready when it is required; with none required there is nothing to miss."""
    snapshots = [instance.snapshot() for instance in instances]
    required = [snapshot for snapshot in snapshots if snapshot.required]
    missing = [snapshot for snapshot in required if snapshot.state is not State.READY]
    any_ready = any(snapshot.state is State.READY for snapshot in snapshots)
    status: Literal["ok", "degraded", "down"] = "ok" if not missing else "degraded" if any_ready else "down"
    return HealthReport(
        status=status,
        version=version,
        message=" ".join(snapshot.explanation() for snapshot in missing) or "Every required instance is ready.",
        services={snapshot.name: snapshot.state.value for snapshot in snapshots},
        details=_details(snapshots[0]) if snapshots else {},
    )


def ready_report(instances: Sequence[Instance]) -> ReadyReport:
    """See `ReadyReport`."""
    snapshots = [instance.snapshot() for instance in instances]
    waiting = [
        {
            "instance": snapshot.name,
            "status": snapshot.state.value,
            "reason": snapshot.cause.reason.value if snapshot.cause is not None else None,
        }
        for snapshot in snapshots
        if snapshot.required and snapshot.state is not State.READY
    ]
    return ReadyReport(not waiting, waiting)


def _details(snapshot: InstanceSnapshot) -> dict[str, Any]:
    """The default instance's processes; most engines tokenize in the process that also generates."""
    running, ready = snapshot.pid is not None, snapshot.state is State.READY
    status = snapshot.last_crash.exit if snapshot.last_crash is not None else None
    returncode = None if status is None or running else status.code if status.signal is None else -status.signal
    common = {"running": running, "healthy": ready}
    tokenizer = {**common, "pid": snapshot.parts.get("tokenizer", snapshot.pid)}
    model = {**common, "pid": snapshot.parts.get("model", snapshot.pid), "ready": ready, "returncode": returncode}
    return {"tokenizer": tokenizer, "model": model}
