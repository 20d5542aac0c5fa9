"""A child is killed with SIGKILL: when is that noticed, when is it started again, when does it answer?

Llamavisor beside supervisord and circus as they come from PyPI (PEERS_BIN names the folder that holds them; without it they are looked for on
PATH). All of them keep the same small C program alive; each kill comes at a random moment of the peer's own rhythm, and the contenders take
turns. `noticed` is what each program says itself: Llamavisor when the event `crashed` has been published (CLOCK_MONOTONIC), supervisord by the
time of its log line (whole milliseconds, half of one added), circus by its event `reap`. `started` is what the child writes as its first act;
`answers` is when its socket answers a request.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._compiler import build_mock_engine
from benchmarks._contenders import NS_PER_MS, Birth, Births, Circus, Contender, Ours, States, Supervisord
from benchmarks._processes import Processes, wait_until
from benchmarks._results import NOTHING, Result, Table, finish, installed_versions, median, options, ratio, spread

ANSWER_POLL_SECONDS = 0.0002
CIRCUS_CHECK_DELAY_SECONDS = 5.0
CIRCUS_FAST_CHECK_DELAY_SECONDS = 0.1
AT_ONCE = {"retry_base_seconds": 1e-6, "retry_cap_seconds": 1e-6, "retry_jitter": 0.0, "max_retries": 1_000}
ONE_SECOND = {"retry_base_seconds": 1.0, "retry_cap_seconds": 1.0, "retry_jitter": 0.0, "max_retries": 1_000}


@dataclass(slots=True)
class Timing:
    """Milliseconds after each kill."""

    noticed: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)


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


def measure(contender: Contender, timing: Timing, source: random.Random, child: Birth) -> Birth:
    """Kill the contender's child, and see what follows; the child that comes next."""
    wait_until(lambda: answers(contender, child), f"the child of {contender.name} to answer")
    time.sleep(source.uniform(0, contender.period_seconds))
    killed_ns = time.monotonic_ns()
    os.kill(child.pid, signal.SIGKILL)
    following = contender.births.next(contender.name)
    wait_until(
        lambda: answers(contender, following),
        f"the next child of {contender.name} to answer",
        pause_seconds=ANSWER_POLL_SECONDS,
    )
    timing.answers.append((time.monotonic_ns() - killed_ns) / NS_PER_MS)
    timing.started.append((following.ns - killed_ns) / NS_PER_MS)
    noticed_ns = contender.noticed_ns(child.pid, killed_ns)
    if noticed_ns is not None:
        timing.noticed.append((noticed_ns - killed_ns) / NS_PER_MS)
    return following


def answers(contender: Contender, child: Birth) -> bool | None:
    """True when this very child answers."""
    return answering_pid(contender.address) == child.pid or None


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
    births = {name: Births(processes.folder / f"births-{name}") for name in ("child", "patient")}

    def child(name: str, supervision: Mapping[str, Any]) -> dict[str, Any]:
        argv = [str(engine), str(births[name].path), "${SOCKET}", "0", "0"]
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
    with tempfile.TemporaryDirectory(prefix="lv-") as folder, Processes(Path(folder)) as processes:
        engine = build_mock_engine(processes.folder)
        quick, patient, real = start_ours(processes, engine)
        contenders: list[Contender] = [quick, patient, *peers(processes, engine), real]
        timings = {each.name: Timing() for each in contenders}
        children = {each.name: each.births.next(each.name) for each in contenders[:-1]}
        for _ in range(rounds):
            for _ in range(kills_of_ours):
                children[quick.name] = measure(quick, timings[quick.name], source, children[quick.name])
                measure_engine(real, timings[real.name], source)
            for contender in contenders[1:-1]:
                name = contender.name
                children[name] = measure(contender, timings[name], source, children[name])
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
