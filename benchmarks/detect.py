"""A child is killed with SIGKILL: when is that noticed, when is it started again, when does it answer?

Llamavisor beside supervisord and circus as they come from PyPI (PEERS_BIN names the folder that holds them; without it they are looked for on
PATH). All of them keep the same small C program alive; each kill comes at a random moment of the peer's own rhythm, and the contenders take
turns. `noticed` is what each program says itself: Llamavisor when the event `crashed` has been published (CLOCK_MONOTONIC), supervisord by the
time of its log line (whole milliseconds), circus by its event `reap`. `started` is what the child writes as its first act;
`answers` is when its socket answers a request.
"""

from __future__ import annotations

import json
import os
import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from benchmarks._compiler import build_mock_engine
from benchmarks._processes import Processes, wait_until
from benchmarks._results import NOTHING, Result, Table, finish, installed_versions, median, options, ratio, spread

NS_PER_MS = 1e6
ANSWER_POLL_SECONDS = 0.0002
CIRCUS_CHECK_DELAY_SECONDS = 5.0
CIRCUS_FAST_CHECK_DELAY_SECONDS = 0.1
SUPERVISORD_PERIOD_SECONDS = 1.0
NOTICE_PATIENCE_SECONDS = 0.5
EXIT_LINE = "exited: "
EVENT = re.compile(r'"process_pid": (?P<pid>\d+), "time": (?P<time>[\d.]+)')
AT_ONCE = {"retry_base_seconds": 1e-6, "retry_cap_seconds": 1e-6, "retry_jitter": 0.0, "max_retries": 100}
ONE_SECOND = {"retry_base_seconds": 1.0, "retry_cap_seconds": 1.0, "retry_jitter": 0.0, "max_retries": 100}


@dataclass(slots=True)
class Timing:
    """Milliseconds after each kill."""

    noticed: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)


class Contender(Protocol):
    """A program that keeps a child alive. `period_seconds`: its rhythm, within which the kills are spread."""

    name: str
    period_seconds: float
    births: Path

    @property
    def address(self) -> str:
        """The Unix socket of its child."""

    def noticed_ns(self, pid: int, killed_ns: int) -> int | None:
        """When it noticed that child `pid` had gone (CLOCK_MONOTONIC), as far as it says."""


class Ours:
    """One instance of a Llamavisor that runs as `llamavisor serve` does."""

    def __init__(self, name: str, instance: str, states: States, births: Path, period_seconds: float) -> None:
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
        self.births, self.address, self._log = folder / "births", str(folder / "child.sock"), folder / "log"
        command = f"{engine} {self.births} {self.address} 0 0"
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
        self.births, self.address = folder / "births", str(folder / "child.sock")
        events = f"ipc://{folder / 'events'}"
        configuration = folder / "circus.ini"
        configuration.write_text(
            f"[circus]\ncheck_delay = {check_delay:g}\nendpoint = ipc://{folder / 'control'}\n"
            f"pubsub_endpoint = {events}\n"
            f"[watcher:child]\ncmd = {engine} {self.births} {self.address} 0 0\n"
        )
        processes.start(folder.name, [programs / "circusd", configuration], cwd=folder)
        wait_until(lambda: self.births.exists() or None, f"the first child of {name}")
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
    return datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S,%f").timestamp()


def births_of(path: Path) -> list[tuple[int, int]]:
    """The children so far: process id, and its first moment (CLOCK_MONOTONIC, ns)."""
    text = path.read_text() if path.exists() else ""
    return [
        (int(pid), int(born))
        for pid, born in (line.split() for line in text.splitlines(keepends=True) if line[-1] == "\n")
    ]


