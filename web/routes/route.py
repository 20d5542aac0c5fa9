"""The router, asked what it would do (`contracts.md` §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from supervisor.gateway.calls import check_model
from supervisor.gateway.costs import cost_number
from supervisor.gateway.routing import BudgetStatus, Question, question_of
from supervisor.request_fields import check_messages, refuse, shown
from web.bodies import read_json_object
from web.calling import caller_of
from web.keys import SUPERVISOR
from web.registry import Body, Policy, Reply, RouteTable, Schema
from web.schemas import INTEGER, NUMBER, STRING, array, described, optional, record, ref
from web.surface_schemas import MESSAGE_LIST

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
    summary="Who would answer",
    policy=Policy.INFERENCE,
    body=Body(
        record(
            {
                "prompt": STRING,
                "messages": described(MESSAGE_LIST, "In the place of `prompt`, as those of a chat."),
                "model": described(STRING, "As of a chat; left out, `auto`."),
                "context_size": {**INTEGER, "minimum": 0, "description": "Tokens; left out, that of the question."},
            },
            optional_keys=("prompt", "messages", "model", "context_size"),
        )
    ),
    responses={
        200: Reply(
            "The choice.",
            record(
                {
                    "recommended_model": described(STRING, "A tier or a model's name, to be given as `model`."),
                    "model": described(
                        STRING, "What that means here: the name of an endpoint, an instance or a model."
                    ),
                    "instances": described(array(STRING), "Those that serve it: one of them would answer."),
                    "reasoning": STRING,
                    "budget_status": _BUDGET,
                }
            ),
        ),
        400: Reply("A field is not what it must be.", ref("Error")),
        404: Reply("There is no such model.", ref("Error")),
    },
)
async def choose_route(request: web.Request) -> web.Response:
    """A dry run: nothing is sent to an engine, nothing is spent. A chat with this model, this question and this budget goes where this says."""
    supervisor = request.app[SUPERVISOR]
    document = await read_json_object(request, supervisor.settings.server.max_body_bytes)
    caller = caller_of(request)
    route = supervisor.router.route_of(check_model(document), _question(document), caller)
    instances = supervisor.gateway.servers_of(route.model)
    return web.json_response(
        {
            "recommended_model": route.choice,
            "model": route.model or supervisor.gateway.names.endpoint(None, instances[0]),
            "instances": instances,
            "reasoning": route.reason,
            "budget_status": _budget(supervisor.router.status_of(caller)),
        }
    )


def _question(document: Mapping[str, Any]) -> Question:
    question = question_of({"prompt": _prompt(document), "messages": document.get("messages")})
    size = document.get("context_size")
    if size is None:
        return question
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LARGEST_CONTEXT:
        raise refuse("context_size", f"must be a whole number of tokens, not {shown(size)}.")
    return replace(question, context_tokens=size)


def _prompt(document: Mapping[str, Any]) -> str | None:
    """The prompt; None where there are messages."""
    prompt, messages = document.get("prompt"), document.get("messages")
    if messages is not None:
        if prompt is not None:
            raise refuse("prompt", "and `messages` exclude one another.")
        check_messages(messages)
        return None
    if not isinstance(prompt, str):
        raise refuse("prompt", f"must be a string, not {shown(prompt)}; or give `messages`.")
    return prompt


def _budget(status: BudgetStatus) -> dict[str, object]:
    return {
        "total_tokens": status.total_tokens,
        "total_cost": cost_number(status.cost_micros),
        "limit": status.limit,
        "remaining": status.remaining,
    }
