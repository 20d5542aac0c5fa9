"""`/v1/streams/{id}`: join a stream again that goes on without its client, or stop it (`contracts.md` §6)."""

from __future__ import annotations

from aiohttp import web

from supervisor.gateway.resumable import LAST_EVENT_ID
from web.calling import caller_of
from web.keys import SUPERVISOR
from web.registry import EVENT_STREAM, Parameter, Policy, Reply, RouteTable
from web.resuming import STREAM_ID_HEADER, Follower
from web.schemas import STRING, ref
from web.surface_schemas import refusals

routes = RouteTable("OpenAI")

_UNKNOWN = Reply("The caller has no such stream: never had, stopped it, or its time is over.", ref("Error"))
_SEEN = "`id` of the last event that was seen; left out, the stream comes from its beginning."


# Not a policy of inference: a server that shuts down takes no new work, but whoever is being answered may come back to it.
@routes.route(
    "GET",
    "/v1/streams/{id}",
    summary="Join a stream again",
    policy=Policy.ANY,
    parameters=(Parameter(LAST_EVENT_ID, _SEEN, STRING, location="header"),),
    responses={
        200: Reply("The events, as they were and as they come.", STRING, EVENT_STREAM),
        **refusals("/v1/streams"),
        404: _UNKNOWN,
        410: Reply("What comes next is not kept any more; `error.details.first` is the oldest that is.", ref("Error")),
        409: Reply("The stream was stopped in this very moment.", ref("Error")),
    },
)
async def join(request: web.Request) -> web.StreamResponse:
    """A stream that was asked for with `X-Llamavisor-Resume: SECONDS`, by its `x-llamavisor-stream-id`: what comes after `Last-Event-ID`, then what
    is still to come; any number of readers at once. Only the key that asked for it may. It is there until nobody has read it for that time."""
    stream = request.app[SUPERVISOR].resumable.find(request.match_info["id"], caller_of(request))
    if request.method == "HEAD":
        return web.Response(content_type=EVENT_STREAM, headers={STREAM_ID_HEADER: stream.id})
    return await Follower(request, stream, {}).rejoin()


@routes.route(
    "DELETE",
    "/v1/streams/{id}",
    summary="Stop a stream",
    policy=Policy.ANY,
    responses={204: Reply("It is over, and forgotten.", content_type=None), 404: _UNKNOWN},
)
async def stop(request: web.Request) -> web.Response:
    """Ends it at the engine, and for whoever reads it; what was generated is paid for. Only the key that asked for it may."""
    resumable = request.app[SUPERVISOR].resumable
    resumable.stop(resumable.find(request.match_info["id"], caller_of(request)), is_asked=True)
    return web.Response(status=204)