def answering_pid(address: str) -> int | None:
    """The process id that the child at a Unix socket answers with; None while there is none."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(address)
            client.sendall(b"GET / HTTP/1.1\r\nHost: child\r\nConnection: close\r\n\r\n")
            body = client.recv(4096).rpartition(b"\r\n\r\n")[2]
        except OSError:
            return None
    return int(body) if body.isdigit() else None


def measure(contender: Contender, timing: Timing, source: random.Random) -> None:
    """One kill, and what follows."""
    pid = wait_until(lambda: answering_pid(contender.address), f"the child of {contender.name}")
    time.sleep(source.uniform(0, contender.period_seconds))
    killed_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: True if answering_pid(contender.address) not in (None, pid) else None,
        f"{contender.name} to start its child again",
        pause_seconds=ANSWER_POLL_SECONDS,
    )
    answered_ns = time.monotonic_ns()
    born_ns = next(born for child, born in reversed(births_of(contender.births)) if child != pid)
    noticed_ns = contender.noticed_ns(pid, killed_ns)
    timing.started.append((born_ns - killed_ns) / NS_PER_MS)
    timing.answers.append((answered_ns - killed_ns) / NS_PER_MS)
    if noticed_ns is not None:
        timing.noticed.append((noticed_ns - killed_ns) / NS_PER_MS)


def measure_engine(ours: Ours, timing: Timing, source: random.Random) -> None:
    """One kill of a real engine; `answers` is when Llamavisor said ready."""
    pid = ours.pid()
    time.sleep(source.uniform(0, ours.period_seconds))
    killed_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    noticed_ns, ready_ns = ours.noticed_ns(pid, killed_ns), ours.ready_ns(killed_ns)
    assert noticed_ns is not None
    assert ready_ns is not None
    timing.noticed.append((noticed_ns - killed_ns) / NS_PER_MS)
    timing.answers.append((ready_ns - killed_ns) / NS_PER_MS)


def start_ours(processes: Processes, engine: Path) -> tuple[Ours, Ours, Ours]:
    """One Llamavisor with three instances: the small child started again at once, the same after a second, and a real engine."""
    data = processes.folder / "data"
    births = {name: processes.folder / f"births-{name}" for name in ("child", "patient")}

    def child(name: str, supervision: Mapping[str, Any]) -> dict[str, Any]:
        argv = [str(engine), str(births[name]), "${SOCKET}", "0", "0"]
        return {"engine": {"kind": "command", "argv": argv, "openai": False}, "supervision": dict(supervision)}

    configuration = processes.folder / "llamavisor.json"
    instances = {
        "child": child("child", AT_ONCE),
        "patient": child("patient", ONE_SECOND),
        "engine": {"engine": "embedded", "model": "demo", "supervision": AT_ONCE},
    }
    configuration.write_text(json.dumps({"server": {"port": 0}, "instances": instances}))
    states = States(processes.module("benchmarks._supervised", configuration, data))
    return (
        Ours("Llamavisor, no backoff", "child", states, births["child"], 0.1),
        Ours("Llamavisor, first retry after 1 s (default)", "patient", states, births["patient"], 0.1),
        Ours("Llamavisor, embedded engine with the demo model", "engine", states, births["child"], 0.1),
    )


def peers(processes: Processes, engine: Path) -> list[Contender]:
    """The programs to compare with."""
    folder = os.environ.get("PEERS_BIN")
    found = shutil.which("supervisord", path=folder)
    if found is None:
        sys.exit(
            "supervisord and circusd are measured too: run `make bench`, or name the folder that holds them in PEERS_BIN."
        )
    programs = Path(found).parent
    return [
        Supervisord(processes, programs, engine),
        Circus("circus", CIRCUS_CHECK_DELAY_SECONDS, processes, programs, engine),
        Circus("circus, check_delay=0.1", CIRCUS_FAST_CHECK_DELAY_SECONDS, processes, programs, engine),
    ]


def run(rounds: int, kills_of_ours: int) -> dict[str, Timing]:
    """All contenders, taking turns."""
    source = random.Random(7)
    with tempfile.TemporaryDirectory(prefix="lv-") as name, Processes(Path(name)) as processes:
        engine = build_mock_engine(processes.folder)
        quick, patient, real = start_ours(processes, engine)
        contenders: list[Contender] = [quick, patient, *peers(processes, engine), real]
        timings = {each.name: Timing() for each in contenders}
        for _ in range(rounds):
            for _ in range(kills_of_ours):
                measure(quick, timings[quick.name], source)
                measure_engine(real, timings[real.name], source)
            for contender in contenders[1:-1]:
                measure(contender, timings[contender.name], source)
    return timings


def tables(timings: Mapping[str, Timing]) -> tuple[Table, ...]:
    """Absolute times, and each as a multiple of our own."""
    own = next(iter(timings.values()))
    columns = ("program", "kills", "noticed, ms", "started, ms", "answers, ms", "noticed", "started", "answers")
    rows = [
        (
            name,
            str(len(timing.answers)),
            spread(timing.noticed),
            spread(timing.started),
            spread(timing.answers),
            ratio(timing.noticed, own.noticed),
            ratio(timing.started, own.started),
            ratio(timing.answers, own.answers),
        )
        for name, timing in timings.items()
    ]
    beyond = median(timings[Supervisord.name].started) / median(own.started)
    notes = (
        "Milliseconds after `kill -9`: median (quartiles); the last three columns are multiples of the first row.",
        f"Noticed in {median(own.noticed):.2f} ms (goal: ≤ 1 ms); started again {beyond:,.0f} × sooner than by supervisord (goal: ≥ 500 ×).",
        f"For the embedded engine `answers` is when Llamavisor said `ready`; when it was started is not seen from outside ({NOTHING}).",
    )
    return (Table("A child killed by SIGKILL", columns, tuple(rows), notes),)


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, help="kills of each peer (default 20; quick: 3)")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (3 if arguments.quick else 20)
    timings = run(rounds, kills_of_ours=3 if arguments.quick else 10)
    samples = {
        f"{name}: {what}_ms": getattr(timing, what)
        for name, timing in timings.items()
        for what in ("noticed", "started", "answers")
    }
    versions = {**installed_versions(("llamavisor", "xllamacpp")), **peer_versions()}
    finish(Result("detect", tables(timings), samples, arguments.quick, versions), arguments.json)


def peer_versions() -> dict[str, str]:
    """What the peers call themselves."""
    folder = os.environ.get("PEERS_BIN")
    ask = {"supervisord": ["supervisord", "--version"], "circus": ["circusd", "--version"]}
    found: dict[str, str] = {}
    for name, (program, flag) in ask.items():
        path = shutil.which(program, path=folder)
        if path is not None:
            told = subprocess.run([path, flag], capture_output=True, text=True, check=False)
            found[name] = (told.stdout or told.stderr).strip().split()[-1]
    return found


if __name__ == "__main__":
    main()
