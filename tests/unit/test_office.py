"""Changes of projects, keys and budgets: whatever overlaps, what requests are asked is what the database says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor.config import Settings
from supervisor.errors import NotFoundError, UnauthorizedError
from supervisor.gateway.accounting import office as office_module
from supervisor.gateway.accounting.office import Office
from supervisor.storage.accounts import Limits, Project
from supervisor.storage.holders import ProjectInUseError
from supervisor.storage.records import Scope
from supervisor.testing import FakeClock
from tests.fixtures.nursery import GENEROUS_SECONDS, until


class SlowReader:
    """Reads the accounts as the office does, but takes the first reading home only when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_read = threading.Event()
        self.may_return = threading.Event()
        self._read = office_module._accounts
        monkeypatch.setattr(office_module, "_accounts", self)

    def __call__(self, connection: object) -> object:
        found = self._read(connection)  # type: ignore[arg-type]
        if not self.has_read.is_set():
            self.has_read.set()
            self.may_return.wait(GENEROUS_SECONDS)
        return found


@pytest_asyncio.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """Open, over a database of its own."""
    office = await Office.open(Settings(), tmp_path, FakeClock())
    yield office
    await office.close()


async def test_a_revoked_key_does_not_come_back_with_an_older_reading(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await office.issue_key("default", [Scope.INFERENCE])
    reader = SlowReader(monkeypatch)
    adding = asyncio.create_task(office.add_project(Project("other")))
    await until(reader.has_read.is_set, "the accounts to be read")
    revoking = asyncio.create_task(office.revoke_key(key.record.id))
    await asyncio.wait([revoking], timeout=0.1)
    reader.may_return.set()
    await asyncio.gather(adding, revoking)
    with pytest.raises(UnauthorizedError):
        office.bookkeeper.identify(key.text)


async def test_who_leaves_amid_a_change_leaves_no_stale_memory(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = SlowReader(monkeypatch)
    leaving = asyncio.create_task(office.issue_key("default", [Scope.READ], label="left"))
    await until(reader.has_read.is_set, "the accounts to be read")
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    reader.may_return.set()
    await until(lambda: "left" in office.bookkeeper.key_labels.values(), "the key to be taken in")


async def test_changes_that_overlap_do_not_undo_each_other(office: Office) -> None:
    key = await office.issue_key("default", [Scope.INFERENCE], limits=Limits(1, 1, 1))
    names = ("requests_per_minute", "tokens_per_minute", "concurrency")
    on_keys = [office.change_key(key.record.id, {"limits": {name: 9}}) for name in names]
    on_projects = [office.change_project("default", {name: 8}) for name in names]
    await asyncio.gather(office.change_key(key.record.id, {"label": "new"}), *on_keys, *on_projects)
    (known,), (project,) = await office.keys(), await office.projects()
    assert (known.label, known.limits, project.limits) == ("new", Limits(9, 9, 9), Limits(8, 8, 8))
    assert office.bookkeeper.key_labels == {key.record.id: "new"}


async def test_a_project_goes_when_nobody_can_use_it_any_more(office: Office) -> None:
    await office.add_project(Project("shop"))
    key = await office.issue_key("shop", [Scope.INFERENCE])
    with pytest.raises(ProjectInUseError, match="1 valid key"):
        await office.remove_project("shop")
    with pytest.raises(ProjectInUseError, match="'default' stays"):
        await office.remove_project("default")
    await office.revoke_key(key.record.id)
    await office.remove_project("shop")
    assert office.bookkeeper.projects == {"default"}
    with pytest.raises(NotFoundError):
        await office.remove_project("shop")
