"""What was used, in the shapes in which it is asked for: `contracts.md` §4, OpenAI's organization usage and costs, receipts, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from supervisor.gateway.accounting.bookkeeper import Bookkeeper
from supervisor.gateway.accounting.periods import span
from supervisor.gateway.accounting.standing import tightest
from supervisor.gateway.costs import cost_number
from supervisor.storage.accounts import Period
from supervisor.storage.records import AcceptedRequest, Settlement, TokenUsage, UsageRecord
from supervisor.storage.usage import UsageFilter, UsageSum

MILLISECONDS = 1_000
BUCKET_SECONDS = {"1m": 60, "1h": 3_600, "1d": 86_400}
GROUPS = {"project_id": "project", "api_key_id": "key_id", "model": "model"}


def period_filter(project: str, period: Period, now_ms: int) -> UsageFilter:
    """The records of a project in the present period."""
    whole = span(period, now_ms)
    return UsageFilter(project=project, since_ms=whole.start_ms, until_ms=whole.end_ms)


def usage_report(bookkeeper: Bookkeeper, project: str, period: Period, by_model: Sequence[UsageSum]) -> dict[str, Any]:
    """`GET /v1/usage`: totals, by model, and the budget of that period of which the least is left, if there is one.

    Costs are in units of the currency; beside each are its micro-units, which budgets in money are counted in.
    """
    total_micros = sum(one.cost_micros for one in by_model)
    report: dict[str, Any] = {
        "project_id": project,
        "period": period.value,
        "total_tokens": sum(one.total_tokens for one in by_model),
        "total_cost": cost_number(total_micros),
        "total_cost_micros": total_micros,
        "currency": bookkeeper.ledger.currency,
        "unpriced_requests": sum(one.unpriced for one in by_model),
        "by_model": {str(one.group[0]): _of_model(one) for one in by_model if one.total_tokens},
    }
    budget = tightest(bookkeeper, project, period)
    if budget is not None:
        report |= {"limit": budget.budget.amount, "remaining": budget.remaining, "unit": budget.budget.unit.value}
    return report


def usage_buckets(
    sums: Sequence[UsageSum], by: Sequence[str], starts_ms: Sequence[int], width_ms: int, currency: str, *, costs: bool
) -> list[dict[str, Any]]:
    """OpenAI's buckets of usage or of costs, one for each start; `sums` grouped by bucket and then by `by` (of `GROUPS`)."""
    result = _cost_result if costs else _usage_result
    found: dict[int, list[dict[str, Any]]] = {start: [] for start in starts_ms}
    for one in sums:
        group = dict(zip(by, one.group[1:], strict=True))
        found.setdefault(int(one.group[0]), []).append(result(one, group, currency))
    return [
        {
            "object": "bucket",
            "start_time": start // MILLISECONDS,
            "end_time": (start + width_ms) // MILLISECONDS,
            "results": results,
        }
        for start, results in sorted(found.items())
    ]


def receipt(record: UsageRecord) -> dict[str, Any]:
    """All that is known of one request. `outcome` is null while it is on its way."""
    request, settlement = record.request, record.settlement
    told: dict[str, Any] = {
        "id": request.id,
        "object": "request",
        "client_request_id": request.client_request_id,
        "project": request.project,
        "key_id": request.key_id,
        "endpoint": request.endpoint,
        "surface": request.surface,
        "stream": request.stream,
        "batch_id": request.batch_id,
        "accepted_at": _iso(request.accepted_at_ms),
        "outcome": None,
    }
    return told if settlement is None else told | _settled(request, settlement)


def csv_lines(records: Iterable[UsageRecord]) -> Iterator[str]:
    """The records as CSV (RFC 4180), the names of the columns first: those of a settled receipt, also when none is settled."""
    yield _line(_COLUMNS)
    for record in records:
        row = flat(receipt(record))
        yield _line([row.get(name, "") for name in _COLUMNS])


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A receipt as one level: `usage.prompt_tokens` becomes `usage_prompt_tokens`."""
    columns: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            columns |= flat(value, f"{prefix}{name}_")
        else:
            columns[prefix + name] = value
    return columns


def _settled(request: AcceptedRequest, settlement: Settlement) -> dict[str, Any]:
    usage, price = settlement.usage, request.price
    return {
        "outcome": settlement.outcome,
        "error_code": settlement.error_code,
        "model": settlement.model,
        "instance": settlement.instance,
        "revision": settlement.revision,
        "route_reason": settlement.route_reason,
        "settled_at": _iso(settlement.settled_at_ms),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "source": usage.source.value,
        },
        "cost": {
            "micros": settlement.cost_micros,
            "input_price_micros": None if price is None else price.input_micros,
            "output_price_micros": None if price is None else price.output_micros,
        },
        "timings": {
            "queued_ms": settlement.queued_ms,
            "first_byte_ms": settlement.first_byte_ms,
            "total_ms": settlement.total_ms,
        },
        "energy": {
            "millijoules": settlement.energy_millijoules,
            "co2_micrograms": settlement.co2_micrograms,
            "method": settlement.energy_method,
        },
    }


def _usage_result(one: UsageSum, group: Mapping[str, Any], currency: str) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": one.prompt_tokens,
        "output_tokens": one.completion_tokens,
        "input_cached_tokens": one.cached_tokens,
        "num_model_requests": one.requests,
        **{name: group.get(name) for name in ("project_id", "api_key_id", "model")},
        "user_id": None,
        "batch": None,
    }


def _cost_result(one: UsageSum, group: Mapping[str, Any], currency: str) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": cost_number(one.cost_micros), "currency": currency.lower()},
        "line_item": group.get("model"),
        "project_id": group.get("project_id"),
    }


def _of_model(one: UsageSum) -> dict[str, Any]:
    """Nothing is said of the cost where some of it is not known."""
    micros = None if one.unpriced else one.cost_micros
    return {"tokens": one.total_tokens, "cost": cost_number(micros), "cost_micros": micros}


def _iso(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / MILLISECONDS, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([_harmless(value) for value in values])
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is shown as the text that it is."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


_SETTLED = UsageRecord(AcceptedRequest("", "", None, "", "", False, 0), Settlement("", "", TokenUsage(), None, 0))
_COLUMNS = tuple(flat(receipt(_SETTLED)))
