"""Projects, keys and budgets as JSON; the same for the routes and the pages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from supervisor.gateway.accounting.ledger import BudgetStatus
from supervisor.gateway.accounting.office import Office
from supervisor.storage.accounts import KeyRecord, Period, Project
from web.fields import iso


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


async def standings(office: Office) -> list[BudgetStatus]:
    """Every budget as it stands in the period of now."""
    ledger, now_ms = office.bookkeeper.ledger, office.bookkeeper.now_ms()
    owners = dict.fromkeys((budget.project, budget.key_id) for budget in await office.budgets())
    return [status for project, key_id in owners for status in ledger.budget_status(project, now_ms, key_id)]
