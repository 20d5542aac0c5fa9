"""`POST /v1/batch`: a list of prompts at once (`contracts.md` §4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from supervisor.gateway.batch.prompts import (
    PROMPTS_MAX,
    TIMEOUT_MAX_SECONDS,
    TIMEOUT_MIN_SECONDS,
    read_prompts,
)
from web.bodies import parse_json_object
from web.calling import payer_of
from web.idempotency import KEY_PARAMETER, REPEATED, json_once
from web.keys import SUPERVISOR
from web.registry import Body, Policy, Reply, RouteTable, Schema
from web.schemas import INTEGER, NUMBER, STRING, WHO_PAYS, array, described, optional, record, ref

routes = RouteTable("Batches")

_PROMPT: Schema = {
    "type": "object",
    "properties": {"prompt": STRING, "id": STRING, "model": described(STRING, "In place of the list's.")},
    "required": ["prompt"],
    "additionalProperties": False,
}
_TIMEOUT: Schema = {**NUMBER, "minimum": TIMEOUT_MIN_SECONDS, "maximum": TIMEOUT_MAX_SECONDS}
_SAMPLING: Mapping[str, Schema] = {
    "max_tokens": {**INTEGER, "minimum": 1},
    "temperature": {**NUMBER, "minimum": 0, "maximum": 2},
    "top_p": {**NUMBER, "minimum": 0, "maximum": 1},
}
_PROMPTS: Schema = {
    "type": "object",
    "properties": {
        "prompts": {**array(_PROMPT), "minItems": 1, "maxItems": PROMPTS_MAX},
        "model": described(STRING, "As for chat completions; left out, `auto`."),
        "project_id": described(STRING, WHO_PAYS),
        "timeout": described(_TIMEOUT, "Seconds for all of them; those that are late have failed."),
        **_SAMPLING,
    },
    "required": ["prompts"],
    "additionalProperties": False,
}
_USAGE: Schema = record({"input_tokens": INTEGER, "output_tokens": INTEGER, "total_tokens": INTEGER})
_COST = described(optional(NUMBER), "In the configured currency; null when it is not known.")
_RESULT: Schema = record(
    {
        "id": described(STRING, "The prompt's; where it has none, its number, from 1."),
        "prompt": STRING,
        "request_id": described(
            STRING, "Its receipt's, for `GET /v1/requests/{id}`, if it was let in; left out where it was never sent."
        ),
        "status": {"type": "string", "enum": ["completed", "failed"]},
        "content": STRING,
        "usage": _USAGE,
        "cost": _COST,
        "error": STRING,
        "error_code": described(STRING, "As `error.code` where a request of its own fails: `model_not_found`, …"),
    },
    optional_keys=("request_id", "content", "usage", "cost", "error", "error_code"),
)
_RESULTS: Schema = record(
    {
        "total": INTEGER,
        "completed": INTEGER,
        "failed": INTEGER,
        "results": array(_RESULT),
        "total_cost": _COST,
        "total_tokens": INTEGER,
    }
)


@routes.route(
    "POST",
    "/v1/batch",
    summary="Answer a list of prompts",
    policy=Policy.INFERENCE,
    parameters=(KEY_PARAMETER,),
    body=Body(_PROMPTS),
    responses={
        200: Reply("The results in the order of the prompts, failures among them.", _RESULTS),
        400: Reply("A field is wrong; `error.param` names it.", ref("Error")),
        403: Reply("The key is of another project than `project_id`.", ref("Error")),
        404: Reply("There is no project of the name in `project_id`.", ref("Error")),
        408: Reply("The body was not complete within `server.body_deadline_seconds`.", ref("Error")),
        503: Reply("The server is shutting down.", ref("Error")),
        **REPEATED,
    },
)
async def answer_batch(request: web.Request) -> web.StreamResponse:
    """Side by side, as many at once as batch work may. One that fails does not fail the others; where a limit or a full line is in its way, it waits.
    Who leaves cancels what is left."""

    async def answer(body: bytes) -> dict[str, Any]:
        document = parse_json_object(body)
        return await request.app[SUPERVISOR].batches.answer(read_prompts(document), payer_of(request, document))

    return await json_once(request, answer)
