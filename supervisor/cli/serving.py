"""`llamavisor serve`: runs the supervisor and its web server until somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from supervisor.cli.journal import Journal
from supervisor.cli.logs_setup import set_up_logging
from supervisor.cli.systemd import Notifier
from supervisor.config import ConfigError, LoadedSettings
from supervisor.core import Supervisor
from supervisor.data_folder import replace_file
from supervisor.errors import LlamavisorError
from supervisor.fleet.sweep import end_orphans
from supervisor.process.states import State
from web.server import WebServer

logger = logging.getLogger(__name__)

ADDRESS_FILE = "server.json"
EXIT_FORCED = 130


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What `serve` is to do: `load` reads the configuration anew, with the same flags; `announce` gets the address once it listens."""

    loaded: LoadedSettings
    data_folder: Path
    load: Callable[[], LoadedSettings]
    announce: Callable[[Supervisor, str], None]
    open_browser: bool = False


class Server:
    """One run of `serve`. The first TERM or INT drains and stops; a second one forces."""

    def __init__(self, plan: ServePlan) -> None:
        self._plan = plan
        self._notifier = Notifier()
        self._signals = 0
        self._forced = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._file_watch: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Serve until asked to end; the exit code."""
        supervisor = await Supervisor.open(self._plan.loaded, self._plan.data_folder, load=self._plan.load)
        web = WebServer(supervisor)
        journal = Journal(supervisor.events)
        try:
            self._spawn(self._keep_journal(supervisor, journal), "journal")
            await web.start()
            self._listen_to_signals(supervisor)
            await supervisor.start()
            self._tell(supervisor, web.url)
            await supervisor.shutdown_requested.wait()
            await self._drain(supervisor)
        finally:
            await self._clean_up(supervisor, web)
            journal.catch_up()
        return EXIT_FORCED if self._forced.is_set() else 0

    def _tell(self, supervisor: Supervisor, url: str) -> None:
        replace_file(self._address_file(supervisor), json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        self._plan.announce(supervisor, url)
        # What start-up has made stays: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        self._notifier.notify(READY=1, STATUS=f"Serving at {url}", MAINPID=os.getpid())
        self._notifier.start_watchdog()
        self._spawn(self._follow_events(supervisor, url), "follow-events")
        self._watch_file(supervisor)
        if self._plan.open_browser:
            self._spawn(asyncio.to_thread(webbrowser.open, url), "open-browser")

    def _spawn(self, work: object, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        task.set_name(name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _listen_to_signals(self, supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_end_signal, supervisor)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload(supervisor), "reload"))

    def _on_end_signal(self, supervisor: Supervisor) -> None:
        self._signals += 1
        if self._signals == 1:
            logger.info("Shutting down: running answers may finish. Once more ends them at once.")
            supervisor.request_shutdown()
        else:
            self._forced.set()
            supervisor.hurry()

    def _watch_file(self, supervisor: Supervisor) -> None:
        """Watch the configuration file, or no longer, as the settings in force say."""
        path, wanted = supervisor.loaded.source_path, supervisor.settings.reload_on_change
        if self._file_watch is not None and not wanted:
            self._file_watch.cancel()
            self._file_watch = None
        elif self._file_watch is None and wanted and path is not None:
            self._file_watch = self._spawn(self._reload_on_change(supervisor, path), "reload-on-change")

    async def _reload(self, supervisor: Supervisor) -> None:
        self._notifier.notify(RELOADING=1)
        try:
            report = await supervisor.reload()
            logger.info("Configuration reloaded: %s", ", ".join(report.to_wire()["changed"]) or "nothing changed")
        except ConfigError as error:
            logger.error("The configuration is refused, the old one stays in force. %s", error)
        except LlamavisorError as error:
            logger.warning("%s", error)
        finally:
            self._notifier.notify(READY=1)

    async def _reload_on_change(self, supervisor: Supervisor, path: Path) -> None:
        # The folder, because editors replace the file, and a watch on it would keep looking at the old one.
        async for changes in watchfiles.awatch(path.parent, recursive=False):
            if any(Path(changed) == path for _, changed in changes):
                await self._reload(supervisor)

    async def _follow_events(self, supervisor: Supervisor, url: str) -> None:
        async for event in supervisor.events.subscribe():
            if event.type == "configuration_reloaded":
                set_up_logging(supervisor.settings.logging)
                self._watch_file(supervisor)
            elif event.type == "llama_status":
                ready = sum(one.state is State.READY for one in supervisor.fleet.instances())
                self._notifier.notify(STATUS=f"{url}: {ready} of {len(supervisor.fleet.names())} instances ready")

    async def _keep_journal(self, supervisor: Supervisor, journal: Journal) -> None:
        async for _ in supervisor.events.subscribe():
            journal.catch_up()

    async def _drain(self, supervisor: Supervisor) -> None:
        self._notifier.notify(STOPPING=1, STATUS="Draining: running answers may finish")
        drained = asyncio.create_task(supervisor.drain(), name="drain")
        forced = asyncio.create_task(self._forced.wait(), name="forced")
        await asyncio.wait({drained, forced}, return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, forced):
            task.cancel()
        await asyncio.gather(drained, forced, return_exceptions=True)

    async def _clean_up(self, supervisor: Supervisor, web: WebServer) -> None:
        self._notifier.stop_watchdog()
        for task in tuple(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        # First: answers that the grace was too short for then end with a word, not with a torn connection.
        await supervisor.gateway.close()
        await web.stop()
        with contextlib.suppress(FileNotFoundError):
            self._address_file(supervisor).unlink()
        await supervisor.close()
        end_orphans(supervisor.folder.run_id)

    def _address_file(self, supervisor: Supervisor) -> Path:
        return supervisor.data_folder / ADDRESS_FILE
