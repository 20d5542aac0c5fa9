"""The wire shapes of `contracts.md` §1, made from what the supervisor says; the same for REST, Socket.IO, SSE and the pages."""

from __future__ import annotations

from typing import Any

from supervisor.core import Supervisor
from supervisor.events import EVENT_LOG_LENGTH, Event
from supervisor.fleet.usage import Usage
from supervisor.process.instance import Instance
from supervisor.process.output import LogLine
from supervisor.process.states import State

MILLISECONDS = 1_000
HISTORY_LENGTH = 100


def now_ms(supervisor: Supervisor) -> int:
    """Unix milliseconds, for stamps."""
    return int(supervisor.clock.wall() * MILLISECONDS)


def status_message(supervisor: Supervisor, instance: Instance) -> dict[str, Any]:
    """The `llamaStatus` message of one instance as it is now."""
    return {
        "type": "llama_status",
        "data": instance.snapshot().to_wire(),
        "timestamp": now_ms(supervisor),
        "epoch": supervisor.events.epoch,
        "seq": supervisor.events.seq,
    }


def picture(supervisor: Supervisor) -> dict[str, Any]:
    """All instances at one moment, in the order of the configuration, and the `epoch` and `seq` up to which that holds."""
    instances = supervisor.fleet.instances()
    return {
        "instances": [instance.snapshot().to_wire() for instance in instances],
        "default": default_name(supervisor),
        "epoch": supervisor.events.epoch,
        "seq": supervisor.events.seq,
        "timestamp": now_ms(supervisor),
    }


def default_name(supervisor: Supervisor) -> str | None:
    """The name of the default instance; None when there is no instance."""
    return next(iter(supervisor.fleet.names()), None)


def detail(supervisor: Supervisor, instance: Instance) -> dict[str, Any]:
    """The `data` of `llamaStatus`, and `history`: the newest changes of state, oldest first."""
    # Far more events than changes of state: progress is told as well.
    events = supervisor.events.history(instance.name, limit=EVENT_LOG_LENGTH)
    return {**instance.snapshot().to_wire(), "history": history(events)[-HISTORY_LENGTH:]}


def history(events: list[Event]) -> list[dict[str, Any]]:
    """One entry for each change of state among `events`; what only grew (progress, models) is left out."""
    entries: list[dict[str, Any]] = []
    for event in events:
        if event.type != "llama_status":
            continue
        entry = {
            "stateSeq": event.data["stateSeq"],
            "status": event.data["status"],
            "reason": event.data["reason"],
            "headline": event.data["headline"],
            "timestamp": event.timestamp_ms,
        }
        if entries and entries[-1]["stateSeq"] == entry["stateSeq"]:
            # The first of its state has the time, the last the words.
            entry["timestamp"] = entries[-1]["timestamp"]
            entries[-1] = entry
        else:
            entries.append(entry)
    return entries


def log_entry(line: LogLine, instance: str) -> dict[str, Any]:
    """One line of an instance's output."""
    return {
        "id": line.id,
        "level": line.level,
        "message": line.message,
        "timestamp": line.timestamp_ms,
        "stream": line.stream,
        "context": {"source": f"{instance}:{line.stream}", "instance": instance},
    }


def models_data(supervisor: Supervisor) -> list[dict[str, Any]]:
    """The `data` of `models`: each model of each instance; `createdAt` and `updatedAt` unix milliseconds, None when not known."""
    return [
        {
            "id": model["id"],
            "name": model.get("name", model["id"]),
            "type": model.get("type", ""),
            "status": instance.state.value,
            "size": model.get("size", 0),
            "createdAt": _model_time(model),
            "updatedAt": _model_time(model),
            "instance": instance.name,
        }
        for instance in supervisor.fleet.instances()
        for model in instance.models
    ]


def _model_time(model: Any) -> int | None:
    seconds = model.get("modified_at") or 0
    return int(seconds * MILLISECONDS) or None


def metrics_data(supervisor: Supervisor, instance: Instance | None) -> dict[str, Any]:
    """The `data` of `metrics`, of one instance or (None) of all together; then `uptime` is that of the default instance."""
    chosen = [instance] if instance is not None else supervisor.fleet.instances()
    names = [each.name for each in chosen]
    usage = [supervisor.fleet.usage().instances.get(name, Usage()) for name in names]
    figures = supervisor.gateway.traffic.figures(names)
    return {
        "activeModels": sum(len(each.models) for each in chosen if each.state is State.READY),
        "totalRequests": figures.requests_total,
        "avgResponseTime": figures.average_response_ms,
        "memoryUsage": sum(one.memory_bytes for one in usage),
        "cpuUsage": round(sum(one.cpu_percent for one in usage), 1),
        "uptime": round(chosen[0].snapshot().uptime_seconds, 3) if chosen else 0.0,
        "lastUpdated": now_ms(supervisor),
        "tokensPerSecond": figures.tokens_per_second,
        "requestsActive": sum(each.requests_active for each in chosen),
        "requestsQueued": figures.queued,
        "instance": instance.name if instance is not None else None,
    }
