"""Projects, keys and budgets: made, listed, changed, taken away."""

from __future__ import annotations

from aiohttp import web

from supervisor.gateway.accounting.callers import DEFAULT_PROJECT
from supervisor.gateway.accounting.office import Office
from supervisor.storage.accounts import NO_LIMITS, Project
from web.account_bodies import (
    KEY_FIELDS,
    PROJECT_FIELDS,
    read_budget,
    read_expiry,
    read_key_changes,
    read_limits,
    read_scopes,
    refuse_others,
)
from web.account_data import budget_data, key_data, project_data, standings
from web.account_schemas import LIMIT_CHANGES, LIMITS, PERIOD, SCOPE, UNIT
from web.bodies import read_json_object
from web.fields import text, whole
from web.keys import SUPERVISOR
from web.registry import Body, Parameter, Policy, Reply, RouteTable
from web.schemas import INTEGER, STRING, array, described, optional, record, ref

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
    project = Project(text(document, "name", pattern=PROJECT_PATTERN), NO_LIMITS.changed(read_limits(document)))
    await office.add_project(project)
    return web.json_response(project_data(office, project), status=201)


@routes.route(
    "PATCH",
    "/admin/projects/{name}",
    summary="Change a project's limits",
    policy=Policy.ADMIN,
    body=Body(record({"limits": LIMIT_CHANGES}, optional_keys=PROJECT_FIELDS), "A merge patch (RFC 7396)."),
    responses={200: Reply("How it is now.", ref("Project")), **_BAD, **_NONE},
)
async def change_project(request: web.Request) -> web.Response:
    """In force at once, for what is asked from now on. What is not named stays; what was used in the last minute counts on."""
    document, office = await read_json_object(request, BODY_LIMIT_BYTES), _office(request)
    refuse_others(document, PROJECT_FIELDS, "project")
    changed = await office.change_project(request.match_info["name"], read_limits(document))
    return web.json_response(project_data(office, changed))


@routes.route(
    "DELETE",
    "/admin/projects/{name}",
    summary="Remove a project",
    policy=Policy.ADMIN,
    responses={
        200: Reply("It is no more, nor are its budgets.", record({"name": STRING, "removed": {"const": True}})),
        **_NONE,
        409: Reply("It has a valid key, or it is `default`, which stays.", ref("Error")),
    },
)
async def remove_project(request: web.Request) -> web.Response:
    """Its usage and its keys, revoked, stay in the books, and its files and batches where they are: a new project of that name has them again."""
    name = request.match_info["name"]
    await _office(request).remove_project(name)
    return web.json_response({"name": name, "removed": True})


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
        read_scopes(document),
        label=text(document, "label", default=""),
        expires_at_ms=read_expiry(document, office.bookkeeper.now_ms()),
        limits=NO_LIMITS.changed(read_limits(document)),
    )
    return web.json_response({"key": issued.text, **key_data(issued.record)}, status=201)


@routes.route(
    "PATCH",
    "/admin/keys/{id}",
    summary="Change a key",
    policy=Policy.ADMIN,
    body=Body(
        record(
            {
                "label": described(optional(STRING), "What people call it; null: nothing."),
                "expires_at": described(
                    {"type": ["string", "null"], "format": "date-time"},
                    "Null: it does not expire. An expired key opens again when its end is moved.",
                ),
                "limits": LIMIT_CHANGES,
            },
            optional_keys=KEY_FIELDS,
        ),
        "A merge patch (RFC 7396).",
    ),
    responses={
        200: Reply("How it is now.", ref("Key")),
        **_BAD,
        **_NONE,
        409: Reply("It is revoked: nothing but its label can be changed.", ref("Error")),
    },
)
async def change_key(request: web.Request) -> web.Response:
    """In force at once, for what is asked from now on. What is not named stays; what was used in the last minute counts on."""
    document, office = await read_json_object(request, BODY_LIMIT_BYTES), _office(request)
    changes = read_key_changes(document, office.bookkeeper.now_ms())
    return web.json_response(key_data(await office.change_key(request.match_info["id"], changes)))


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
    budget = read_budget(document, whole(document, "amount", minimum=0))
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
    removed = await _office(request).remove_budget(read_budget(request.query, 0))
    return web.json_response({"removed": removed})


def _office(request: web.Request) -> Office:
    return request.app[SUPERVISOR].office
