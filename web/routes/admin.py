"""Operations: the instances, their logs, reload and shutdown."""

from __future__ import annotations

import asyncio
import json
from functools import partial

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from supervisor.core import Supervisor
from supervisor.process.instance import Instance
from supervisor.process.output import LogLine
from web import views
from web.bodies import query_flag, query_integer
from web.keys import SUPERVISOR
from web.registry import EVENT_STREAM, Parameter, Policy, Reply, RouteTable
from web.schemas import BOOLEAN, ref
from web.streams import check_listener, event_stream

routes = RouteTable("Operations")

LOG_TAIL_DEFAULT_LINES = 200
LOG_TAIL_MAX_LINES = 100_000
_NOT_FOUND = Reply("No instance of that name; the message has the nearest.", ref("Error"))
_CONFLICT = Reply("The state refuses it: `error.details.state`.", ref("Error"))
_TAKEN = {
    202: Reply("The request is taken: the instance as it is now.", ref("Instance")),
    404: _NOT_FOUND,
    409: _CONFLICT,
}


def instance_of(request: web.Request) -> tuple[Supervisor, Instance]:
    """The supervisor, and the instance that the path names. Raises InstanceNotFoundError."""
    supervisor = request.app[SUPERVISOR]
    return supervisor, supervisor.fleet.get(request.match_info["name"])


@routes.route(
    "GET",
    "/admin/instances",
    summary="All instances",
    policy=Policy.READ,
    responses={200: Reply("The whole picture at one moment.", ref("Picture"))},
)
async def list_instances(request: web.Request) -> web.Response:
    """`epoch` and `seq` say where to go on from with `GET /events`."""
    return web.json_response(views.picture(request.app[SUPERVISOR]))


@routes.route(
    "GET",
    "/admin/instances/{name}",
    summary="One instance and its history",
    policy=Policy.READ,
    responses={200: Reply("The instance.", ref("InstanceDetail")), 404: _NOT_FOUND},
)
async def show_instance(request: web.Request) -> web.Response:
    """The `data` of `llamaStatus`, and the newest changes of state with their reasons."""
    return web.json_response(views.detail(*instance_of(request)))


@routes.route(
    "GET",
    "/admin/instances/{name}/logs",
    summary="What an instance printed",
    policy=Policy.READ,
    parameters=(
        Parameter(
            "tail", "So many of the newest lines.", {"type": "integer", "minimum": 0, "default": LOG_TAIL_DEFAULT_LINES}
        ),
        Parameter("follow", "Stay, and send each new line as an event `log`.", BOOLEAN),
    ),
    responses={
        200: Reply("The lines, oldest first.", ref("Logs"), others={EVENT_STREAM: ref("LogEntry")}),
        400: Reply("A parameter is out of bounds.", ref("Error")),
        404: _NOT_FOUND,
    },
)
async def show_logs(request: web.Request) -> web.StreamResponse:
    """JSON, or with `follow=1` server-sent events named `log`."""
    _, instance = instance_of(request)
    count = query_integer(request.query, "tail", LOG_TAIL_DEFAULT_LINES, minimum=0, maximum=LOG_TAIL_MAX_LINES)
    if query_flag(request.query, "follow"):
        return await _follow(request, instance, count)
    lines = [views.log_entry(line, instance.name) for line in instance.output.tail(count)]
    return web.json_response({"instance": instance.name, "logs": lines})


async def _follow(request: web.Request, instance: Instance, count: int) -> web.StreamResponse:
    # Subscribed and tailed without an await in between, so that no line is lost or doubled.
    subscription, backlog = instance.output.subscribe(), instance.output.tail(count)
    async with event_stream(request, subscription) as stream:
        for line in backlog:
            await _send(stream, line, instance.name)
        async for line in subscription:
            check_listener(request)
            await _send(stream, line, instance.name)
    return stream


async def _send(stream: EventSourceResponse, line: LogLine, instance: str) -> None:
    await stream.send(json.dumps(views.log_entry(line, instance)), event="log", id=str(line.id))


@routes.route(
    "POST", "/admin/instances/{name}/start", summary="Start an instance", policy=Policy.ADMIN, responses=_TAKEN
)
async def start_instance(request: web.Request) -> web.Response:
    """Answers when the request is taken; `GET /events` tells the rest."""
    supervisor, instance = instance_of(request)
    snapshot = await supervisor.fleet.start(instance.name)
    return web.json_response(snapshot.to_wire(), status=202)


@routes.route(
    "POST",
    "/admin/instances/{name}/stop",
    summary="Stop an instance",
    policy=Policy.ADMIN,
    parameters=(Parameter("kill", "End an adopted server too, instead of detaching from it.", BOOLEAN),),
    responses=_TAKEN,
)
async def stop_instance(request: web.Request) -> web.Response:
    """Idempotent. An adopted server is left running unless `kill=1`."""
    supervisor, instance = instance_of(request)
    snapshot = await supervisor.fleet.stop(instance.name, kill_adopted=query_flag(request.query, "kill"))
    return web.json_response(snapshot.to_wire(), status=202)


@routes.route(
    "POST", "/admin/instances/{name}/restart", summary="Restart an instance", policy=Policy.ADMIN, responses=_TAKEN
)
async def restart_instance(request: web.Request) -> web.Response:
    """Stop and start as one request."""
    supervisor, instance = instance_of(request)
    snapshot = await supervisor.fleet.restart(instance.name)
    return web.json_response(snapshot.to_wire(), status=202)


@routes.route(
    "POST",
    "/admin/reload",
    summary="Read the configuration again",
    policy=Policy.ADMIN,
    responses={
        200: Reply("Done by difference: instances whose settings did not change keep running.", ref("Reload")),
        422: Reply("The file is refused, the message names the key; the old settings stay in force.", ref("Error")),
    },
)
async def reload(request: web.Request) -> web.Response:
    """The same as SIGHUP."""
    report = await request.app[SUPERVISOR].reload()
    return web.json_response({"status": "ok", "message": "Reload complete", **report.to_wire()})


@routes.route(
    "POST",
    "/admin/shutdown",
    summary="Shut the server down",
    policy=Policy.ADMIN,
    parameters=(Parameter("all", "Also stop the instances that are to survive the supervisor.", BOOLEAN),),
    responses={202: Reply("It begins once this answer is out.", ref("Done"))},
)
async def shutdown(request: web.Request) -> web.Response:
    """Drains, stops the instances, exits with 0."""
    supervisor, everything = request.app[SUPERVISOR], query_flag(request.query, "all")
    response = web.json_response({"status": "ok", "message": "Shutdown initiated"}, status=202)
    # After this turn of the loop the answer is written; before, the drain could cut it off.
    asyncio.get_running_loop().call_soon(partial(supervisor.request_shutdown, stop_survivors=everything))
    return response
