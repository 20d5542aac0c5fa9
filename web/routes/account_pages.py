"""The pages on who pays, and for what: keys, usage, requests. Rendered on the server; what they change, they change through the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from supervisor.errors import NotFoundError
from supervisor.gateway.accounting import reports
from supervisor.gateway.accounting.callers import DEFAULT_PROJECT
from supervisor.gateway.traffic import Outcome
from supervisor.storage import usage
from supervisor.storage.accounts import BudgetUnit, KeyRecord, Period
from supervisor.storage.database import StorageUnavailableError
from supervisor.storage.records import Scope
from web.account_data import budget_data, currency_of, in_flight_data, key_data, project_data, standings
from web.fields import TEXT_CHARACTERS
from web.keys import SUPERVISOR
from web.registry import HTML, Parameter, Policy, Reply, RouteTable, Schema
from web.routes.pages import render
from web.routes.usage import FILTERS, receipts_page
from web.schemas import STRING, ref
from web.usage_data import GROUPS, METRICS, STRETCHES, usage_picture

routes = RouteTable("Account pages")

Load = Callable[[web.Request], Awaitable[dict[str, Any]]]
"""What a page finds in the books."""

MILLISECONDS = 1_000
IN_FLIGHT_SHOWN = 200
RECEIPTS_A_PAGE = 50
FILTER_NAMES = frozenset(parameter.name for parameter in FILTERS)
_PAGE = Reply("The page.", STRING, HTML)


def _one_of(words: Collection[str]) -> Schema:
    return {"type": "string", "enum": list(words), "description": "Anything else is as good as left out."}


@routes.route("GET", "/keys", summary="The page on keys", policy=Policy.READ, responses={200: _PAGE})
async def keys_page(request: web.Request) -> web.StreamResponse:
    """Keys, projects and budgets: `/admin/keys`, `/admin/projects`, `/admin/budgets` as a page."""
    context = {
        "scopes": [scope.value for scope in Scope],
        "periods": [period.value for period in Period],
        "units": [unit.value for unit in BudgetUnit],
        "default_project": DEFAULT_PROJECT,
    }
    return await _page(request, "keys", context, _accounts)


@routes.route(
    "GET",
    "/usage",
    summary="The page on usage",
    policy=Policy.READ,
    parameters=(
        Parameter("stretch", "How far back.", _one_of(STRETCHES)),
        Parameter("by", "What it is divided by.", _one_of(GROUPS)),
        Parameter("metric", "What the chart shows.", _one_of(METRICS)),
        Parameter("project", "Only of this project.", STRING),
    ),
    responses={200: _PAGE},
)
async def usage_page(request: web.Request) -> web.StreamResponse:
    """Tokens, cost and requests over time, and what is left of the budgets. A parameter that makes no sense is as good as none."""
    chosen = {
        "stretch": _known(request, "stretch", STRETCHES, "month"),
        "by": _known(request, "by", GROUPS, "model"),
        "metric": _known(request, "metric", METRICS, "tokens"),
        "project": request.query.get("project", "")[:TEXT_CHARACTERS],
    }
    words = {"stretches": STRETCHES, "groups": GROUPS, "metrics": METRICS}
    options = {
        "stretch_options": [(name, stretch.words) for name, stretch in STRETCHES.items()],
        "group_options": [(name, label.lower()) for name, (_, label) in GROUPS.items()],
        "metric_options": [(name, label.lower()) for name, label in METRICS.items()],
    }
    return await _page(request, "usage", {**words, **options, **chosen}, lambda request: _usage(request, chosen))


async def _usage(request: web.Request, chosen: Mapping[str, str]) -> dict[str, Any]:
    office, stretch, project = request.app[SUPERVISOR].office, STRETCHES[chosen["stretch"]], chosen["project"] or None
    starts = stretch.starts(office.bookkeeper.now_ms())
    wanted = usage.UsageFilter((project,) if project else (), since_ms=starts[0])
    sums = await office.books.query(usage.sums, wanted, (GROUPS[chosen["by"]][0],), stretch.width_ms)
    known = office.bookkeeper.key_labels
    labels: dict[str | None, str] = {key: f"{label} ({key})" for key, label in known.items() if label}
    filters = {"since": str(starts[0] // MILLISECONDS), **({"project": project} if project else {})}
    return {
        **usage_picture(sums, starts, chosen["metric"], labels),
        "project_options": _project_options([each.name for each in await office.projects()], chosen["project"]),
        "budgets": [
            budget_data(office, one) for one in await standings(office) if project in (None, one.budget.project)
        ],
        "csv": f"/admin/usage.csv?{urlencode(filters)}",
    }


@routes.route(
    "GET",
    "/requests",
    summary="The page on requests",
    policy=Policy.READ,
    parameters=(*FILTERS, Parameter("after", "Those before that one.", STRING)),
    responses={200: _PAGE},
)
async def requests_page(request: web.Request) -> web.StreamResponse:
    """What is on its way, and what was served: `GET /v1/requests/in-flight` and `GET /admin/requests` as a page."""
    models = [model["id"] for model in request.app[SUPERVISOR].gateway.models()]
    chosen = {name: request.query.get(name, "") for name in ("project", "model", "outcome", "after")}
    return await _page(request, "requests", {**_under_way(request), "models": models, "chosen": chosen}, _served)


@routes.route(
    "GET",
    "/requests/in-flight",
    summary="The part of the page on requests that changes all the time",
    policy=Policy.READ,
    responses={200: _PAGE},
)
async def in_flight_part(request: web.Request) -> web.StreamResponse:
    """What is on its way now, as the page has it; the page asks for it every second while somebody looks."""
    return await _page(request, "_in_flight", _under_way(request), _nothing)


@routes.route(
    "GET",
    "/requests/{id}",
    summary="The receipt of a request, as a page",
    policy=Policy.READ,
    responses={200: _PAGE, 404: Reply("There is none of that id.", ref("Error"), others={HTML: STRING})},
)
async def receipt_page(request: web.Request) -> web.StreamResponse:
    """`GET /v1/requests/{id}` as a page."""
    return await _page(request, "receipt", {"page": "requests"}, _receipt)


async def _receipt(request: web.Request) -> dict[str, Any]:
    office, identity = request.app[SUPERVISOR].office, request.match_info["id"]
    found = await office.books.query(usage.one, identity)
    if found is None:
        raise NotFoundError(f"There is no request {identity[:100]!r} in the books.", param="id")
    return {"receipt": reports.receipt(found), "labels": office.bookkeeper.key_labels}


def _under_way(request: web.Request) -> dict[str, Any]:
    supervisor = request.app[SUPERVISOR]
    labels = supervisor.office.bookkeeper.key_labels
    found = supervisor.gateway.in_flight.requests()
    shown = [in_flight_data(one, labels) for one in found[:IN_FLIGHT_SHOWN]]
    return {"in_flight": shown, "in_flight_count": len(found)}


async def _nothing(request: web.Request) -> dict[str, Any]:
    return {}


async def _served(request: web.Request) -> dict[str, Any]:
    office = request.app[SUPERVISOR].office
    given = {name: value for name, value in request.query.items() if value}
    receipts, following = await receipts_page(request.app[SUPERVISOR], given, RECEIPTS_A_PAGE)
    filters = {name: value for name, value in given.items() if name in FILTER_NAMES}
    return {
        # Those that are on their way stand above.
        "receipts": [receipt for receipt in receipts if receipt["outcome"] is not None],
        "labels": office.bookkeeper.key_labels,
        "older": None if following is None else f"/requests?{urlencode({**filters, 'after': following})}",
        "newest": f"/requests?{urlencode(filters)}" if "after" in given else None,
        "csv": f"/admin/usage.csv?{urlencode(filters)}",
        "project_options": _project_options([each.name for each in await office.projects()], given.get("project", "")),
        "outcomes": [*(outcome.value for outcome in Outcome), usage.INTERRUPTED],
    }


def _project_options(names: list[str], chosen: str) -> list[tuple[str, str]]:
    """All of them, each project, and the chosen one even if there is none of that name any more."""
    return [("", "all projects"), *((name, name) for name in dict.fromkeys([*names, *([chosen] if chosen else [])]))]


def _known(request: web.Request, name: str, words: Collection[str], default: str) -> str:
    given = request.query.get(name, default)
    return given if given in words else default


async def _accounts(request: web.Request) -> dict[str, Any]:
    office = request.app[SUPERVISOR].office
    now_ms = office.bookkeeper.now_ms()
    keys = [{**key_data(key), "state": key_state(key, now_ms)} for key in reversed(await office.keys())]
    return {
        "projects": [project_data(office, one) for one in await office.projects()],
        "valid_keys": [key for key in keys if key["state"] == "valid"],
        "ended_keys": [key for key in keys if key["state"] != "valid"],
        "budgets": [budget_data(office, one) for one in await standings(office)],
    }


def key_state(key: KeyRecord, now_ms: int) -> str:
    """`valid`, `expired` or `revoked`."""
    if key.revoked_at_ms is not None:
        return "revoked"
    return "valid" if key.is_valid_at(now_ms) else "expired"


async def _page(request: web.Request, name: str, context: dict[str, Any], load: Load) -> web.Response:
    """The page `name`, with what `load` finds in the books; where the books do not answer, `problem` says so in its place."""
    shared = {
        "currency": currency_of(request.app[SUPERVISOR].office),
        "problem": None,
    }
    try:
        found = await load(request)
    except StorageUnavailableError as error:
        return render(request, f"{name}.html", name, {**shared, **context, "problem": str(error)}, status=error.status)
    return render(request, f"{name}.html", name, {**shared, **context, **found})
