"""The office: opens the books, and keeps what is known of projects, keys and budgets in memory and in the database alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.engine import Connection

from supervisor.clock import Clock
from supervisor.config.settings import Settings
from supervisor.gateway.accounting import keys, periods
from supervisor.gateway.accounting.bookkeeper import Bookkeeper
from supervisor.gateway.accounting.callers import DEFAULT_PROJECT
from supervisor.gateway.accounting.keys import IssuedKey
from supervisor.storage import holders
from supervisor.storage.accounts import (
    NO_LIMITS,
    Budget,
    KeyChanges,
    KeyRecord,
    LimitChanges,
    Limits,
    Period,
    Project,
)
from supervisor.storage.books import Books, StoragePlan
from supervisor.storage.holders import ProjectInUseError
from supervisor.storage.records import Scope

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Office:
    """See the module. `books` is what is kept, `bookkeeper` what requests ask; `open` it once, `close` it once."""

    def __init__(self, books: Books, bookkeeper: Bookkeeper) -> None:
        self.books = books
        self.bookkeeper = bookkeeper
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, settings: Settings, folder: Path, clock: Clock) -> Office:
        """Open the books, and take in what they know. Errors as `Books.open`."""
        books = await Books.open(_plan(settings), folder, clock)
        own = settings.server.api_key
        bookkeeper = Bookkeeper(settings.accounting, books, clock, None if own is None else own.get_secret_value())
        office = cls(books, bookkeeper)
        try:
            await office._take_in()
        except BaseException:
            await books.close()
            raise
        return office

    async def close(self) -> None:
        """Bring everything to the disk, changes that are under way as well."""
        await asyncio.gather(*self._changes, return_exceptions=True)
        await self.books.close()

    def retune(self, settings: Settings) -> None:
        """Take new prices and limits; where the books are kept does not change while they are open."""
        self.bookkeeper.retune(settings.accounting)

    async def projects(self) -> list[Project]:
        """Every project, by name."""
        return await self.books.query(holders.all_projects)

    async def add_project(self, project: Project) -> None:
        """Add one. AlreadyExistsError when its name is taken."""
        await self._change(holders.add_project, project)

    async def change_project(self, name: str, limits: LimitChanges | None) -> Project:
        """Change its limits, as `Limits.changed`; how it is now. NotFoundError when there is none of that name."""
        return await self._change(holders.change_project, name, limits)

    async def remove_project(self, name: str) -> None:
        """Remove it, with its budgets; its keys stay as revoked ones, and what it used stays in the books.

        NotFoundError when there is none of that name, ProjectInUseError while it has a valid key, and for `default`.
        """
        if name == DEFAULT_PROJECT:
            raise ProjectInUseError(
                f"The project {name!r} stays: what is asked without a key of a project is booked on it.", param="name"
            )
        await self._change(holders.remove_project, name, self.bookkeeper.now_ms())

    async def keys(self) -> list[KeyRecord]:
        """Every key, revoked ones too, oldest first."""
        return await self.books.query(holders.all_keys)

    async def issue_key(
        self,
        project: str,
        scopes: Iterable[Scope],
        *,
        label: str = "",
        expires_at_ms: int | None = None,
        limits: Limits = NO_LIMITS,
    ) -> IssuedKey:
        """Make a key; its text is shown this once. NotFoundError when there is no such project."""
        now_ms = self.bookkeeper.now_ms()
        issued = keys.issue(project, scopes, now_ms, label=label, expires_at_ms=expires_at_ms, limits=limits)
        await self._change(holders.add_key, issued.record)
        return issued

    async def change_key(self, key_id: str, changes: KeyChanges) -> KeyRecord:
        """Change it, as `KeyRecord.changed`; how it is now. NotFoundError when there is none of that id, KeyRevokedError."""
        return await self._change(holders.change_key, key_id, changes)

    async def revoke_key(self, key_id: str) -> None:
        """From now on it opens nothing. NotFoundError when there is none of that id."""
        self.bookkeeper.keyring.revoke(key_id)
        await self._change(holders.revoke_key, key_id, self.bookkeeper.now_ms())

    async def budgets(self) -> list[Budget]:
        """Every budget."""
        return await self.books.query(holders.all_budgets)

    async def set_budget(self, budget: Budget) -> None:
        """Set it, over the one of the same owner, period and unit. NotFoundError when there is no such project or key."""
        await self._change(holders.set_budget, budget)

    async def remove_budget(self, budget: Budget) -> bool:
        """Remove the one of that owner, period and unit; whether there was one."""
        return await self._change(holders.remove_budget, budget)

    async def _change(self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Change the database, then take in how it is. Who leaves meanwhile does not leave the memory with what was before."""
        task = asyncio.create_task(self._change_alone(change, *args, **kwargs), name="accounts")
        self._changes.add(task)
        task.add_done_callback(self._change_done)
        return await asyncio.shield(task)

    async def _change_alone(
        self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        # One after the other: what was read before a later change must not be taken in after it.
        async with self._changing:
            changed = await self.books.query(change, *args, **kwargs)
            await self._refresh()
            return changed

    def _change_done(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.info("A change of accounts failed: %s", task.exception())

    async def _refresh(self) -> None:
        known, projects, budgets = await self.books.query(_accounts)
        self.bookkeeper.set_accounts(known, projects, budgets)

    async def _take_in(self) -> None:
        if DEFAULT_PROJECT not in {project.name for project in await self.projects()}:
            await self.books.query(holders.add_project, Project(DEFAULT_PROJECT))
        await self._refresh()
        now_ms = self.bookkeeper.now_ms()
        since_ms = min(periods.span(period, now_ms).start_ms for period in Period)
        self.bookkeeper.restore(await self.books.query(holders.used_by_day, since_ms))


def _accounts(connection: Connection) -> tuple[list[KeyRecord], list[Project], list[Budget]]:
    return holders.all_keys(connection), holders.all_projects(connection), holders.all_budgets(connection)


def _plan(settings: Settings) -> StoragePlan:
    own = settings.storage
    url = None if own.url is None else own.url.get_secret_value()
    return StoragePlan(url, own.retention_days, own.sync_seconds, own.write_seconds)
