"""Projects, keys, budgets and requests on their way as JSON; the same for the routes and the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from supervisor.gateway.accounting.ledger import BudgetStatus
from supervisor.gateway.accounting.office import Office
from supervisor.gateway.accounting.reports import receipt
from supervisor.gateway.inflight import InFlightRequest
from supervisor.storage.accounts import KeyRecord, Period, Project
from supervisor.storage.records import UsageRecord
from web.fields import iso
from web.waiting import waiting_data


def currency_of(office: Office) -> str:
    """`accounting.currency`, in which all amounts are."""
    return office.bookkeeper.ledger.currency


def project_data(office: Office, project: Project) -> dict[str, Any]:
    """One project, and what it has used this month."""
    used = office.bookkeeper.ledger.used(project.name, office.bookkeeper.now_ms())[Period.MONTH]
    month = {
        "tokens": used.tokens,
        "cost_micros": used.micros,
        "currency": currency_of(office),
        "unpriced_requests": used.unpriced_requests,
    }
    return {"name": project.name, "limits": asdict(project.limits), "month": month}


def key_data(key: KeyRecord) -> dict[str, Any]:
    """One key as it is kept; never its secret."""
    return {
        "id": key.id,
        "project": key.project,
        "label": key.label,
        "scopes": sorted(key.scopes),
        "created_at": iso(key.created_at_ms),
        "expires_at": iso(key.expires_at_ms),
        "revoked_at": iso(key.revoked_at_ms),
        "limits": asdict(key.limits),
    }


def budget_data(office: Office, status: BudgetStatus) -> dict[str, Any]:
    """One budget, and how it stands."""
    budget = status.budget
    return {
        "project": budget.project,
        "key_id": budget.key_id,
        "period": budget.period.value,
        "unit": budget.unit.value,
        "amount": budget.amount,
        "spent": status.spent,
        "reserved": status.reserved,
        "remaining": status.remaining,
        "resets_at": iso(status.end_ms),
        "currency": currency_of(office),
    }


def in_flight_data(one: InFlightRequest, labels: Mapping[str, str]) -> dict[str, Any]:
    """One request that is on its way; `labels` are what people call the keys."""
    request = one.request
    return {
        "id": request.id,
        "object": "request.in_flight",
        "client_request_id": request.client_request_id,
        "project": request.project,
        "key_id": request.key_id,
        "key_label": None if request.key_id is None else labels.get(request.key_id),
        "endpoint": request.endpoint,
        "surface": request.surface,
        "stream": request.stream,
        "batch_id": request.batch_id,
        "accepted_at": iso(request.accepted_at_ms),
        "seconds": round(one.seconds, 3),
        "stage": one.stage.value,
        "instance": one.instance,
        "waiting": None if one.waiting is None else waiting_data(one.waiting),
        "completion_tokens": one.usage.completion_tokens,
    }


def receipt_data(office: Office, record: UsageRecord) -> dict[str, Any]:
    """All that is known of one request, and the currency of its cost."""
    told = receipt(record)
    return {**told, "cost": {**told["cost"], "currency": currency_of(office)}} if "cost" in told else told


async def standings(office: Office) -> list[BudgetStatus]:
    """Every budget as it stands in the period of now."""
    ledger, now_ms = office.bookkeeper.ledger, office.bookkeeper.now_ms()
    owners = dict.fromkeys((budget.project, budget.key_id) for budget in await office.budgets())
    return [status for project, key_id in owners for status in ledger.budget_status(project, now_ms, key_id)]


def binding(office: Office, project: str, key_id: str | None) -> list[BudgetStatus]:
    """The budgets that bound a key of the project (None: the project's own alone), that with the smallest share left first."""
    ledger, now_ms = office.bookkeeper.ledger, office.bookkeeper.now_ms()
    own = () if key_id is None else ledger.budget_status(project, now_ms, key_id)
    return sorted((*ledger.budget_status(project, now_ms), *own), key=share_left)


def share_left(status: BudgetStatus) -> float:
    """What is left of a budget, 1 for all of it; nothing of one that allows nothing."""
    return status.remaining / status.budget.amount if status.budget.amount else 0.0
