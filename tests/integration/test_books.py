"""The books on both databases: what was accepted is there once, with its end, whatever was killed, locked or full meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa

from supervisor.clock import SystemClock
from supervisor.errors import NotFoundError
from supervisor.storage import holders, holding, usage
from supervisor.storage.accounts import Budget, BudgetUnit, KeyRecord, KeyRevokedError, Limits, Period, Project
from supervisor.storage.books import Books, StoragePlan
from supervisor.storage.database import (
    HEAD_REVISION,
    StorageRefusedError,
    StorageUnavailableError,
    _renew,
    open_sqlite,
)
from supervisor.storage.holders import AlreadyExistsError, ProjectInUseError
from supervisor.storage.holding import DatabaseInUseError
from supervisor.storage.journal import read_segment, segments
from supervisor.storage.records import AcceptedRequest, Price, Scope, Settlement, TokenSource, TokenUsage
from supervisor.storage.tables import metadata
from supervisor.storage.usage import UsageFilter
from tests.fixtures.postgres import Cluster, cluster

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
GENEROUS_SECONDS = 30.0
NOW_MS = int(SystemClock().wall() * 1_000)
HOUR_MS = 3_600_000
KILLS = 4
TRIES = 1_000

Opener = Callable[[], "asyncio.Future[Books]"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Cluster]:
    """One server for the module."""
    with cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def plan(request: pytest.FixtureRequest) -> StoragePlan:
    """An empty database of each kind."""
    url = request.getfixturevalue("postgres").database() if request.param == "postgresql" else None
    return StoragePlan(url, sync_seconds=0.01, write_seconds=0.01)


@pytest_asyncio.fixture
async def books(plan: StoragePlan, tmp_path: Path) -> AsyncIterator[Books]:
    """Open books."""
    books = await Books.open(plan, tmp_path, SystemClock())
    yield books
    await books.close()


def accepted(name: str, **fields: object) -> AcceptedRequest:
    """A request."""
    given = AcceptedRequest(
        name, "default", "k1", "demo", "chat", stream=True, accepted_at_ms=NOW_MS, price=Price(1_000_000, 2_000_000)
    )
    return given._replace(**fields)  # type: ignore[arg-type]


def settled(name: str, tokens: int = 20, **fields: object) -> Settlement:
    """Its good end."""
    tokens_used = TokenUsage(10, tokens, 4, TokenSource.ENGINE)
    given = Settlement(
        name, "ok", tokens_used, 10 + 2 * tokens, NOW_MS + 5, model="tiny", instance="demo", total_ms=5.0
    )
    return given._replace(**fields)  # type: ignore[arg-type]


async def test_a_record_comes_back_as_it_was_written(books: Books) -> None:
    request = accepted("one", client_request_id="theirs", batch_id="b", reserved_micros=7, reserved_tokens=8)
    end = settled(
        "one",
        revision=3,
        route_reason="asked for",
        queued_ms=0.5,
        first_byte_ms=1.5,
        energy_millijoules=9,
        energy_method="modelled",
    )
    books.accept(request)
    books.settle(end)
    for name in ("one", "theirs"):
        record = await books.query(usage.one, name)
        assert record is not None
        assert (record.request, record.settlement) == (request, end)
    assert await books.query(usage.one, "nobody") is None


async def test_saying_it_twice_changes_nothing(books: Books) -> None:
    for _ in range(2):
        books.accept(accepted("one"))
        books.settle(settled("one"))
        books.settle(settled("one", tokens=99))
        await books.query(usage.sums, UsageFilter())
    (total,) = await books.query(usage.sums, UsageFilter())
    assert (total.requests, total.completion_tokens, total.cost_micros) == (1, 20, 50)


async def test_what_ends_in_another_batch_than_it_began_is_one_record(books: Books) -> None:
    books.accept(accepted("one"))
    assert (await books.query(usage.page, UsageFilter(), 10))[0].settlement is None
    books.note("one", TokenUsage(3, 7, 0, TokenSource.COUNTED))
    await books.query(usage.sums, UsageFilter())
    books.settle(settled("one"))
    (record,) = await books.query(usage.page, UsageFilter(), 10)
    assert record.settlement == settled("one")


async def test_sums_by_project_model_and_hour(books: Books) -> None:
    for number, (project, hours) in enumerate([("a", 0), ("a", 0), ("a", 1), ("b", 1)]):
        books.accept(accepted(f"r{number}", project=project, accepted_at_ms=NOW_MS + hours * HOUR_MS))
        books.settle(settled(f"r{number}"))
    books.accept(accepted("open", project="a"))
    books.accept(accepted("free", project="b", price=None))
    books.settle(settled("free", cost_micros=None))
    by_project = {one.group: one for one in await books.query(usage.sums, UsageFilter(), ("project", "model"))}
    assert {group: (one.requests, one.cost_micros, one.unpriced) for group, one in by_project.items()} == {
        ("a", "tiny"): (3, 150, 0), ("b", "tiny"): (2, 50, 1),
    }  # fmt: skip
    hourly = await books.query(usage.sums, UsageFilter(("a",)), (), HOUR_MS)
    assert [one.requests for one in hourly] == [2, 1]
    assert hourly[1].group[0] - hourly[0].group[0] == HOUR_MS
    since = UsageFilter(
        since_ms=NOW_MS + 1, until_ms=NOW_MS + 2 * HOUR_MS, models=("tiny",), outcome="ok", key_ids=("k1",)
    )
    assert [one.requests for one in await books.query(usage.sums, since)] == [2]


async def test_pages_go_back_in_time_without_gaps(books: Books) -> None:
    for number in range(25):
        books.accept(accepted(f"r{number:02}", accepted_at_ms=NOW_MS + number // 3))
        books.settle(settled(f"r{number:02}"))
    seen, before = [], None
    while records := await books.query(usage.page, UsageFilter(), 10, before):
        seen += [record.request.id for record in records]
        before = (records[-1].request.accepted_at_ms, records[-1].request.id)
    assert seen == [f"r{number:02}" for number in reversed(range(25))]
    everything = await books.query(
        lambda connection: [record.request.id for record in usage.page_forward(connection, UsageFilter(), 1_000)]
    )
    assert everything == seen[::-1]


def test_a_database_is_one_supervisors(postgres: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "WAIT_SECONDS", 0.05)
    url = sa.make_url(postgres.database()).set(drivername="postgresql+psycopg")
    first, second, other = sa.create_engine(url), sa.create_engine(url), sa.create_engine(url.set(database="postgres"))
    holding.hold_alone(first)
    holding.hold_alone(other)
    for _ in range(2):
        with pytest.raises(DatabaseInUseError) as refusal:
            holding.hold_alone(second)
        assert refusal.value.param == "storage.url"
    first.dispose()
    holding.hold_alone(second)
    for engine in (second, other):
        engine.dispose()


async def test_old_records_are_forgotten(plan: StoragePlan, tmp_path: Path) -> None:
    books = await Books.open(plan, tmp_path, SystemClock())
    for name, age_ms in (("old", 3 * 86_400_000), ("young", 0)):
        books.accept(accepted(name, accepted_at_ms=NOW_MS - age_ms))
        books.settle(settled(name))
    await books.close()
    books = await Books.open(replace(plan, retention_days=2), tmp_path, SystemClock())
    for _ in range(TRIES):
        if await books.query(usage.one, "old") is None:
            break
        await asyncio.sleep(0.01)
    assert await books.query(usage.one, "old") is None
    assert await books.query(usage.one, "young") is not None
    await books.close()


async def test_projects_keys_and_budgets_are_kept(books: Books) -> None:
    project = Project("team", Limits(60, 2**53 - 1, 4))
    key = KeyRecord(
        "kid",
        "team",
        bytes(32),
        frozenset({Scope.INFERENCE, Scope.READ}),
        NOW_MS,
        "laptop",
        NOW_MS + 1,
        None,
        Limits(2**53 - 1),
    )
    budget = Budget("team", Period.DAY, BudgetUnit.MICROS, 0)
    own = replace(budget, key_id="kid", amount=3)
    await books.query(holders.add_project, project)
    with pytest.raises(AlreadyExistsError):
        await books.query(holders.add_project, project)
    await books.query(holders.add_key, key)
    await books.query(holders.set_budget, replace(budget, amount=5))
    await books.query(holders.set_budget, budget)
    await books.query(holders.set_budget, own)
    changed = replace(project, limits=Limits(7, 2**53 - 1))
    limits = {"requests_per_minute": 7, "concurrency": None}
    assert await books.query(holders.change_project, "team", limits) == changed
    assert await books.query(holders.all_projects) == [changed]
    assert await books.query(holders.all_keys) == [key]
    relabelled = replace(key, label="desk", expires_at_ms=None, limits=Limits(2**53 - 1, 5))
    assert (
        await books.query(
            holders.change_key, "kid", {"label": "desk", "expires_at_ms": None, "limits": {"tokens_per_minute": 5}}
        )
        == relabelled
    )
    assert await books.query(holders.all_keys) == [relabelled]
    assert await books.query(holders.all_budgets) == [budget, own]
    for _ in range(2):
        await books.query(holders.revoke_key, "kid", NOW_MS + 9)
    assert (await books.query(holders.all_keys))[0].revoked_at_ms == NOW_MS + 9
    with pytest.raises(KeyRevokedError):
        await books.query(holders.change_key, "kid", {"limits": None})
    assert (await books.query(holders.change_key, "kid", {"label": "gone"})).label == "gone"
    assert await books.query(holders.remove_budget, budget)
    assert not await books.query(holders.remove_budget, budget)
    assert await books.query(holders.all_budgets) == [own]


async def test_a_removed_project_leaves_its_revoked_keys_and_what_it_used(books: Books) -> None:
    key = KeyRecord("kid", "team", bytes(32), frozenset({Scope.INFERENCE}), NOW_MS)
    expired = replace(key, id="old", expires_at_ms=NOW_MS)
    await books.query(holders.add_project, Project("team", Limits(1)))
    for each in (key, expired):
        await books.query(holders.add_key, each)
    for owner in (None, "kid"):
        await books.query(holders.set_budget, Budget("team", Period.DAY, BudgetUnit.MICROS, 5, owner))
    books.accept(accepted("one", project="team", key_id="kid"))
    books.settle(settled("one"))
    with pytest.raises(ProjectInUseError, match="has 1 valid key"):
        await books.query(holders.remove_project, "team", NOW_MS)
    await books.query(holders.revoke_key, "kid", NOW_MS)
    await books.query(holders.remove_project, "team", NOW_MS)
    assert await books.query(holders.all_projects) == []
    assert await books.query(holders.all_budgets) == []
    known = {one.id: one.revoked_at_ms for one in await books.query(holders.all_keys)}
    # Who has expired cannot be made to live longer.
    assert known == {"kid": NOW_MS, "old": NOW_MS}
    assert (await books.query(usage.one, "one")) is not None
    (total,) = await books.query(usage.sums, UsageFilter(("team",)))
    assert total.requests == 1
    for gone in (
        books.query(holders.add_key, replace(key, id="new")),
        books.query(holders.set_budget, Budget("team", Period.DAY, BudgetUnit.MICROS, 1)),
        books.query(holders.change_project, "team", {}),
        books.query(holders.remove_project, "team", NOW_MS),
    ):
        with pytest.raises(NotFoundError):
            await gone
    await books.query(holders.add_project, Project("team"))
    assert await books.query(holders.all_projects) == [Project("team")]
    with pytest.raises(AlreadyExistsError):
        await books.query(holders.add_project, Project("team"))


async def test_what_names_nothing_is_refused(books: Books) -> None:
    await books.query(holders.add_project, Project("team"))
    for call in (
        books.query(holders.add_key, KeyRecord("kid", "nobody", bytes(32), frozenset(Scope), NOW_MS)),
        books.query(holders.revoke_key, "kid", NOW_MS),
        books.query(holders.change_key, "kid", {"label": "x"}),
        books.query(holders.change_project, "nobody", {}),
        books.query(holders.remove_project, "nobody", NOW_MS),
        books.query(holders.set_budget, Budget("nobody", Period.DAY, BudgetUnit.MICROS, 1)),
        books.query(holders.set_budget, Budget("team", Period.DAY, BudgetUnit.MICROS, 1, "nobody")),
    ):
        with pytest.raises(NotFoundError):
            await call


async def test_what_was_used_is_added_up_by_day_to_restore_the_ledger(books: Books) -> None:
    day_ms = NOW_MS - NOW_MS % holders.DAY_MS
    for number, (key, days) in enumerate([("k1", 0), ("k1", 0), (None, 0), ("k1", -1), ("k1", -9)]):
        books.accept(accepted(f"r{number}", key_id=key, accepted_at_ms=day_ms + days * holders.DAY_MS + number))
        books.settle(settled(f"r{number}"))
    for name, used_tokens in (("free", TokenUsage(1, 2)), ("nothing", TokenUsage())):
        books.accept(accepted(name, price=None, accepted_at_ms=day_ms))
        books.settle(settled(name, usage=used_tokens, cost_micros=None))
    books.accept(accepted("open", price=None, accepted_at_ms=day_ms))
    books.note("open", TokenUsage(3, 7, 0, TokenSource.COUNTED))
    used = await books.query(holders.used_by_day, day_ms - 2 * holders.DAY_MS)
    told = [
        (row.key_id or "", row.day_start_ms - day_ms, row.micros, row.tokens, row.unpriced_requests) for row in used
    ]
    assert sorted(told) == [("", 0, 50, 30, 0), ("k1", -holders.DAY_MS, 50, 30, 0), ("k1", 0, 100, 63, 1)]


WORKER = """
import itertools, os, sys, asyncio
from pathlib import Path
from supervisor.clock import SystemClock
from supervisor.errors import NotFoundError
from supervisor.storage.books import Books, StoragePlan
from supervisor.storage.records import TokenSource, TokenUsage
from tests.integration.test_books import accepted, settled

