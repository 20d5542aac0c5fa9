"""`GET /events`: the event log as server-sent events, with replay after a lost connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from supervisor.core import Supervisor
from supervisor.events import Event
from web import views
from web.keys import SUPERVISOR
from web.registry import EVENT_STREAM, Parameter, Policy, Reply, RouteTable
from web.schemas import STRING, ref
from web.streams import check_listener, event_stream

routes = RouteTable("Events")

RETRY_MILLISECONDS = 1_000
LAST_EVENT_ID = "Last-Event-ID"


@routes.route(
    "GET",
    "/events",
    summary="Every change, as it happens",
    policy=Policy.READ,
    parameters=(
        Parameter(LAST_EVENT_ID, "`epoch:seq` of the last event that was seen.", STRING, location="header"),
        Parameter("instance", "Only events of this instance.", STRING),
    ),
    responses={
        200: Reply(
            "Events named after their type (`llama_status`, `instance_removed`, …); `data` is the message as JSON, `id` is `epoch:seq`.",
            STRING,
            EVENT_STREAM,
        ),
        404: Reply("No such instance.", ref("Error")),
    },
)
async def events(request: web.Request) -> web.StreamResponse:
    """Begins with what was missed since `Last-Event-ID`; when that is not held any more, or without it, with a `snapshot` of the names and one
    `llama_status` of each instance. Who reads slowly gets the newest event of each kind and instance; who never reads is disconnected."""
    supervisor = request.app[SUPERVISOR]
    name = request.query.get("instance")
    if name is not None:
        supervisor.fleet.get(name)
    # Subscribed before the log is read, without an await in between: nothing is lost or doubled.
    subscription = supervisor.events.subscribe()
    missed = missed_since(supervisor, request.headers.get(LAST_EVENT_ID))
    begin = list(snapshot_events(supervisor) if missed is None else missed)
    async with event_stream(request, subscription) as stream:
        await stream.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
        for event in begin:
            await _send(stream, event, name)
        async for event in subscription:
            check_listener(request)
            await _send(stream, event, name)
    return stream


def missed_since(supervisor: Supervisor, last_event_id: str | None) -> list[Event] | None:
    """The events after `last_event_id`; None when they cannot be told, so that a snapshot is due."""
    epoch, _, seq = (last_event_id or "").partition(":")
    is_number = seq.isascii() and seq.isdigit() and len(seq) < 16
    if epoch != supervisor.events.epoch or not is_number:
        return None
    return supervisor.events.since(int(seq))


def snapshot_events(supervisor: Supervisor) -> Iterator[Event]:
    """What stands in for the events that cannot be replayed: the names of all instances, then the state of each."""
    log, stamp = supervisor.events, views.now_ms(supervisor)
    names: dict[str, Any] = {"instances": supervisor.fleet.names(), "default": views.default_name(supervisor)}
    yield Event(log.epoch, log.seq, "snapshot", None, names, stamp)
    for instance in supervisor.fleet.instances():
        yield Event(log.epoch, log.seq, "llama_status", instance.name, instance.snapshot().to_wire(), stamp)


async def _send(stream: EventSourceResponse, event: Event, only: str | None) -> None:
    if only is None or event.instance in (only, None):
        await stream.send(json.dumps(event.to_wire()), id=f"{event.epoch}:{event.seq}", event=event.type)
