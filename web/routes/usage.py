"""What was used: totals, the requests one by one, receipts, CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web

from supervisor.core import Supervisor
from supervisor.errors import ForbiddenError, MalformedRequestError, NotFoundError
from supervisor.gateway.accounting import reports
from supervisor.gateway.accounting.callers import DEFAULT_PROJECT, Caller
from supervisor.gateway.accounting.keys import require_scope
from supervisor.storage import usage
from supervisor.storage.accounts import Period
from supervisor.storage.records import Scope
from supervisor.storage.usage import UsageFilter
from web.account_data import binding, budget_data, in_flight_data, receipt_data
from web.bodies import query_integer, query_moment
from web.calling import caller_of
from web.fields import choice, text
from web.keys import SUPERVISOR
from web.registry import Parameter, Policy, Reply, RouteTable
from web.schemas import INTEGER, STRING, array, optional, record, ref

routes = RouteTable("Usage")

CSV = "text/csv"
PAGE_DEFAULT = 50
PAGE_MOST = 500
CSV_RECORDS = 1_000
MILLISECONDS = 1_000
_BAD = {400: Reply("A parameter is wrong; `error.param` names it.", ref("Error"))}
_FOREIGN = {403: Reply("It is another project's, and the key may not read everything.", ref("Error"))}
_GONE = {503: Reply("The database does not answer now.", ref("Error"))}
FILTERS = (
    Parameter("project", "Only of this project.", STRING),
    Parameter("key_id", "Only by this key.", STRING),
    Parameter("model", "Only to this model.", STRING),
    Parameter("outcome", "Only those that ended so.", STRING),
    Parameter("since", "Accepted at or after this time, Unix seconds.", INTEGER),
    Parameter("until", "Accepted before this time, Unix seconds.", INTEGER),
)


@routes.route(
    "GET",
    "/v1/usage",
    summary="What a project used",
    policy=Policy.ANY,
    parameters=(
        Parameter(
            "project_id", "Left out, the key's own; so is `default` for a key that may not see that one.", STRING
        ),
        Parameter(
            "period",
            "The present one, in UTC.",
            {"type": "string", "enum": [each.value for each in Period], "default": "month"},
        ),
    ),
    responses={
        200: Reply("Totals, by model, and the budget if there is one.", ref("Usage")),
        **_BAD,
        **_FOREIGN,
        404: Reply("There is no such project, and never was one.", ref("Error")),
        **_GONE,
    },
)
async def show_usage(request: web.Request) -> web.Response:
    """`limit` and `remaining` are in `unit`, of the project's budget for that period; `budgets` are those of all periods."""
    supervisor, project = request.app[SUPERVISOR], _project(request, "project_id")
    period = choice({"period": request.query.get("period", Period.MONTH.value)}, "period", Period)
    bookkeeper = supervisor.office.bookkeeper
    wanted = reports.period_filter(project, period, bookkeeper.now_ms())
    by_model = await supervisor.office.books.query(usage.sums, wanted, ("model",))
    if not by_model and project not in bookkeeper.projects:
        raise NotFoundError(f"There is no project {project!r}.", param="project_id")
    bounds = binding(supervisor.office, project, _own_key(request, project))
    budgets = [budget_data(supervisor.office, one) for one in bounds]
    return web.json_response({**reports.usage_report(bookkeeper, project, period, by_model), "budgets": budgets})


@routes.route(
    "GET",
    "/v1/requests/in-flight",
    summary="Requests that are on their way",
    policy=Policy.ANY,
    responses={200: Reply("Oldest first.", record({"requests": array(ref("InFlightRequest"))}))},
)
async def list_in_flight(request: web.Request) -> web.Response:
    """Those that the key may see: its project's, or with the scope `read` everybody's."""
    supervisor, caller = request.app[SUPERVISOR], caller_of(request)
    labels = supervisor.office.bookkeeper.key_labels
    found = [one for one in supervisor.gateway.in_flight.requests() if _may_see(caller, one.request.project)]
    return web.json_response({"requests": [in_flight_data(one, labels) for one in found]})


@routes.route(
    "DELETE",
    "/v1/requests/in-flight/{id}",
    summary="Cancel a request that is on its way",
    policy=Policy.ANY,
    responses={
        200: Reply("It ends now.", record({"id": STRING, "cancelled": {"const": True}})),
        403: Reply("Another key sent it, and the key's scope is not `admin`.", ref("Error")),
        404: Reply("It has ended, never was, or is another project's.", ref("Error")),
    },
)
async def cancel_in_flight(request: web.Request) -> web.Response:
    """Its client gets the error `cancelled`, in the stream if one has begun; the engine stops, and what was used is booked."""
    in_flight, caller, identity = (
        request.app[SUPERVISOR].gateway.in_flight,
        caller_of(request),
        request.match_info["id"],
    )
    found = in_flight.find(identity)
    if found is None or not _may_see(caller, found.request.project):
        raise NotFoundError(f"There is no request {identity[:100]!r} on its way.", param="id")
    is_own = caller.key_id is not None and found.request.key_id == caller.key_id
    if not is_own:
        require_scope(caller, Scope.ADMIN)
    in_flight.cancel(identity)
    return web.json_response({"id": identity, "cancelled": True})