async def main(folder, url, run):
    books = await Books.open(StoragePlan(url or None, sync_seconds=0.01, write_seconds=0.01), Path(folder), SystemClock())
    for number in itertools.count():
        name = f"{run}-{number}"
        books.accept(accepted(name))
        os.write(1, f"a {name}\\n".encode())
        if number % 3:
            books.note(name, TokenUsage(1, 5, 0, TokenSource.COUNTED))
            books.settle(settled(name))
            os.write(1, f"s {name}\\n".encode())
        await asyncio.sleep(0)

asyncio.run(main(*sys.argv[1:]))
"""


def run_until_killed(plan: StoragePlan, folder: Path, run: int, told: dict[str, set[str]]) -> None:
    """A supervisor that is killed in the middle of its work; what it said that it did goes into `told`."""
    arguments = [sys.executable, "-c", WORKER, str(folder), plan.url or "", str(run)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            kind, _, name = line.strip().partition(" ")
            told[kind].add(name)
            if int(name.partition("-")[2]) == 17 * run:
                os.kill(worker.pid, signal.SIGKILL)


async def test_a_kill_loses_and_doubles_nothing(plan: StoragePlan, tmp_path: Path) -> None:
    told: dict[str, set[str]] = {"a": set(), "s": set()}
    for run in range(KILLS):
        await asyncio.to_thread(run_until_killed, plan, tmp_path, run, told)
    books = await Books.open(plan, tmp_path, SystemClock())
    records = await books.query(lambda connection: usage.page_forward(connection, UsageFilter(), 1_000))
    await books.close()
    names = [record.request.id for record in records]
    assert len(names) == len(set(names))
    # The last one of a run may have been accepted without a word.
    assert told["a"] <= set(names)
    assert len(names) - len(told["a"]) <= KILLS
    for record in records:
        assert record.settlement is not None
        if record.request.id in told["s"]:
            assert record.settlement.outcome == "ok"
        elif int(record.request.id.partition("-")[2]) % 3 == 0:
            assert record.settlement.outcome == usage.INTERRUPTED


async def test_an_interrupted_answer_costs_what_was_noted(plan: StoragePlan, tmp_path: Path) -> None:
    books = await Books.open(plan, tmp_path, SystemClock())
    books.accept(accepted("one"))
    books.note("one", TokenUsage(4, 9, 0, TokenSource.COUNTED))
    await books.close()
    books = await Books.open(plan, tmp_path, SystemClock())
    assert books.reconciled == 1
    record = await books.query(usage.one, "one")
    assert record is not None
    assert record.settlement is not None
    assert record.settlement.outcome == usage.INTERRUPTED
    assert (record.settlement.usage.completion_tokens, record.settlement.cost_micros) == (9, 22)
    await books.close()


# Row 56


async def test_row_56_a_locked_database_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.storage.database.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("supervisor.storage.writer.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("supervisor.storage.writer.PENDING_LIMIT", 100)
    books = await Books.open(StoragePlan(write_seconds=0.01), tmp_path, SystemClock())
    locker = sqlite3.connect(tmp_path / "llamavisor.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    for number in range(1_000):
        books.accept(accepted(f"r{number}"))
        books.settle(settled(f"r{number}"))
    monkeypatch.setattr("supervisor.storage.books.FLUSH_SECONDS", 0.2)
    with pytest.raises(StorageUnavailableError):
        await books.query(usage.sums, UsageFilter())
    assert any("database" in fault for fault in books.faults)
    locker.execute("ROLLBACK")
    locker.close()
    monkeypatch.setattr("supervisor.storage.books.FLUSH_SECONDS", GENEROUS_SECONDS)
    (total,) = await books.query(usage.sums, UsageFilter())
    assert total.requests == 1_000
    assert books.faults == []
    await books.close()


async def test_row_56_a_database_that_is_gone_at_the_start_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError) as caught:
        await Books.open(StoragePlan("postgresql://nobody@127.0.0.1:1/none"), tmp_path, SystemClock())
    assert caught.value.param == "storage.url"


# Row 33


async def test_row_33_a_full_disk_is_flagged_and_leaves_no_half_line(tmp_path: Path) -> None:
    books = await Books.open(StoragePlan(write_seconds=0.01), tmp_path, SystemClock())
    journal = segments(tmp_path / "journal")[-1]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    books.accept(accepted("before"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 40, before[1]))
    try:
        books.accept(accepted("during"))
        assert any("journal" in fault for fault in books.faults)
        size = journal.stat().st_size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.read_bytes().endswith(b"\n")
    books.accept(accepted("after"))
    assert journal.stat().st_size > size
    assert [getattr(entry, "id", None) for entry in read_segment(journal)] == ["before", "after"]
    # From memory, the one that the journal could not take is in the database all the same.
    assert await books.query(usage.one, "during") is not None
    assert books.faults == []
    await books.close()


async def test_what_no_database_takes_is_kept_as_near_as_possible_and_harms_no_other(
    plan: StoragePlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Written by a process that was killed before the thread came to it, so that the next start meets it, too.
    for attempt in ("first", "at the next start"):
        books = await Books.open(plan, tmp_path, SystemClock())
        if attempt == "first":
            books.accept(accepted("before"))
            books.accept(accepted("text", endpoint="nul\0 and half a pair \ud800"))
            books.accept(accepted("number", reserved_tokens=-(10**30)))
            books.settle(settled("number", tokens=10**30))
            books.accept(accepted("after"))
            books.settle(settled("after"))
            shutil.copytree(tmp_path / "journal", tmp_path / "kept")
        found = {name: await books.query(usage.one, name) for name in ("before", "text", "number", "after")}
        assert all(found.values()), attempt
        assert found["text"] is not None
        assert found["text"].request.endpoint == "nul\ufffd and half a pair ?"
        assert found["number"] is not None
        assert found["number"].settlement is not None
        assert found["number"].settlement.usage.completion_tokens == 2**63 - 1
        assert books.faults == []
        await books.close()
        shutil.rmtree(tmp_path / "journal")
        shutil.copytree(tmp_path / "kept", tmp_path / "journal")
    assert "kept as near as possible" in caplog.text


async def test_row_33_a_segment_that_cannot_be_opened_leaves_the_present_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.storage.journal.SEGMENT_BYTES", 500)
    books = await Books.open(StoragePlan(write_seconds=0.01), tmp_path, SystemClock())
    (present,) = segments(tmp_path / "journal")
    in_the_way = present.with_stem(f"{int(present.stem) + 1:010d}")
    in_the_way.mkdir()
    names = [f"r{number}" for number in range(12)]
    for name in names[:6]:
        books.accept(accepted(name))
    assert any("journal" in fault for fault in books.faults)
    await books.query(usage.sums, UsageFilter())
    assert [getattr(entry, "id", None) for entry in read_segment(present)] == names[:6]
    in_the_way.rmdir()
    for name in names[6:]:
        books.accept(accepted(name))
        assert books.faults == []
    assert {name for name in names if await books.query(usage.one, name) is not None} == set(names)
    await books.close()


# Row 57


@pytest.mark.parametrize("damage", ["not a database", "torn", "newer", "half made"])
async def test_row_57_a_database_that_cannot_be_trusted_is_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    open_sqlite(tmp_path).dispose()
    path = tmp_path / "llamavisor.db"
    if damage == "not a database":
        path.write_bytes(b"x" * 5_000)
    elif damage == "torn":
        data = bytearray(path.read_bytes())
        data[4_096:12_000] = b"\xff" * (12_000 - 4_096)
        path.write_bytes(data)
    else:
        connection = sqlite3.connect(path)
        connection.execute(
            "UPDATE alembic_version SET version_num = '9999'" if damage == "newer" else "DELETE FROM alembic_version"
        )
        connection.commit()
        connection.close()
    content = path.read_bytes()
    with pytest.raises(StorageRefusedError) as caught:
        await Books.open(StoragePlan(), tmp_path, SystemClock())
    assert "Nothing was changed" in str(caught.value)
    assert path.read_bytes() == content


async def test_row_57_a_migration_that_is_interrupted_leaves_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = await Books.open(StoragePlan(), tmp_path, SystemClock())
    books.accept(accepted("one"))
    books.settle(settled("one"))
    await books.close()
    monkeypatch.setattr("supervisor.storage.database.HEAD_REVISION", "9998")

    def interrupted(connection: sa.Connection) -> None:
        connection.execute(sa.text("DROP TABLE usage_records"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("supervisor.storage.database._migrate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_sqlite(tmp_path)
    assert (tmp_path / f"llamavisor.db.bak-{HEAD_REVISION}").exists()
    monkeypatch.undo()
    books = await Books.open(StoragePlan(), tmp_path, SystemClock())
    assert await books.query(usage.one, "one") is not None
    await books.close()


def test_the_migrations_lead_to_the_tables_as_a_new_database_has_them(plan: StoragePlan) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    url = sa.engine.make_url(plan.url or "sqlite://")
    shapes = []
    for revision in (None, "0000"):
        # SQLite's is a new one in memory each time; PostgreSQL's is empty again, since nothing is committed.
        engine = sa.create_engine(url if plan.url is None else url.set(drivername="postgresql+psycopg"))
        with engine.connect() as connection:
            _renew(connection, revision)
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            shapes.append(shape_of(connection))
        engine.dispose()
    assert shapes[0] == shapes[1]


async def test_books_of_the_first_shape_are_brought_to_the_newest_with_what_they_hold(
    plan: StoragePlan, tmp_path: Path
) -> None:
    from alembic import command
    from alembic.config import Config

    url = sa.engine.make_url(plan.url or f"sqlite:///{tmp_path / 'llamavisor.db'}")
    engine = sa.create_engine(url if plan.url is None else url.set(drivername="postgresql+psycopg"))
    config = Config()
    config.set_main_option("script_location", str(ROOT / "supervisor/storage/migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(sa.text("INSERT INTO projects (name, created_at_ms, concurrency) VALUES ('team', 1, 4)"))
    engine.dispose()
    books = await Books.open(plan, tmp_path, SystemClock())
    assert await books.query(holders.all_projects) == [Project("team", Limits(concurrency=4))]
    await books.query(holders.remove_project, "team", NOW_MS)
    assert await books.query(holders.all_projects) == []
    await books.close()


def shape_of(connection: sa.Connection) -> object:
    """All that the database tells of its tables, and the version that they have."""
    seen = sa.inspect(connection)
    tables = {
        name: (
            [{**column, "type": repr(column["type"])} for column in seen.get_columns(name)],
            seen.get_pk_constraint(name)["constrained_columns"],
            seen.get_foreign_keys(name),
            sorted(seen.get_indexes(name), key=str),
        )
        for name in sorted(seen.get_table_names())
    }
    return tables, connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    open_sqlite(tmp_path).dispose()
    assert (tmp_path / "llamavisor.db").stat().st_mode & 0o077 == 0
