"""OpenAI's organization usage and costs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from supervisor.errors import MalformedRequestError
from supervisor.gateway.accounting import organization
from supervisor.gateway.accounting.organization import BUCKET_SECONDS, BUCKETS_DEFAULT, BUCKETS_MOST, Report
from supervisor.storage import usage
from supervisor.storage.usage import UsageFilter
from web.account_data import currency_of
from web.bodies import query_integer, query_moment
from web.fields import text
from web.keys import SUPERVISOR
from web.registry import Parameter, Policy, Reply, RouteTable
from web.schemas import INTEGER, STRING, ref

routes = RouteTable("Usage")

MILLISECONDS = 1_000
BUCKETS_LIMIT = 10**6
_BOOLEANS = {"true": True, "false": False}


def _report_route(path: str, summary: str, report: Report, *more: Parameter) -> None:
    @routes.route(
        "GET",
        path,
        summary=summary,
        policy=Policy.READ,
        parameters=(
            Parameter("start_time", "Unix seconds.", INTEGER, required=True),
            Parameter("end_time", "Unix seconds; left out, now.", INTEGER),
            Parameter(
                "bucket_width",
                "How long each bucket is.",
                {"type": "string", "enum": list(BUCKET_SECONDS), "default": "1d"},
            ),
            Parameter("group_by", f"Any of {', '.join(report.groups)}; several times, or with commas.", STRING),
            Parameter("project_ids", "Only of these; the same.", STRING),
            Parameter("api_key_ids", "Only by these; the same.", STRING),
            *more,
            Parameter(
                "limit", "Buckets a page; left out, a day of hours, an hour of minutes, a week of days.", INTEGER
            ),
            Parameter("page", "`next_page` of the page before.", STRING),
        ),
        responses={
            200: Reply("OpenAI's page of buckets.", ref("BucketPage")),
            400: Reply("A parameter is wrong; `error.param` names it.", ref("Error")),
            503: Reply("The database does not answer now.", ref("Error")),
        },
    )
    async def show(request: web.Request) -> web.Response:
        """As OpenAI's administration API answers it; empty buckets are there too."""
        return await _answer(request, report)


_report_route(
    "/v1/organization/usage/completions",
    "Usage by time, as OpenAI tells it",
    organization.USAGE,
    Parameter("models", "Only to these; the same.", STRING),
    Parameter("batch", "Only those of batches, or only the others.", {"type": "string", "enum": list(_BOOLEANS)}),
)
_report_route("/v1/organization/costs", "Costs by time, as OpenAI tells them", organization.COSTS)


async def _answer(request: web.Request, report: Report) -> web.Response:
    office, width = request.app[SUPERVISOR].office, _width(request)
    width_ms = BUCKET_SECONDS[width] * MILLISECONDS
    since_ms, until_ms = _span(request.query, width_ms)
    limit = query_integer(request.query, "limit", BUCKETS_DEFAULT[width], minimum=1, maximum=BUCKETS_MOST[width])
    starts = list(range(since_ms - since_ms % width_ms, until_ms, width_ms))[:limit]
    end_ms = min(until_ms, starts[-1] + width_ms)
    by, wanted = _groups(request, report), _filter(request, report, since_ms, end_ms)
    sums = await office.books.query(usage.sums, wanted, [report.groups[name] for name in by], width_ms)
    has_more = end_ms < until_ms
    page = {
        "object": "page",
        "data": organization.buckets(report, sums, by, starts, width_ms, currency_of(office)),
        "has_more": has_more,
        "next_page": str(end_ms // MILLISECONDS) if has_more else None,
    }
    return web.json_response(page)


def _width(request: web.Request) -> str:
    width = request.query.get("bucket_width", "1d")
    if width not in BUCKET_SECONDS:
        raise MalformedRequestError(f"`bucket_width` must be one of {', '.join(BUCKET_SECONDS)}.", param="bucket_width")
    return width


def _span(query: Mapping[str, str], width_ms: int) -> tuple[int, int]:
    if "start_time" not in query:
        raise MalformedRequestError("`start_time` must be given, in Unix seconds.", param="start_time")
    since = query_moment(query, "start_time")
    if "page" in query:
        since = query_moment(query, "page", minimum=since)
    until = query_moment(query, "end_time", int(time.time()) + 1)
    if until <= since:
        raise MalformedRequestError("`end_time` must be after `start_time`.", param="end_time")
    if (until - since) * MILLISECONDS // width_ms > BUCKETS_LIMIT:
        raise MalformedRequestError("That are more than a million buckets.", param="bucket_width")
    return since * MILLISECONDS, until * MILLISECONDS


def _groups(request: web.Request, report: Report) -> list[str]:
    names = _list(request, "group_by")
    for name in names:
        if name not in report.groups:
            raise MalformedRequestError(f"`group_by` must be of {', '.join(report.groups)}.", param="group_by")
    return list(dict.fromkeys(names))


def _filter(request: web.Request, report: Report, since_ms: int, until_ms: int) -> UsageFilter:
    if _list(request, "user_ids"):
        raise MalformedRequestError("There are no users here.", param="user_ids", remedy="Use `api_key_ids`.")
    is_usage = report is organization.USAGE
    return UsageFilter(
        tuple(_list(request, "project_ids")),
        tuple(_list(request, "api_key_ids")),
        tuple(_list(request, "models")) if is_usage else (),
        report.surfaces,
        is_batch=_batch(request) if is_usage else None,
        has_tokens=is_usage,
        since_ms=since_ms,
        until_ms=until_ms,
    )


def _batch(request: web.Request) -> bool | None:
    given = request.query.get("batch")
    if given is not None and given not in _BOOLEANS:
        raise MalformedRequestError("`batch` must be true or false.", param="batch")
    return None if given is None else _BOOLEANS[given]


def _list(request: web.Request, name: str) -> list[str]:
    given: list[Any] = [*request.query.getall(name, []), *request.query.getall(f"{name}[]", [])]
    return [text({name: part}, name) for value in given for part in value.split(",") if part]
