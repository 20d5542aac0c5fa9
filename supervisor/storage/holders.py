"""Projects, their keys and their budgets in the database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from supervisor.errors import LlamavisorError, NotFoundError
from supervisor.storage.accounts import Budget, BudgetUnit, KeyRecord, Limits, Period, Project, UsedInDay
from supervisor.storage.records import Scope
from supervisor.storage.tables import budgets, keys, projects, usage_records
from supervisor.storage.usage import unpriced_requests

DAY_MS = 86_400_000
MILLISECONDS = 1_000


class AlreadyExistsError(LlamavisorError):
    """There is one of that name already."""

    code, status = "already_exists", 409


def all_projects(connection: Connection) -> list[Project]:
    """Every project, by name."""
    rows = connection.execute(sa.select(projects).order_by(projects.c.name))
    return [Project(row.name, _limits(row)) for row in rows]


def add_project(connection: Connection, project: Project) -> None:
    """Add one. AlreadyExistsError when its name is taken."""
    if _has_project(connection, project.name):
        raise AlreadyExistsError(f"There is a project {project.name!r} already.", param="name")
    created_at_ms = int(time.time() * MILLISECONDS)
    connection.execute(
        projects.insert().values(name=project.name, created_at_ms=created_at_ms, **asdict(project.limits))
    )


def change_project(connection: Connection, project: Project) -> None:
    """Give it those limits. NotFoundError when there is none of that name."""
    require_project(connection, project.name)
    connection.execute(projects.update().where(projects.c.name == project.name).values(**asdict(project.limits)))


def all_keys(connection: Connection) -> list[KeyRecord]:
    """Every key, revoked ones too, oldest first."""
    rows = connection.execute(sa.select(keys).order_by(keys.c.created_at_ms, keys.c.id))
    return [
        KeyRecord(
            row.id, row.project, bytes.fromhex(row.secret_sha256), _scopes(row.scopes.split()), row.created_at_ms, row.label,
            row.expires_at_ms, row.revoked_at_ms, _limits(row),
        )
        for row in rows
    ]  # fmt: skip


def add_key(connection: Connection, key: KeyRecord) -> None:
    """Add one to its project. NotFoundError when there is no such project."""
    require_project(connection, key.project)
    values = {
        "id": key.id, "project": key.project, "secret_sha256": key.secret_sha256.hex(), "scopes": " ".join(sorted(key.scopes)), "label": key.label,
        "created_at_ms": key.created_at_ms, "expires_at_ms": key.expires_at_ms, "revoked_at_ms": key.revoked_at_ms, **asdict(key.limits),
    }  # fmt: skip
    connection.execute(keys.insert().values(values))


def revoke_key(connection: Connection, key_id: str, now_ms: int) -> None:
    """From now on it opens nothing; idempotent. NotFoundError when there is none of that id."""
    where = keys.c.id == key_id
    if connection.execute(sa.select(keys.c.id).where(where)).first() is None:
        raise NotFoundError(f"There is no key {key_id!r}.", param="id")
    connection.execute(keys.update().where(where & keys.c.revoked_at_ms.is_(None)).values(revoked_at_ms=now_ms))


def all_budgets(connection: Connection) -> list[Budget]:
    """Every budget."""
    columns = (budgets.c.project, budgets.c.key_id, budgets.c.period, budgets.c.unit)
    rows = connection.execute(sa.select(budgets).order_by(*columns))
    return [
        Budget(row.project, Period(row.period), BudgetUnit(row.unit), row.amount, row.key_id or None) for row in rows
    ]


def set_budget(connection: Connection, budget: Budget) -> None:
    """Set it, over the one of the same owner, period and unit. NotFoundError when there is no such project, or no such key in it."""
    require_project(connection, budget.project)
    if budget.key_id is not None:
        _require_key(connection, budget.project, budget.key_id)
    remove_budget(connection, budget)
    connection.execute(budgets.insert().values({**asdict(budget), "key_id": budget.key_id or ""}))


def remove_budget(connection: Connection, budget: Budget) -> bool:
    """Remove the one of that owner, period and unit; whether there was one."""
    where = (
        (budgets.c.project == budget.project)
        & (budgets.c.key_id == (budget.key_id or ""))
        & (budgets.c.period == budget.period)
        & (budgets.c.unit == budget.unit)
    )
    return connection.execute(budgets.delete().where(where)).rowcount > 0


def require_project(connection: Connection, project: str) -> None:
    """Raise NotFoundError unless there is that project."""
    if not _has_project(connection, project):
        raise NotFoundError(f"There is no project {project!r}.", param="project")


def used_by_day(connection: Connection, since_ms: int) -> list[UsedInDay]:
    """What settled requests accepted from then on came to, by project, key and UTC day."""
    day = usage_records.c.accepted_at_ms - usage_records.c.accepted_at_ms % DAY_MS
    group = (usage_records.c.project, usage_records.c.key_id, day)
    tokens = usage_records.c.prompt_tokens + usage_records.c.completion_tokens
    micros = sa.func.coalesce(sa.func.sum(usage_records.c.cost_micros), 0)
    query = (
        sa.select(*group, micros, sa.func.sum(tokens), unpriced_requests())
        .where(usage_records.c.outcome.is_not(None), usage_records.c.accepted_at_ms >= since_ms)
        .group_by(*group)
    )
    return [UsedInDay(row[0], row[1], *map(int, row[2:])) for row in connection.execute(query)]


def _has_project(connection: Connection, name: str) -> bool:
    return connection.execute(sa.select(projects.c.name).where(projects.c.name == name)).first() is not None


def _require_key(connection: Connection, project: str, key_id: str) -> None:
    where = (keys.c.id == key_id) & (keys.c.project == project)
    if connection.execute(sa.select(keys.c.id).where(where)).first() is None:
        raise NotFoundError(f"There is no key {key_id!r} in the project {project!r}.", param="key_id")


def _limits(row: sa.Row[tuple[object, ...]]) -> Limits:
    return Limits(row.requests_per_minute, row.tokens_per_minute, row.concurrency)


def _scopes(names: Iterable[str]) -> frozenset[Scope]:
    return frozenset(Scope(name) for name in names)
