"""Changes of projects, keys and budgets: whatever overlaps, what requests are asked is what the database says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor.config import Settings
from supervisor.errors import UnauthorizedError
from supervisor.gateway.accounting import office as office_module
from supervisor.gateway.accounting.office import Office
from supervisor.storage.accounts import Project
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
