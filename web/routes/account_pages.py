"""The pages on who pays, and for what: keys, usage, requests. Rendered on the server; what they change, they change through the API."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from supervisor.gateway.accounting.callers import DEFAULT_PROJECT
from supervisor.storage.accounts import BudgetUnit, KeyRecord, Period
from supervisor.storage.database import StorageUnavailableError
from supervisor.storage.records import Scope
from web.account_data import budget_data, key_data, project_data, standings
from web.calling import caller_of
from web.keys import SUPERVISOR
from web.registry import HTML, Policy, Reply, RouteTable
from web.routes.pages import render
from web.schemas import STRING

routes = RouteTable("Account pages")

_PAGE = Reply("The page.", STRING, HTML)


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


async def _accounts(request: web.Request) -> dict[str, Any]:
    office = request.app[SUPERVISOR].office
    now_ms = office.bookkeeper.now_ms()
    keys = [{**key_data(key), "state": key_state(key, now_ms)} for key in reversed(await office.keys())]
    return {
        "projects": [project_data(office, project) for project in await office.projects()],
        "valid_keys": [key for key in keys if key["state"] == "valid"],
        "ended_keys": [key for key in keys if key["state"] != "valid"],
        "budgets": [budget_data(one) for one in await standings(office)],
    }


def key_state(key: KeyRecord, now_ms: int) -> str:
    """`valid`, `expired` or `revoked`."""
    if key.revoked_at_ms is not None:
        return "revoked"
    return "expired" if key.expires_at_ms is not None and key.expires_at_ms <= now_ms else "valid"


async def _page(request: web.Request, name: str, context: dict[str, Any], load: Any) -> web.Response:
    """The page `name`, with what `load` finds in the books; where the books do not answer, `problem` says so in its place."""
    shared = {
        "currency": request.app[SUPERVISOR].settings.accounting.currency,
        "may_change": Scope.ADMIN in caller_of(request).scopes,
        "problem": None,
    }
    try:
        found = await load(request)
    except StorageUnavailableError as error:
        return render(request, f"{name}.html", name, {**shared, **context, "problem": str(error)}, status=error.status)
    return render(request, f"{name}.html", name, {**shared, **context, **found})
