"""`/v1/batches`: files of requests that are answered when there is room (OpenAI's Batch API)."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from supervisor.gateway.batch.objects import ENDPOINTS, WINDOW, BatchStatus, read_order
from web.bodies import parse_json_object
from web.calling import caller_of
from web.idempotency import KEY_PARAMETER, REPEATED, json_once
from web.keys import SUPERVISOR
from web.lists import page_of, page_parameters, page_schema
from web.registry import Body, Policy, Reply, RouteTable, Schema
from web.schemas import INTEGER, STRING, array, described, optional, record, ref

routes = RouteTable("Batches")

LIST_DEFAULT, LIST_MAX = 20, 100
STAMPS = (
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)

_METADATA: Schema = {"type": "object", "additionalProperties": STRING}
_FAULT: Schema = record({"code": STRING, "message": STRING, "line": optional(INTEGER), "param": optional(STRING)})
_BATCH: Schema = record(
    {
        "id": STRING,
        "object": {"const": "batch"},
        "endpoint": {"type": "string", "enum": list(ENDPOINTS)},
        "errors": described(
            optional(record({"object": {"const": "list"}, "data": array(_FAULT)})), "What is wrong with its lines."
        ),
        "input_file_id": STRING,
        "completion_window": {"const": WINDOW},
        "status": {"type": "string", "enum": [status.value for status in BatchStatus]},
        "output_file_id": described(optional(STRING), "The answers, once it is over; null when there are none."),
        "error_file_id": described(optional(STRING), "The failures, once it is over; null when there are none."),
        "created_at": described(INTEGER, "Unix seconds, like the others."),
        **{name: optional(INTEGER) for name in STAMPS},
        "request_counts": record({"total": INTEGER, "completed": INTEGER, "failed": INTEGER}),
        "metadata": optional(_METADATA),
    }
)
_ORDER: Schema = {
    "type": "object",
    "properties": {
        "input_file_id": described(STRING, "A file with the purpose `batch`: one request in a line."),
        "endpoint": {"type": "string", "enum": list(ENDPOINTS)},
        "completion_window": {"const": WINDOW},
        "metadata": optional(_METADATA),
    },
    "required": ["input_file_id", "endpoint", "completion_window"],
}
_NOT_FOUND = Reply("No such batch.", ref("Error"))
_DRAINING = Reply("The server is shutting down.", ref("Error"))


@routes.route(
    "POST",
    "/v1/batches",
    summary="Make a batch of an uploaded file",
    policy=Policy.INFERENCE,
    parameters=(KEY_PARAMETER,),
    body=Body(_ORDER),
    responses={
        200: Reply("It is on its way.", _BATCH),
        400: Reply("A field is wrong; `error.param` names it.", ref("Error")),
        404: Reply("No such file.", ref("Error")),
        408: Reply("The body was not complete within `server.body_deadline_seconds`.", ref("Error")),
        429: Reply("Too many batches are not finished.", ref("Error")),
        503: _DRAINING,
        507: Reply("The disk is full.", ref("Error")),
        **REPEATED,
    },
)
async def create_batch(request: web.Request) -> web.StreamResponse:
    """Its lines are answered side by side, when nobody waits for the places of the engine. It goes on after a restart, whatever ended the server: no
    line is answered twice in its output, none is lost. Its window counts while the server runs."""

    async def create(body: bytes) -> dict[str, Any]:
        order = read_order(parse_json_object(body))
        return (await request.app[SUPERVISOR].batches.create(order, caller_of(request))).to_wire()

    # Who leaves meanwhile and asks again with the same key is not to have, and to pay, two.
    return await asyncio.shield(asyncio.create_task(json_once(request, create), name="batch:create"))


@routes.route(
    "GET",
    "/v1/batches",
    summary="List the batches",
    policy=Policy.ANY,
    parameters=page_parameters(LIST_DEFAULT, LIST_MAX),
    responses={200: Reply("A page of them.", page_schema(_BATCH)), 400: Reply("A bad parameter.", ref("Error"))},
)
async def list_batches(request: web.Request) -> web.Response:
    """Those of the caller's project, the newest first."""
    page = page_of(request.query, default=LIST_DEFAULT, maximum=LIST_MAX)
    return web.json_response(page.of(request.app[SUPERVISOR].batches.all_of(caller_of(request).project)))


@routes.route(
    "GET",
    "/v1/batches/{batch_id}",
    summary="One batch",
    policy=Policy.ANY,
    responses={200: Reply("How it is now.", _BATCH), 404: _NOT_FOUND},
)
async def show_batch(request: web.Request) -> web.Response:
    """`request_counts` tells how far it is."""
    batches, project = request.app[SUPERVISOR].batches, caller_of(request).project
    return web.json_response(batches.get(request.match_info["batch_id"], project).to_wire())


@routes.route(
    "POST",
    "/v1/batches/{batch_id}/cancel",
    summary="Cancel a batch",
    policy=Policy.INFERENCE,
    responses={
        200: Reply("It is being cancelled.", _BATCH),
        404: _NOT_FOUND,
        409: Reply("It is over, or nearly.", ref("Error")),
        503: _DRAINING,
    },
)
async def cancel_batch(request: web.Request) -> web.Response:
    """What was answered is in its output file; of each other line, its error file says that it was cancelled."""
    batches, project = request.app[SUPERVISOR].batches, caller_of(request).project
    return web.json_response((await batches.cancel(request.match_info["batch_id"], project)).to_wire())
