"""Usage records in the database: written so that saying a thing twice changes nothing, and the questions that are asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Row
from sqlalchemy.sql.compiler import SQLCompiler

from supervisor.storage.money import cost_micros
from supervisor.storage.records import AcceptedRequest, Price, Settlement, TokenSource, TokenUsage, UsageRecord
from supervisor.storage.tables import usage_records as table

INTERRUPTED = "interrupted"
RETENTION_BATCH = 5_000
_COLUMNS = tuple(column.name for column in table.columns)
_OF_SETTLEMENT = _COLUMNS[_COLUMNS.index("outcome") :]


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which records: of any of these projects, keys, models, surfaces (none named: of all), from `since_ms` (inclusive) until `until_ms` (exclusive).

    `is_batch`: whether they are a batch's (None: either); `has_tokens`: only those that used any.
    """

    projects: tuple[str, ...] = ()
    key_ids: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    outcome: str | None = None
    is_batch: bool | None = None
    has_tokens: bool = False
    since_ms: int | None = None
    until_ms: int | None = None

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """For WHERE."""
        chosen = {"project": self.projects, "key_id": self.key_ids, "model": self.models, "surface": self.surfaces}
        clauses: list[sa.ColumnElement[bool]] = [_column(name).in_(values) for name, values in chosen.items() if values]
        if self.outcome is not None:
            clauses.append(table.c.outcome == self.outcome)
        if self.is_batch is not None:
            clauses.append(_column("batch") == self.is_batch)
        if self.has_tokens:
            clauses.append(_tokens() > 0)
        if self.since_ms is not None:
            clauses.append(table.c.accepted_at_ms >= self.since_ms)
        if self.until_ms is not None:
            clauses.append(table.c.accepted_at_ms < self.until_ms)
        return clauses


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Requests and tokens together. `cost_micros` is over the records that have a price; `unpriced` counts the others with tokens."""

    group: tuple[Any, ...]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_micros: int
    unpriced: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


def write(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows of `row_of`; of one that is there already, only an open record takes what is new."""
    if not rows:
        return
    # Past SQLAlchemy's handling of each parameter, which costs ten times what the database does with it.
    statement = _insert_of(connection.dialect)
    if statement.positional:
        connection.exec_driver_sql(str(statement), list(rows))
    else:
        connection.exec_driver_sql(str(statement), [dict(zip(_COLUMNS, row, strict=True)) for row in rows])


@lru_cache(maxsize=2)
def _insert_of(dialect: Dialect) -> SQLCompiler:
    # The other dialect, with its drivers, takes long to import.
    insert = import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)
    fresh = {name: insert.excluded[name] for name in _OF_SETTLEMENT}
    guarded = insert.on_conflict_do_update(index_elements=[table.c.id], set_=fresh, where=table.c.outcome.is_(None))
    return cast(SQLCompiler, guarded.compile(dialect=dialect))


def settle(connection: Connection, settlements: Iterable[Settlement]) -> None:
    """Settle records that are in the database and still open; the others are left as they are."""
    rows = [{"record": one.id, **dict(zip(_OF_SETTLEMENT, _settled(one), strict=True))} for one in settlements]
    if rows:
        where = (table.c.id == sa.bindparam("record")) & table.c.outcome.is_(None)
        connection.execute(table.update().where(where), rows)


def note(connection: Connection, used: Mapping[str, TokenUsage]) -> None:
    """Note what open records have used so far."""
    rows = [
        {"record": key, **dict(zip(_OF_SETTLEMENT[1:5], _open(usage)[1:5], strict=True))} for key, usage in used.items()
    ]
    if rows:
        where = (table.c.id == sa.bindparam("record")) & table.c.outcome.is_(None)
        connection.execute(table.update().where(where), rows)


def reconcile(connection: Connection, now_ms: int) -> int:
    """Settle what no supervisor is working on any more, as `interrupted`, with the tokens that were noted last; how many there were."""
    found = connection.execute(sa.select(table).where(table.c.outcome.is_(None))).fetchall()
    settle(connection, [_interrupted(row, now_ms) for row in found])
    return len(found)


def row_of(request: AcceptedRequest, settlement: Settlement | None, noted: TokenUsage) -> tuple[Any, ...]:
    """A record as a row, in the order of the table's columns; `noted` is what one that is still open has used so far."""
    price = request.price
    return (
        request.id, request.project, request.key_id, request.endpoint, request.surface, request.stream, request.accepted_at_ms,
        request.client_request_id, request.batch_id, None if price is None else price.input_micros,
        None if price is None else price.output_micros, request.reserved_micros, request.reserved_tokens,
        *(_open(noted) if settlement is None else _settled(settlement)),
    )  # fmt: skip


def record_of(row: Row[Any]) -> UsageRecord:
    """A row as a record."""
    values = row._mapping
    fields = {name: values[name] for name in AcceptedRequest._fields if name != "price"}
    request = AcceptedRequest(price=_price(row), **fields)
    if values["outcome"] is None:
        return UsageRecord(request, None)
    usage = _used(row)
    settled = {name: values[name] for name in Settlement._fields if name != "usage"}
    return UsageRecord(request, Settlement(usage=usage, **settled))