@routes.route(
    "GET",
    "/v1/requests/{id}",
    summary="The receipt of a request",
    policy=Policy.ANY,
    responses={
        200: Reply("All that is known of it.", ref("Receipt")),
        404: Reply("There is none of that id, or it is another project's.", ref("Error")),
        **_GONE,
    },
)
async def show_receipt(request: web.Request) -> web.Response:
    """By the id in the header `x-llamavisor-request-id` of its answer, or by the client's own `X-Request-Id` (then the newest)."""
    supervisor, identity, caller = request.app[SUPERVISOR], request.match_info["id"], caller_of(request)
    project = None if _sees_all(caller) else caller.project
    found = await supervisor.office.books.query(usage.one, identity, project)
    if found is None:
        raise NotFoundError(f"There is no request {identity[:100]!r}.", param="id")
    return web.json_response(receipt_data(supervisor.office, found))


@routes.route(
    "GET",
    "/admin/requests",
    summary="Requests that were served",
    policy=Policy.READ,
    parameters=(*FILTERS, Parameter("limit", "So many a page.", {**INTEGER, "default": PAGE_DEFAULT, "maximum": PAGE_MOST}),
                Parameter("after", "`next` of the page before.", STRING)),
    responses={
        200: Reply("Newest first; `next` is null on the last page.", record({"requests": array(ref("Receipt")), "next": optional(STRING)})),
        **_BAD,
        **_GONE,
    },
)  # fmt: skip
async def list_requests(request: web.Request) -> web.Response:
    """One record for each request that was let in, whatever became of it."""
    limit = query_integer(request.query, "limit", PAGE_DEFAULT, minimum=1, maximum=PAGE_MOST)
    receipts, following = await receipts_page(request.app[SUPERVISOR], request.query, limit)
    return web.json_response({"requests": receipts, "next": following})


@routes.route(
    "GET",
    "/admin/usage.csv",
    summary="Usage records as CSV",
    policy=Policy.READ,
    parameters=FILTERS,
    responses={200: Reply("A line a request, oldest first.", STRING, CSV), **_BAD, **_GONE},
)
async def export(request: web.Request) -> web.StreamResponse:
    """The columns are those of a receipt; texts that a spreadsheet would take for formulas are quoted with an apostrophe."""
    books, wanted = request.app[SUPERVISOR].office.books, filter_of(request.query)
    found = await books.query(usage.page_forward, wanted, CSV_RECORDS)
    response = web.StreamResponse(headers={"Content-Disposition": 'attachment; filename="llamavisor-usage.csv"'})
    response.content_type, response.charset = CSV, "utf-8"
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    await response.write(reports.csv_head().encode())
    while found:
        await response.write(reports.csv_lines(found).encode())
        last = found[-1].request
        found = await books.query(usage.page_forward, wanted, CSV_RECORDS, (last.accepted_at_ms, last.id))
    await response.write_eof()
    return response


async def receipts_page(
    supervisor: Supervisor, query: Mapping[str, str], limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """At most `limit` receipts, newest first, as the parameters of `GET /admin/requests` want them; and its `next`."""
    found = await supervisor.office.books.query(usage.page, filter_of(query), limit + 1, _cursor(query.get("after")))
    shown, more = found[:limit], len(found) > limit
    last = shown[-1].request if more else None
    following = None if last is None else f"{last.accepted_at_ms}.{last.id}"
    return [receipt_data(supervisor.office, one) for one in shown], following


def filter_of(query: Mapping[str, str]) -> UsageFilter:
    """The records that the parameters want. MalformedRequestError."""

    def moment(name: str) -> int | None:
        if name not in query:
            return None
        return query_moment(query, name) * MILLISECONDS

    def one_of(name: str) -> tuple[str, ...]:
        value = text(query, name, default="")
        return (value,) if value else ()

    return UsageFilter(
        one_of("project"),
        one_of("key_id"),
        one_of("model"),
        outcome=text(query, "outcome", default="") or None,
        since_ms=moment("since"),
        until_ms=moment("until"),
    )


def _cursor(after: str | None) -> tuple[int, str] | None:
    if after is None:
        return None
    moment, _, identity = after.partition(".")
    if not (moment.isascii() and moment.isdigit() and len(moment) < 16 and identity):
        raise MalformedRequestError("`after` must be `next` of the page before.", param="after")
    return int(moment), identity


def _project(request: web.Request, name: str) -> str:
    caller = caller_of(request)
    project = text(request.query, name, default=caller.project)
    if _may_see(caller, project):
        return project
    # What the original clients send when nobody told them another: as for requests, one's own.
    if project != DEFAULT_PROJECT:
        raise ForbiddenError(f"The key is of the project `{caller.project}`, not of `{project}`.", param=name)
    return caller.project


def _own_key(request: web.Request, project: str) -> str | None:
    """The key that asks, where it is one of the project."""
    caller = caller_of(request)
    return caller.key_id if caller.project == project else None


def _may_see(caller: Caller, project: str) -> bool:
    return project == caller.project or _sees_all(caller)


def _sees_all(caller: Caller) -> bool:
    return bool({Scope.READ, Scope.ADMIN} & caller.scopes)
