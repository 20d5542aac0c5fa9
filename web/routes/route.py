"""The router, asked what it would do (`contracts.md` §4)."""

from __future__ import annotations

from aiohttp import web

from supervisor.gateway.costs import cost_number
from supervisor.gateway.routing import BudgetStatus, Question, question_of
from supervisor.request_fields import refuse, shown
from web.bodies import read_json_object
from web.calling import caller_of
from web.keys import SUPERVISOR
from web.registry import Body, Policy, Reply, RouteTable, Schema
from web.schemas import INTEGER, NUMBER, STRING, described, optional, record, ref

routes = RouteTable("Router")

LARGEST_CONTEXT = 2**31 - 1
_BUDGET: Schema = record(
    {
        "total_tokens": described(INTEGER, "Used in the present period."),
        "total_cost": described(optional(NUMBER), "What they cost; null when nobody knows."),
        "limit": described(optional(INTEGER), "Tokens; null is no limit."),
        "remaining": described(optional(INTEGER), "Tokens; null is no limit."),
    }
)


@routes.route(
    "POST",
    "/v1/route",
    summary="What `auto` would choose",
    policy=Policy.INFERENCE,
    body=Body(
        record(
            {
                "prompt": STRING,
                "context_size": {**INTEGER, "minimum": 0, "description": "Tokens; left out, that of the prompt."},
            },
            optional_keys=("context_size",),
        )
    ),
    responses={
        200: Reply(
            "The choice.",
            record(
                {
                    "recommended_model": described(STRING, "A tier or a model's name, to be given as `model`."),
                    "model": described(optional(STRING), "What that means here; null is the default instance."),
                    "reasoning": STRING,
                    "budget_status": _BUDGET,
                }
            ),
        ),
        400: Reply("A field is not what it must be.", ref("Error")),
    },
)
async def choose_route(request: web.Request) -> web.Response:
    """A dry run: nothing is sent to an engine, nothing is spent. A chat with the model `auto`, this prompt and this budget goes where this says."""
    supervisor = request.app[SUPERVISOR]
    document = await read_json_object(request, supervisor.settings.server.max_body_bytes)
    caller = caller_of(request)
    route = supervisor.router.choose(_question(document), caller)
    return web.json_response(
        {
            "recommended_model": route.choice,
            "model": route.model,
            "reasoning": route.reason,
            "budget_status": _budget(supervisor.router.status_of(caller)),
        }
    )


def _question(document: dict[str, object]) -> Question:
    prompt, size = document.get("prompt"), document.get("context_size")
    if not isinstance(prompt, str):
        raise refuse("prompt", f"must be a string, not {shown(prompt)}.")
    if size is None:
        return question_of({"prompt": prompt})
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LARGEST_CONTEXT:
        raise refuse("context_size", f"must be a whole number of tokens, not {shown(size)}.")
    return Question(prompt, size)


def _budget(status: BudgetStatus) -> dict[str, object]:
    return {
        "total_tokens": status.total_tokens,
        "total_cost": cost_number(status.cost_micros),
        "limit": status.limit,
        "remaining": status.remaining,
    }
