"""What was used, in the shapes in which it is asked for: `contracts.md` §4, OpenAI's organization usage and costs, receipts, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
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


def period_filter(project: str, period: Period, now_ms: int) -> UsageFilter:
    """The records of a project in the present period."""
    whole = span(period, now_ms)
    return UsageFilter(projects=(project,), since_ms=whole.start_ms, until_ms=whole.end_ms)


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


def csv_head() -> str:
    """The names of the columns of `csv_lines`: those of a settled receipt."""
    return _line(_COLUMNS)


def csv_lines(records: Iterable[UsageRecord]) -> str:
    """The records as CSV (RFC 4180), without a head."""
    rows = (flat(receipt(record)) for record in records)
    return "".join(_line([row.get(name, "") for name in _COLUMNS]) for row in rows)


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
