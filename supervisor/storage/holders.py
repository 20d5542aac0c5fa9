"""Projects, their keys and their budgets: who may call, and how much they may use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from supervisor.errors import LlamavisorError, NotFoundError
from supervisor.storage.records import Scope
from supervisor.storage.tables import budgets, keys, projects


class AlreadyExistsError(LlamavisorError):
    """There is one of that name already."""

    code, status = "already_exists", 409


class Period(StrEnum):
    """What a budget is for: a calendar day, a week from Monday, a month; in UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Unit(StrEnum):
    """What a budget counts."""

    MICROS = "micros"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at a time; None: no limit. `concurrency` is of requests under way."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """Who pays."""

    id: str
    name: str
    created_at_ms: int
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key, without its secret: `digest` is the SHA-256 (hex) of that."""

    id: str
    project: str
    name: str
    digest: str = field(repr=False)
    scopes: frozenset[Scope]
    created_at_ms: int
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a project may use in each period. Zero is zero."""

    project: str
    period: Period
    unit: Unit
    amount: int


def all_projects(connection: Connection) -> list[Project]:
    """Every project, by id."""
    rows = connection.execute(sa.select(projects).order_by(projects.c.id))
    return [Project(row.id, row.name, row.created_at_ms, _limits(row)) for row in rows]


def add_project(connection: Connection, project: Project) -> None:
    """Add one. AlreadyExistsError when its id is taken."""
    taken = connection.execute(sa.select(projects.c.id).where(projects.c.id == project.id)).first()
    if taken is not None:
        raise AlreadyExistsError(f"There is a project {project.id!r} already.", param="id")
    values = {"id": project.id, "name": project.name, "created_at_ms": project.created_at_ms, **asdict(project.limits)}
    connection.execute(projects.insert().values(values))


def change_project(connection: Connection, project: Project) -> None:
    """Give it that name and those limits."""
    values = {"name": project.name, **asdict(project.limits)}
    connection.execute(projects.update().where(projects.c.id == project.id).values(values))


def all_keys(connection: Connection) -> list[KeyRecord]:
    """Every key, revoked ones too, oldest first."""
    rows = connection.execute(sa.select(keys).order_by(keys.c.created_at_ms, keys.c.id))
    return [
        KeyRecord(
            row.id, row.project, row.name, row.digest, _scopes(row.scopes.split()), row.created_at_ms, row.expires_at_ms, row.revoked_at_ms,
            _limits(row),
        )
        for row in rows
    ]  # fmt: skip


def add_key(connection: Connection, key: KeyRecord) -> None:
    """Add one to its project. NotFoundError when there is no such project."""
    require_project(connection, key.project)
    values = {**asdict(replace(key, limits=Limits())), "scopes": " ".join(sorted(key.scopes)), **asdict(key.limits)}
    values.pop("limits")
    connection.execute(keys.insert().values(values))


def revoke_key(connection: Connection, key_id: str, now_ms: int) -> None:
    """From now on it opens nothing; idempotent. NotFoundError when there is none of that id."""
    where = keys.c.id == key_id
    if connection.execute(sa.select(keys.c.id).where(where)).first() is None:
        raise NotFoundError(f"There is no key {key_id!r}.", param="id")
    connection.execute(keys.update().where(where & keys.c.revoked_at_ms.is_(None)).values(revoked_at_ms=now_ms))


def all_budgets(connection: Connection) -> list[Budget]:
    """Every budget."""
    rows = connection.execute(sa.select(budgets).order_by(budgets.c.project, budgets.c.period, budgets.c.unit))
    return [Budget(row.project, Period(row.period), Unit(row.unit), row.amount) for row in rows]


def set_budget(connection: Connection, budget: Budget) -> None:
    """Set it, over the one of the same period and unit. NotFoundError when there is no such project."""
    require_project(connection, budget.project)
    remove_budget(connection, budget.project, budget.period, budget.unit)
    connection.execute(budgets.insert().values(asdict(budget)))


def remove_budget(connection: Connection, project: str, period: Period, unit: Unit) -> bool:
    """Remove one; whether there was one."""
    where = (budgets.c.project == project) & (budgets.c.period == period) & (budgets.c.unit == unit)
    return connection.execute(budgets.delete().where(where)).rowcount > 0


def require_project(connection: Connection, project: str) -> None:
    """Raise NotFoundError unless there is that project."""
    if connection.execute(sa.select(projects.c.id).where(projects.c.id == project)).first() is None:
        raise NotFoundError(f"There is no project {project!r}.", param="project")


def _limits(row: sa.Row[tuple[object, ...]]) -> Limits:
    return Limits(row.requests_per_minute, row.tokens_per_minute, row.concurrency)


def _scopes(names: Iterable[str]) -> frozenset[Scope]:
    return frozenset(Scope(name) for name in names)
