"""The composition: opens and closes the parts in order. Wiring only; the decisions are in the parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from supervisor.clock import Clock, SystemClock
from supervisor.config import ConfigError, LoadedSettings, Settings, check_servable, diff_settings
from supervisor.data_folder import DataFolder
from supervisor.errors import NotAvailableError
from supervisor.events import EventLog
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.health import HealthReport, ReadyReport, health_report, ready_report
from supervisor.fleet.placement.placer import Placer
from supervisor.fleet.sweep import end_leftovers, find_survivors
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.accounting.office import Office
from supervisor.gateway.accounting.standing import budget_status
from supervisor.gateway.batch.batches import Batches
from supervisor.gateway.batch.reaching import Reach
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.idempotency import IdempotencyStore
from supervisor.gateway.observing.capture import Capture
from supervisor.gateway.observing.meters import MeterBook
from supervisor.gateway.observing.tracing import Tracing, open_tracing
from supervisor.gateway.resuming import ResumableStreams
from supervisor.gateway.routing import BudgetStatus, Router
from supervisor.process import posix
from supervisor.process.reaper import OrphanReaper

logger = logging.getLogger(__name__)

CAPTURES = "captures"
RELOAD_KEYS = ("added", "removed", "changed", "retuned", "unchanged", "needs_restart")


def installed_version() -> str:
    """The version of the installed distribution; `0.0.0` in a tree that is not installed."""
    try:
        return version("llamavisor")
    except PackageNotFoundError:
        return "0.0.0"


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload did, in names of instances; `needs_restart` lists keys that only a restart of the supervisor brings into force."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    retuned: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, list[str]]:
        """Lists by name; `changed` holds everything that is not as before."""
        touched = [*self.changed, *self.retuned, *self.added, *self.removed]
        wire = {key: list(getattr(self, key)) for key in RELOAD_KEYS}
        return {**wire, "changed": touched}


@dataclass(slots=True)
class _State:
    draining: bool = False
    closed: bool = False
    stop_survivors: bool = False
    shutdown_requested: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """The running whole. `open` it, `start` it, wait for `shutdown_requested`, `close` it."""

    def __init__(
        self,
        loaded: LoadedSettings,
        data_folder: Path,
        load: Callable[[], LoadedSettings] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.loaded = loaded
        self.clock = clock or SystemClock()
        self.folder = DataFolder(data_folder)
        self.events = EventLog(self.clock)
        self.version = installed_version()
        self.started_monotonic = self.clock.monotonic()
        self._load = load
        self._state = _State()
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[ReloadReport]] = set()
        self._survivors: dict[str, posix.Found] = {}
        self._reaper = OrphanReaper(self.clock)
        self.router = Router(lambda: self.settings.routing, lambda: self.gateway.names, self._budget_status)
        self.fleet: Fleet
        self.placer: Placer
        self.gateway: Gateway
        self.office: Office
        self.batches: Batches
        self.meters = MeterBook(loaded.settings.telemetry.label_values)
        self.resumable: ResumableStreams
        self.idempotency = IdempotencyStore(self.clock)

    @classmethod
    async def open(
        cls,
        loaded: LoadedSettings,
        data_folder: Path,
        *,
        load: Callable[[], LoadedSettings] | None = None,
        clock: Clock | None = None,
    ) -> Supervisor:
        """Take the data folder, end what an earlier supervisor left behind, and make every instance; nothing is started yet.

        `load` reads the configuration anew for `reload`. `DataFolderInUseError` when another supervisor runs here.
        """
        supervisor = cls(loaded, data_folder, load, clock)
        supervisor.folder.open()
        try:
            await supervisor._open_parts()
        except BaseException:
            supervisor._give_back()
            raise
        return supervisor

    async def _open_parts(self) -> None:
        tracing = await asyncio.to_thread(open_tracing, self.settings, self.version)
        posix.become_subreaper()
        self._reaper.start()
        self.fleet = Fleet(self.folder, self.events, self.clock)
        self.office = await Office.open(self.settings, self.data_folder, self.clock)
        self.placer = Placer(self.fleet, self.folder.path, self.events, self.clock)
        self.gateway = Gateway(self.fleet, self.settings, self.clock, self.office.bookkeeper, self.placer)
        await self._open_observers(tracing)
        self.resumable = ResumableStreams(self.gateway, lambda: self.settings.gateway, self.clock)
        self._survivors = find_survivors(self.folder.run_id, self.settings)
        await end_leftovers(self.folder.run_id, keep=self._survivors.values())
        await self.fleet.open(self.settings, self._survivors)
        await self.placer.open(self.settings)
        self.batches = Batches(self.folder.path, self.settings, self.clock, Reach(self.gateway, self.router))
        await self.batches.open()

    async def _open_observers(self, tracing: Tracing | None) -> None:
        self.gateway.tracing = tracing
        self.gateway.capture = Capture(self.folder.path / CAPTURES, self.settings)
        await self.gateway.capture.open()
        bookkeeper = self.office.bookkeeper
        bookkeeper.on_refused.append(self.meters.refused)
        listeners = bookkeeper.on_settled
        listeners += [self.meters.observe, self.gateway.capture.settled]
        if tracing is not None:
            listeners.append(tracing.settled)

    def _budget_status(self, caller: Caller) -> BudgetStatus:
        return budget_status(self.office.bookkeeper, caller)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def data_folder(self) -> Path:
        """Where everything kept lies."""
        return self.folder.path

    @property
    def draining(self) -> bool:
        """Shutting down: no new work is taken."""
        return self._state.draining

    @property
    def shutdown_requested(self) -> asyncio.Event:
        """Set when somebody asked for the end."""
        return self._state.shutdown_requested

    async def start(self) -> None:
        """Start the instances that are to start with the supervisor."""
        await self.fleet.autostart(self.settings, self._survivors)
        self.batches.start()

    def request_shutdown(self, *, stop_survivors: bool = False) -> None:
        """Ask for the end: whoever runs the supervisor drains and closes it. `stop_survivors`: also what would outlive us."""
        self._state.stop_survivors |= stop_survivors
        self._state.draining = True
        if not self._state.shutdown_requested.is_set():
            self.events.publish("shutdown", {"message": "The supervisor is shutting down."})
        self._state.shutdown_requested.set()

    async def reload(self) -> ReloadReport:
        """Read the configuration again and apply it by difference. `ConfigError` leaves everything as it was, and is shown to all.

        It goes on when the caller is cancelled: half of a difference is neither the old configuration nor the new one.
        `NotAvailableError` when shutting down.
        """
        task = asyncio.create_task(self._reload(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reload_done)
        return await asyncio.shield(task)

    def _reload_done(self, task: asyncio.Task[ReloadReport]) -> None:
        self._reloads.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.info("Nothing was reloaded: %s", task.exception())

    async def _reload(self) -> ReloadReport:
        async with self._reloading:
            if self.draining:
                raise NotAvailableError("The server is shutting down: nothing is reloaded.", code="shutting_down")
            try:
                loaded = self._load() if self._load is not None else self.loaded
                refusal = check_servable(loaded.settings)
                if refusal is not None:
                    raise refusal
            except ConfigError as error:
                self.events.publish("configuration_refused", {"message": str(error)})
                raise
            return await self._apply(loaded)

    async def _apply(self, loaded: LoadedSettings) -> ReloadReport:
        diff = diff_settings(self.settings, loaded.settings)
        self.loaded = loaded
        self.office.retune(loaded.settings)
        self.gateway.retune(loaded.settings)
        self.batches.retune(loaded.settings)
        await self.fleet.apply(loaded.settings, diff)
        self.placer.retune(loaded.settings)
        report = ReloadReport(
            diff.added, diff.removed, diff.changed, diff.retuned, diff.unchanged, tuple(diff.server_changed)
        )
        self.events.publish("configuration_reloaded", report.to_wire())
        return report

    async def drain(self) -> bool:
        """Wait until no request is being served, at most the configured grace; whether all of them ended by themselves."""
        self._state.draining = True
        self.batches.rest()
        return await self.gateway.wait_idle(self.settings.server.shutdown_grace_seconds)

    def hurry(self) -> None:
        """No more grace: drains nothing, kills what is being stopped."""
        for instance in self.fleet.instances():
            instance.hurry()

    async def close(self) -> None:
        """Stop every instance (but those that survive by choice), see that nothing of ours is left, give the data folder back."""
        if self._state.closed:
            return
        self._state.closed = self._state.draining = True
        # A reload that is under way is waited for: it makes and starts instances.
        async with self._reloading:
            await self._close_parts()

    async def _close_parts(self) -> None:
        try:
            await self.batches.close()
            # Before those on which its requests wait: each is told that the server ends, not what it sees of the end.
            await self.gateway.close()
            await self.resumable.close()
            await self.placer.close()
            await self.fleet.stop_all(survivors_too=self._state.stop_survivors)
            kept = {} if self._state.stop_survivors else find_survivors(self.folder.run_id, self.settings)
            for observer in (self.gateway.tracing, self.gateway.capture):
                if observer is not None:
                    await observer.close()
            await self.fleet.close()
            await self.office.close()
            await end_leftovers(self.folder.run_id, keep=kept.values())
        finally:
            self._give_back()

    def _give_back(self) -> None:
        self._reaper.close()
        posix.become_subreaper(enable=False)
        self.folder.close()

    def health(self) -> HealthReport:
        """`ok`, `degraded` or `down`, with each instance's state."""
        return health_report(self.fleet.instances(), self.version)

    def ready(self) -> ReadyReport:
        """Whether every required instance is ready, and which are not."""
        return ready_report(self.fleet.instances())