def one(connection: Connection, identity: str, project: str | None = None) -> UsageRecord | None:
    """The record of that id: ours, or (the newest) the client's; `project`: only that project's."""
    seen = sa.select(table)
    if project is not None:
        seen = seen.where(table.c.project == project)
    own = connection.execute(seen.where(table.c.id == identity)).first()
    if own is None:
        query = seen.where(table.c.client_request_id == identity).order_by(table.c.accepted_at_ms.desc())
        own = connection.execute(query.limit(1)).first()
    return None if own is None else record_of(own)


def page(
    connection: Connection, wanted: UsageFilter, limit: int, before: tuple[int, str] | None = None
) -> list[UsageRecord]:
    """At most `limit` records, newest first; `before` is `(accepted_at_ms, id)` of the last one of the page before."""
    query = sa.select(table).where(*wanted.clauses()).order_by(table.c.accepted_at_ms.desc(), table.c.id.desc())
    if before is not None:
        query = query.where(sa.tuple_(table.c.accepted_at_ms, table.c.id) < sa.tuple_(*before))
    return [record_of(row) for row in connection.execute(query.limit(limit))]


def page_forward(
    connection: Connection, wanted: UsageFilter, limit: int, after: tuple[int, str] | None = None
) -> list[UsageRecord]:
    """As `page`, oldest first: `after` is of the last one of the page before."""
    query = sa.select(table).where(*wanted.clauses()).order_by(table.c.accepted_at_ms, table.c.id)
    if after is not None:
        query = query.where(sa.tuple_(table.c.accepted_at_ms, table.c.id) > sa.tuple_(*after))
    return [record_of(row) for row in connection.execute(query.limit(limit))]


def sums(
    connection: Connection, wanted: UsageFilter, by: Sequence[str] = (), bucket_ms: int | None = None
) -> list[UsageSum]:
    """Settled records added up by `project`, `key_id`, `model`, `endpoint`, `outcome`, `batch` (is it one's?), by time in steps of `bucket_ms`.

    `group` holds the values in the order of `by`, after the beginning of the bucket (Unix ms) where there are buckets.
    """
    columns: list[sa.ColumnElement[Any]] = [_column(name) for name in by]
    if bucket_ms is not None:
        columns.insert(0, table.c.accepted_at_ms - table.c.accepted_at_ms % bucket_ms)
    figures = (
        sa.func.count(),
        *(
            sa.func.coalesce(sa.func.sum(table.c[name]), 0)
            for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_micros")
        ),
        unpriced_requests(),
    )
    query = sa.select(*columns, *figures).where(table.c.outcome.is_not(None), *wanted.clauses())
    if columns:
        query = query.group_by(*columns).order_by(*columns)
    width = len(columns)
    return [UsageSum(tuple(row[:width]), *map(int, row[width:])) for row in connection.execute(query)]


def unpriced_requests() -> sa.ColumnElement[int]:
    """How many of the records used tokens that have no price: an aggregate, for SELECT."""
    is_unpriced = table.c.cost_micros.is_(None) & (_tokens() > 0)
    return sa.func.coalesce(sa.func.sum(sa.case((is_unpriced, 1), else_=0)), 0)


def forget(connection: Connection, before_ms: int) -> int:
    """Delete at most RETENTION_BATCH records accepted before then; how many."""
    old = (
        sa.select(table.c.id)
        .where(table.c.accepted_at_ms < before_ms, table.c.outcome.is_not(None))
        .limit(RETENTION_BATCH)
    )
    return connection.execute(table.delete().where(table.c.id.in_(old))).rowcount


def _column(name: str) -> sa.ColumnElement[Any]:
    """What records are chosen and added up by."""
    if name == "model":
        return sa.func.coalesce(table.c.model, table.c.endpoint)
    return table.c.batch_id.is_not(None) if name == "batch" else table.c[name]


def _tokens() -> sa.ColumnElement[int]:
    return table.c.prompt_tokens + table.c.completion_tokens


def _settled(settlement: Settlement) -> tuple[Any, ...]:
    usage = settlement.usage
    return (
        settlement.outcome, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.source.value, settlement.cost_micros,
        settlement.settled_at_ms, settlement.error_code, settlement.model, settlement.instance, settlement.revision, settlement.route_reason,
        settlement.queued_ms, settlement.first_byte_ms, settlement.total_ms, settlement.energy_millijoules, settlement.co2_micrograms,
        settlement.energy_method,
    )  # fmt: skip


def _open(noted: TokenUsage) -> tuple[Any, ...]:
    counts = (noted.prompt_tokens, noted.completion_tokens, noted.cached_tokens, noted.source.value)
    return (None, *counts, *(None,) * (len(_OF_SETTLEMENT) - 5))


def _used(row: Row[Any]) -> TokenUsage:
    values = row._mapping
    counts = (values["prompt_tokens"], values["completion_tokens"], values["cached_tokens"])
    return TokenUsage(*counts, TokenSource(values["token_source"]))


def _price(row: Row[Any]) -> Price | None:
    values = row._mapping
    if values["price_input_micros"] is None:
        return None
    return Price(values["price_input_micros"], values["price_output_micros"])


def _interrupted(row: Row[Any], now_ms: int) -> Settlement:
    values, price = row._mapping, _price(row)
    usage = _used(row)
    cost = None if price is None else cost_micros(usage, price)
    return Settlement(values["id"], INTERRUPTED, usage, cost, now_ms, error_code="supervisor_killed")
