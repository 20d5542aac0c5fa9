"""Projects, keys, budgets and requests on their way as JSON; the same for the routes and the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from supervisor.gateway.accounting.ledger import BudgetStatus
from supervisor.gateway.accounting.office import Office
from supervisor.gateway.inflight import InFlightRequest
from supervisor.storage.accounts import KeyRecord, Period, Project
from web.fields import iso
from web.waiting import waiting_data


def project_data(office: Office, project: Project) -> dict[str, Any]:
    """One project, and what it has used this month."""
    micros, tokens = office.bookkeeper.ledger.used(project.name, office.bookkeeper.now_ms())[Period.MONTH]
    return {
        "name": project.name,
        "limits": asdict(project.limits),
        "month": {"tokens": tokens, "cost_micros": micros},
    }


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


def budget_data(status: BudgetStatus) -> dict[str, Any]:
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


async def standings(office: Office) -> list[BudgetStatus]:
    """Every budget as it stands in the period of now."""
    ledger, now_ms = office.bookkeeper.ledger, office.bookkeeper.now_ms()
    owners = dict.fromkeys((budget.project, budget.key_id) for budget in await office.budgets())
    return [status for project, key_id in owners for status in ledger.budget_status(project, now_ms, key_id)]
