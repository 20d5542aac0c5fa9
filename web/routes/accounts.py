"""Projects, keys and budgets: made, listed, taken away."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from supervisor.errors import MalformedRequestError
from supervisor.gateway.accounting.callers import DEFAULT_PROJECT
from supervisor.gateway.accounting.office import Office
from supervisor.storage.accounts import Budget, BudgetUnit, Limits, Period, Project
from supervisor.storage.records import Scope
from web.account_data import budget_data, key_data, project_data, standings
from web.account_schemas import LIMIT_NAMES, LIMITS, PERIOD, SCOPE, UNIT
from web.bodies import read_json_object
from web.fields import choice, text, whole
from web.keys import SUPERVISOR
from web.registry import Body, Parameter, Policy, Reply, RouteTable
from web.schemas import INTEGER, STRING, array, described, record, ref

routes = RouteTable("Accounts")

BODY_LIMIT_BYTES = 64 * 1024
PROJECT_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"

_BAD = {400: Reply("A field is missing or wrong; `error.param` names it.", ref("Error"))}
_NONE = {404: Reply("There is none of that name.", ref("Error"))}


@routes.route(
    "GET",
    "/admin/projects",
    summary="All projects",
    policy=Policy.READ,
    responses={200: Reply("By name, with what each has used this month.", record({"projects": array(ref("Project"))}))},
)
async def list_projects(request: web.Request) -> web.Response:
    """`default` is always there: requests without a key of their own are its."""
    office = _office(request)
    return web.json_response({"projects": [project_data(office, one) for one in await office.projects()]})


@routes.route(
    "POST",
    "/admin/projects",
    summary="Add a project",
    policy=Policy.ADMIN,
    body=Body(
        record({"name": {**STRING, "pattern": f"^{PROJECT_PATTERN}$"}, "limits": LIMITS}, optional_keys=("limits",))
    ),
    responses={
        201: Reply("It is there.", ref("Project")),
        409: Reply("There is one of that name already.", ref("Error")),
        **_BAD,
    },
)
async def add_project(request: web.Request) -> web.Response:
    """Who pays. Its keys prove it, its budgets bound it."""
    document, office = await read_json_object(request, BODY_LIMIT_BYTES), _office(request)
    project = Project(text(document, "name", pattern=PROJECT_PATTERN), _limits(document))
    await office.add_project(project)
    return web.json_response(project_data(office, project), status=201)


@routes.route(
    "PATCH",
    "/admin/projects/{name}",
    summary="Change a project's limits",
    policy=Policy.ADMIN,
    body=Body(record({"limits": LIMITS})),
    responses={200: Reply("It has these limits now.", ref("Project")), **_BAD, **_NONE},
)
async def change_project(request: web.Request) -> web.Response:
    """In place of those that it had."""
    document, office = await read_json_object(request, BODY_LIMIT_BYTES), _office(request)
    project = Project(request.match_info["name"], _limits(document))
    await office.change_project(project)
    return web.json_response(project_data(office, project))


@routes.route(
    "GET",
    "/admin/keys",
    summary="All keys",
    policy=Policy.READ,
    parameters=(Parameter("project", "Only its keys.", STRING),),
    responses={200: Reply("Oldest first, revoked ones too; never their secrets.", record({"keys": array(ref("Key"))}))},
)
async def list_keys(request: web.Request) -> web.Response:
    """What is kept of them."""
    wanted = request.query.get("project")
    known = await _office(request).keys()
    return web.json_response({"keys": [key_data(key) for key in known if wanted in (None, key.project)]})


@routes.route(
    "POST",
    "/admin/keys",
    summary="Make a key",
    policy=Policy.ADMIN,
    body=Body(
        record(
            {
                "project": described(STRING, "Left out, `default`."),
                "label": described(STRING, "What people call it."),
                "scopes": described(array(SCOPE), "Left out, `inference` alone."),
                "expires_at": described({"type": "string", "format": "date-time"}, "Left out, it does not expire."),
                "limits": LIMITS,
            },
            optional_keys=("project", "label", "scopes", "expires_at", "limits"),
        )
    ),
    responses={
        201: Reply("The key, with its text in `key`: it is shown this once.", ref("NewKey")),
        **_BAD,
        404: Reply("There is no such project.", ref("Error")),
    },
)
async def add_key(request: web.Request) -> web.Response:
    """Only the digest of its secret is kept."""
    document, office = await read_json_object(request, BODY_LIMIT_BYTES), _office(request)
    issued = await office.issue_key(
        text(document, "project", default=DEFAULT_PROJECT),
        _scopes(document),
        label=text(document, "label", default=""),
        expires_at_ms=_expiry(document, office),
        limits=_limits(document),
    )
    return web.json_response({"key": issued.text, **key_data(issued.record)}, status=201)


@routes.route(
    "DELETE",
    "/admin/keys/{id}",
    summary="Revoke a key",
    policy=Policy.ADMIN,
    responses={
        200: Reply("From now on it opens nothing.", record({"id": STRING, "revoked": {"const": True}})),
        **_NONE,
    },
)
async def revoke_key(request: web.Request) -> web.Response:
    """Requests that are on their way go on; batches and open connections of the key ask for nothing more. Its record stays, for what it used."""
    key_id = request.match_info["id"]
    await _office(request).revoke_key(key_id)
    return web.json_response({"id": key_id, "revoked": True})


@routes.route(
    "GET",
    "/admin/budgets",
    summary="All budgets, and how they stand",
    policy=Policy.READ,
    responses={200: Reply("Each with what is spent, held back and left.", record({"budgets": array(ref("Budget"))}))},
)
async def list_budgets(request: web.Request) -> web.Response:
    """In the period of now."""
    office = _office(request)
    return web.json_response({"budgets": [budget_data(office, one) for one in await standings(office)]})


@routes.route(
    "PUT",
    "/admin/budgets",
    summary="Set a budget",
    policy=Policy.ADMIN,
    body=Body(
        record(
            {
                "project": STRING,
                "key_id": described(STRING, "Only for this key of the project."),
                "period": described(PERIOD, "A calendar day, an ISO week or a month, in UTC."),
                "unit": described(UNIT, "Micro-units of `accounting.currency`, or tokens."),
                "amount": described({**INTEGER, "minimum": 0}, "Zero is zero."),
            },
            optional_keys=("key_id",),
        )
    ),
    responses={
        200: Reply("It is in force.", ref("Budget")),
        **_BAD,
        404: Reply("There is no such project, or no such key in it.", ref("Error")),
    },
)
async def set_budget(request: web.Request) -> web.Response:
    """In place of the one of the same project, key, period and unit."""
    document, office = await read_json_object(request, BODY_LIMIT_BYTES), _office(request)
    budget = _named_budget(document, whole(document, "amount", minimum=0))
    await office.set_budget(budget)
    stands = next(one for one in await standings(office) if one.budget == budget)
    return web.json_response(budget_data(office, stands))


@routes.route(
    "DELETE",
    "/admin/budgets",
    summary="Remove a budget",
    policy=Policy.ADMIN,
    parameters=(
        Parameter("project", "Whose.", STRING, required=True),
        Parameter("period", "Which.", PERIOD, required=True),
        Parameter("unit", "Which.", UNIT, required=True),
        Parameter("key_id", "That of this key.", STRING),
    ),
    responses={200: Reply("Whether there was one.", record({"removed": {"type": "boolean"}})), **_BAD},
)
async def remove_budget(request: web.Request) -> web.Response:
    """What was spent stays in the books."""
    removed = await _office(request).remove_budget(_named_budget(request.query, 0))
    return web.json_response({"removed": removed})


def _office(request: web.Request) -> Office:
    return request.app[SUPERVISOR].office


def _named_budget(fields: Mapping[str, Any], amount: int) -> Budget:
    key_id = text(fields, "key_id", default="") or None
    period, unit = choice(fields, "period", Period), choice(fields, "unit", BudgetUnit)
    return Budget(text(fields, "project"), period, unit, amount, key_id)


def _limits(document: Mapping[str, Any]) -> Limits:
    given = document.get("limits", {})
    if not isinstance(given, dict):
        raise MalformedRequestError("`limits` must be an object.", param="limits")
    unknown = given.keys() - set(LIMIT_NAMES)
    if unknown:
        name = min(unknown)
        raise MalformedRequestError(
            f"There is no limit `{name}`.", param=f"limits.{name}", remedy=f"Known are {', '.join(LIMIT_NAMES)}."
        )
    return Limits(
        *(
            whole(given, name, minimum=1, within="limits.") if given.get(name) is not None else None
            for name in LIMIT_NAMES
        )
    )


def _scopes(document: Mapping[str, Any]) -> frozenset[Scope]:
    given = document.get("scopes", [Scope.INFERENCE.value])
    if not isinstance(given, list) or not given:
        raise MalformedRequestError("`scopes` must be a list of at least one scope.", param="scopes")
    return frozenset(choice({"scopes": name}, "scopes", Scope) for name in given)


def _expiry(document: Mapping[str, Any], office: Office) -> int | None:
    if document.get("expires_at") is None:
        return None
    try:
        moment = datetime.fromisoformat(text(document, "expires_at"))
        at_ms = int(moment.timestamp() * 1_000)
    except (ValueError, OverflowError):
        raise MalformedRequestError(
            "`expires_at` must be a date and time as in ISO 8601.", param="expires_at"
        ) from None
    if at_ms <= office.bookkeeper.now_ms():
        raise MalformedRequestError("`expires_at` has passed already.", param="expires_at")
    return at_ms
