"""The programs of the detection benchmark that keep a child alive: one Llamavisor with its instances, supervisord, circus."""

from __future__ import annotations

import json
import os
import queue
import re
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from benchmarks._processes import PATIENCE_SECONDS, Processes, wait_until

SUPERVISORD_PERIOD_SECONDS = 1.0
NOTICE_PATIENCE_SECONDS = 0.5
NS_PER_MS = 1e6
# supervisord's log has whole milliseconds, rounded down.
LOG_ROUNDING_SECONDS = 0.0005
EXIT_LINE = "exited: "
EVENT = re.compile(r'"process_pid": (?P<pid>\d+), "time": (?P<time>[\d.]+)')


@dataclass(frozen=True, slots=True)
class Birth:
    """A child: its process id, and when it began (CLOCK_MONOTONIC)."""

    pid: int
    ns: int


class Births:
    """The pipe into which each child writes its process id and its first moment: whoever waits here takes no processor time from the others."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # Open for writing too, or it would be at its end whenever no child has it open.
        self._pipe = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def next(self, whose: str) -> Birth:
        """The next child, waited for."""
        if not select.select([self._pipe], [], [], PATIENCE_SECONDS)[0]:
            raise RuntimeError(f"waited {PATIENCE_SECONDS:g} s for a child of {whose}")
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self._pipe, 1)
        pid, born_ns = line.split()
        return Birth(int(pid), int(born_ns))


class Contender(Protocol):
    """A program that keeps a child alive. `period_seconds`: its rhythm, within which the kills are spread."""

    name: str
    period_seconds: float
    births: Births

    @property
    def address(self) -> str:
        """The Unix socket of its child."""

    def noticed_ns(self, pid: int, killed_ns: int) -> int | None:
        """When it noticed that child `pid` had gone (CLOCK_MONOTONIC), as far as it says."""


class Ours:
    """One instance of a Llamavisor that runs as `llamavisor serve` does."""

    def __init__(self, name: str, instance: str, states: States, births: Births, period_seconds: float) -> None:
        self.name = name
        self.instance = instance
        self.births = births
        self.period_seconds = period_seconds
        self._states = states

    @property
    def address(self) -> str:
        """Where its child listens."""
        return str(self._states.newest(self.instance, "ready")["address"]).removeprefix("unix:")

    def noticed_ns(self, pid: int, killed_ns: int) -> int | None:
        """See `Contender.noticed_ns`."""
        return self._states.first_after(self.instance, "crashed", killed_ns)

    def ready_ns(self, killed_ns: int) -> int | None:
        """When Llamavisor said that it was ready again."""
        return self._states.first_after(self.instance, "ready", killed_ns)

    def pid(self) -> int:
        """The process of the ready instance."""
        return int(self._states.newest(self.instance, "ready")["pid"])


class States:
    """What `benchmarks._supervised` prints, by instance; read by a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._seen: list[dict[str, Any]] = []
        self._process = process
        threading.Thread(target=self._read, name="states", daemon=True).start()

    def newest(self, instance: str, state: str) -> dict[str, Any]:
        """The newest line about a state, waited for."""
        return wait_until(lambda: next(self._of(instance, state), None), f"{instance} to be {state}")

    def first_after(self, instance: str, state: str, after_ns: int) -> int | None:
        """When a state was entered for the first time since, waited for."""

        def look() -> int | None:
            times = [int(line["ns"]) for line in self._of(instance, state) if line["ns"] > after_ns]
            return min(times, default=None)

        return wait_until(look, f"{instance} to be {state}", pause_seconds=0.001)

    def _of(self, instance: str, state: str) -> Iterator[dict[str, Any]]:
        return (line for line in reversed(self._seen) if line.get("instance") == instance and line["state"] == state)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._seen.append(json.loads(line))


class Supervisord:
    """supervisord with `startsecs=0` and `autorestart=true`."""

    name = "supervisord"
    period_seconds = SUPERVISORD_PERIOD_SECONDS

    def __init__(self, processes: Processes, programs: Path, engine: Path) -> None:
        folder = processes.folder / "supervisord"
        folder.mkdir()
        self.births, self.address, self._log = Births(folder / "births"), str(folder / "child.sock"), folder / "log"
        command = f"{engine} {self.births.path} {self.address} 0 0"
        configuration = folder / "supervisord.conf"
        configuration.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={self._log}\npidfile={folder / 'pid'}\n"
            f"[program:child]\ncommand={command}\nstartsecs=0\nautorestart=true\n"
        )
        processes.start("supervisord", [programs / "supervisord", "-n", "-c", configuration], cwd=folder)

    def noticed_ns(self, pid: int, killed_ns: int) -> int | None:
        """See `Contender.noticed_ns`: the newest line of the log that tells of an exit."""
        lines = [line for line in self._log.read_text().splitlines() if EXIT_LINE in line]
        times = [_monotonic_ns(_log_time(line)) for line in lines]
        # The log has milliseconds: what is noticed within the millisecond of the kill looks earlier than it.
        return next((at for at in times if at > killed_ns - NS_PER_MS), None)


class Circus:
    """circusd with one watcher; `check_delay` is how often it looks."""

    def __init__(self, name: str, check_delay: float, processes: Processes, programs: Path, engine: Path) -> None:
        self.name = name
        self.period_seconds = check_delay
        folder = processes.folder / f"circus-{check_delay:g}"
        folder.mkdir()
        self.births, self.address = Births(folder / "births"), str(folder / "child.sock")
        events = f"ipc://{folder / 'events'}"
        configuration = folder / "circus.ini"
        configuration.write_text(
            f"[circus]\ncheck_delay = {check_delay:g}\nendpoint = ipc://{folder / 'control'}\n"
            f"pubsub_endpoint = {events}\n"
            f"[watcher:child]\ncmd = {engine} {self.births.path} {self.address} 0 0\n"
        )
        processes.start(folder.name, [programs / "circusd", configuration], cwd=folder)
        listen: list[str | Path] = [programs / "circusctl", "--endpoint", events, "listen", "watcher.child.reap"]
        self._listener = processes.start(f"{folder.name}-events", listen, env={"PYTHONUNBUFFERED": "1"}, cwd=folder)
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, name=f"{name} events", daemon=True).start()

    def noticed_ns(self, pid: int, killed_ns: int) -> int | None:
        """See `Contender.noticed_ns`: the time that the event itself tells."""
        while True:
            try:
                line = self._events.get(timeout=NOTICE_PATIENCE_SECONDS)
            except queue.Empty:
                return None
            told = EVENT.search(line)
            if told is not None and int(told["pid"]) == pid:
                return _monotonic_ns(float(told["time"]))

    def _read(self) -> None:
        assert self._listener.stdout is not None
        for line in self._listener.stdout:
            self._events.put(line)


def _monotonic_ns(unix_seconds: float) -> int:
    return int(unix_seconds * 1e9) - time.time_ns() + time.monotonic_ns()


def _log_time(line: str) -> float:
    day, clock = line.split(" ", 2)[:2]
    return datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S,%f").timestamp() + LOG_ROUNDING_SECONDS
