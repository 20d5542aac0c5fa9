"""Projects, their keys and their budgets in the database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from supervisor.errors import LlamavisorError, NotFoundError
from supervisor.storage.accounts import (
    Budget,
    BudgetUnit,
    KeyChanges,
    KeyRecord,
    LimitChanges,
    Limits,
    Period,
    Project,
    UsedInDay,
)
from supervisor.storage.records import Scope
from supervisor.storage.tables import budgets, keys, projects, usage_records
from supervisor.storage.usage import unpriced_requests

DAY_MS = 86_400_000
MILLISECONDS = 1_000
_IS_THERE = projects.c.removed_at_ms.is_(None)


class AlreadyExistsError(LlamavisorError):
    """There is one of that name already."""

    code, status = "already_exists", 409


class ProjectInUseError(LlamavisorError):
    """Something still needs the project, so that it cannot be removed."""

    code, status = "project_in_use", 409


def all_projects(connection: Connection) -> list[Project]:
    """Every project, by name; not those that are removed."""
    rows = connection.execute(sa.select(projects).where(_IS_THERE).order_by(projects.c.name))
    return [Project(row.name, _limits(row)) for row in rows]


def add_project(connection: Connection, project: Project) -> None:
    """Add one; the name of a removed one may be used again. AlreadyExistsError when it is taken."""
    if _project(connection, project.name) is not None:
        raise AlreadyExistsError(f"There is a project {project.name!r} already.", param="name")
    made = {"created_at_ms": int(time.time() * MILLISECONDS), "removed_at_ms": None, **asdict(project.limits)}
    if connection.execute(projects.update().where(projects.c.name == project.name).values(made)).rowcount == 0:
        connection.execute(projects.insert().values(name=project.name, **made))


def change_project(connection: Connection, name: str, limits: LimitChanges | None) -> Project:
    """Change its limits, as `Limits.changed`; how it is now. NotFoundError when there is none of that name."""
    known = require_project(connection, name)
    changed = Project(name, known.limits.changed(limits))
    connection.execute(projects.update().where(projects.c.name == name).values(asdict(changed.limits)))
    return changed


def remove_project(connection: Connection, name: str, now_ms: int) -> None:
    """Remove it, with its budgets. Its keys stay, revoked, and so does what it used.

    NotFoundError when there is none of that name, ProjectInUseError while a key of it is valid at `now_ms`.
    """
    require_project(connection, name)
    known = connection.execute(sa.select(keys).where(keys.c.project == name))
    valid = sum(_key(row).is_valid_at(now_ms) for row in known)
    if valid:
        raise ProjectInUseError(
            f"The project {name!r} has {valid} valid key{'' if valid == 1 else 's'}.",
            param="name",
            remedy=f"Revoke {'it' if valid == 1 else 'them'} first: `llamavisor keys revoke ID`.",
        )
    connection.execute(budgets.delete().where(budgets.c.project == name))
    # An expired key could be made to expire later.
    unrevoked = (keys.c.project == name) & keys.c.revoked_at_ms.is_(None)
    connection.execute(keys.update().where(unrevoked).values(revoked_at_ms=now_ms))
    connection.execute(projects.update().where(projects.c.name == name).values(removed_at_ms=now_ms))


def all_keys(connection: Connection) -> list[KeyRecord]:
    """Every key, revoked ones too, oldest first."""
    return [_key(row) for row in connection.execute(sa.select(keys).order_by(keys.c.created_at_ms, keys.c.id))]


def add_key(connection: Connection, key: KeyRecord) -> None:
    """Add one to its project. NotFoundError when there is no such project."""
    require_project(connection, key.project)
    values = {
        "id": key.id, "project": key.project, "secret_sha256": key.secret_sha256.hex(), "scopes": " ".join(sorted(key.scopes)), "label": key.label,
        "created_at_ms": key.created_at_ms, "expires_at_ms": key.expires_at_ms, "revoked_at_ms": key.revoked_at_ms, **asdict(key.limits),
    }  # fmt: skip
    connection.execute(keys.insert().values(values))


def change_key(connection: Connection, key_id: str, changes: KeyChanges) -> KeyRecord:
    """Change it, as `KeyRecord.changed`; how it is now. NotFoundError when there is none of that id, KeyRevokedError."""
    changed = _require_key(connection, key_id).changed(changes)
    values = {"label": changed.label, "expires_at_ms": changed.expires_at_ms, **asdict(changed.limits)}
    connection.execute(keys.update().where(keys.c.id == key_id).values(values))
    return changed


def revoke_key(connection: Connection, key_id: str, now_ms: int) -> None:
    """From now on it opens nothing; idempotent. NotFoundError when there is none of that id."""
    _require_key(connection, key_id)
    valid = (keys.c.id == key_id) & keys.c.revoked_at_ms.is_(None)
    connection.execute(keys.update().where(valid).values(revoked_at_ms=now_ms))


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
        _require_key_of(connection, budget.project, budget.key_id)
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


def require_project(connection: Connection, name: str) -> Project:
    """That project. NotFoundError when there is none."""
    project = _project(connection, name)
    if project is None:
        raise NotFoundError(f"There is no project {name!r}.", param="project")
    return project


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


def _project(connection: Connection, name: str) -> Project | None:
    row = connection.execute(sa.select(projects).where(_IS_THERE & (projects.c.name == name))).first()
    return None if row is None else Project(name, _limits(row))


def _require_key(connection: Connection, key_id: str) -> KeyRecord:
    row = connection.execute(sa.select(keys).where(keys.c.id == key_id)).first()
    if row is None:
        raise NotFoundError(f"There is no key {key_id!r}.", param="id")
    return _key(row)


def _require_key_of(connection: Connection, project: str, key_id: str) -> None:
    where = (keys.c.id == key_id) & (keys.c.project == project)
    if connection.execute(sa.select(keys.c.id).where(where)).first() is None:
        raise NotFoundError(f"There is no key {key_id!r} in the project {project!r}.", param="key_id")


def _key(row: Any) -> KeyRecord:
    return KeyRecord(
        row.id, row.project, bytes.fromhex(row.secret_sha256), _scopes(row.scopes.split()), row.created_at_ms, row.label,
        row.expires_at_ms, row.revoked_at_ms, _limits(row),
    )  # fmt: skip


def _limits(row: sa.Row[tuple[object, ...]]) -> Limits:
    return Limits(row.requests_per_minute, row.tokens_per_minute, row.concurrency)


def _scopes(names: Iterable[str]) -> frozenset[Scope]:
    return frozenset(Scope(name) for name in names)
