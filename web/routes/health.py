"""Is it alive, is it well, is it ready: for people, load balancers and orchestrators."""

from __future__ import annotations

from aiohttp import web

from web.keys import SUPERVISOR
from web.registry import PLAIN, Policy, Reply, RouteTable
from web.schemas import STRING, ref

routes = RouteTable("Health")

_NOT_READY_STATUS = 503


@routes.route(
    "GET",
    "/health",
    summary="The state of the whole",
    policy=Policy.OPEN,
    responses={
        200: Reply("It serves: `ok`, or `degraded` when an instance that should be ready is not.", ref("Health")),
        503: Reply("`down`: no instance that should be ready is.", ref("Health")),
    },
)
async def health(request: web.Request) -> web.Response:
    """Never needs a key; tells states, no secrets."""
    report = request.app[SUPERVISOR].health()
    return web.json_response(report.to_wire(), status=report.http_status)


@routes.route(
    "GET",
    "/livez",
    summary="Does the supervisor's loop turn?",
    policy=Policy.OPEN,
    responses={200: Reply("It does.", STRING, PLAIN)},
)
async def livez(request: web.Request) -> web.Response:
    """Plain text; says nothing of the instances."""
    return web.Response(text="ok\n")


@routes.route(
    "GET",
    "/readyz",
    summary="Is every required instance ready?",
    policy=Policy.OPEN,
    responses={200: Reply("All are.", ref("Readiness")), 503: Reply("Not all are: the list.", ref("Readiness"))},
)
async def readyz(request: web.Request) -> web.Response:
    """Instances are required when they start at boot, or as `required` says."""
    report = request.app[SUPERVISOR].ready()
    return web.json_response(report.to_wire(), status=200 if report.ready else _NOT_READY_STATUS)
