"""What a supervisor costs while nothing happens: wake-ups, processor time, memory.

A real `llamavisor serve` with one ready instance (the embedded engine with the demo model) and no clients, beside the least that such a server is
made of: aiohttp and python-socketio in one process. Both are watched over the same time, through /proc; the engine's process is shown as well.
Where strace is installed, a shorter look afterwards tells by which system calls the supervisor was woken.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks._processes import Processes, hear, rss_bytes, wait_until
from benchmarks._results import Result, Table, finish, options

NS_PER_SECOND = 1e9
MIB = 2**20
SETTLE_SECONDS = 8.0
# In a trace of another kernel these have other numbers, but the same names.
WAITING_CALLS = ("epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6", "futex", "clock_nanosleep")
CONTEXT_SWITCHES = re.compile(r"^(?P<kind>voluntary|nonvoluntary)_ctxt_switches:\s+(?P<count>\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """A process at one moment: how often its threads went to sleep or were pushed aside, and how long they ran."""

    at: float
    main_sleeps: int
    all_sleeps: int
    pushed_aside: int
    ran_ns: int
    threads: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process cost between two readings; rates are per second."""

    wakeups: float
    all_wakeups: float
    cpu_percent: float
    rss_mib: float
    threads: int


def read(pid: int) -> Reading:
    """The process as /proc shows it."""
    sleeps: dict[int, int] = {}
    pushed_aside = ran_ns = 0
    for folder in Path(f"/proc/{pid}/task").iterdir():
        counts = {m["kind"]: int(m["count"]) for m in CONTEXT_SWITCHES.finditer((folder / "status").read_text())}
        sleeps[int(folder.name)] = counts["voluntary"]
        pushed_aside += counts["nonvoluntary"]
        ran_ns += int((folder / "schedstat").read_text().split()[0])
    return Reading(time.monotonic(), sleeps[pid], sum(sleeps.values()), pushed_aside, ran_ns, len(sleeps))


def cost(pid: int, before: Reading, after: Reading) -> Cost:
    """What lies between two readings. Each sleep ends in a wake-up."""
    seconds = after.at - before.at
    return Cost(
        (after.main_sleeps - before.main_sleeps) / seconds,
        (after.all_sleeps - before.all_sleeps) / seconds,
        (after.ran_ns - before.ran_ns) / NS_PER_SECOND / seconds * 100,
        rss_bytes(pid) / MIB,
        after.threads,
    )


def start_llamavisor(processes: Processes) -> int:
    """`llamavisor serve` as a user starts it; its process id, once everything is ready."""
    data = processes.folder / "data"
    configuration = processes.folder / "llamavisor.json"
    configuration.write_text(json.dumps({"instances": {"demo": {"engine": "embedded", "model": "demo"}}}))
    command: list[str | Path] = ["serve", "--port", "0", "--config", configuration, "--data-dir", data]
    processes.start("llamavisor", [sys.executable, "-m", "supervisor", *command])
    told: Mapping[str, Any] = wait_until(lambda: _told(data / "server.json"), "llamavisor to listen")
    wait_until(lambda: _is_ready(told["url"]), "the demo model to be ready", pause_seconds=0.2)
    return int(told["pid"])


def _told(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text())) if path.exists() else None


def _is_ready(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return True if answer.status == 200 else None
    except urllib.error.HTTPError:
        return None


def run(seconds: float) -> tuple[dict[str, Cost], dict[str, float]]:
    """Both servers side by side, then the trace of ours: costs by name, system calls a second by name."""
    with tempfile.TemporaryDirectory(prefix="lv-") as name, Processes(Path(name)) as processes:
        bare = int(hear(processes.module("benchmarks._bare_server"))["pid"])
        ours = start_llamavisor(processes)
        engine = next(child.pid for child in psutil.Process(ours).children())
        time.sleep(SETTLE_SECONDS)
        pids = {"Llamavisor": ours, "its engine": engine, "aiohttp + python-socketio": bare}
        before = {who: read(pid) for who, pid in pids.items()}
        time.sleep(seconds)
        costs = {who: cost(pid, before[who], read(pid)) for who, pid in pids.items()}
        return costs, trace(ours, processes.folder / "trace", seconds / 3)


def trace(pid: int, path: Path, seconds: float) -> dict[str, float]:
    """System calls a second, by name; nothing where strace is missing or not allowed."""
    strace = shutil.which("strace")
    if strace is None:
        return {}
    tracer = subprocess.Popen([strace, "-c", "-f", "-o", path, "-p", str(pid)], stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    tracer.send_signal(signal.SIGINT)
    tracer.wait(10)
    lines = path.read_text().splitlines() if path.exists() else []
    found = (re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line) for line in lines)
    return {match[2]: int(match[1]) / seconds for match in found if match is not None and match[2] != "total"}


def cost_table(costs: Mapping[str, Cost]) -> Table:
    """The processes side by side."""
    columns = (
        "process",
        "wake-ups/s, main thread",
        "wake-ups/s, all threads",
        "CPU, % of a core",
        "RSS, MiB",
        "threads",
    )
    rows = tuple(
        (
            who,
            f"{each.wakeups:.1f}",
            f"{each.all_wakeups:.1f}",
            f"{each.cpu_percent:.2f}",
            f"{each.rss_mib:.1f}",
            str(each.threads),
        )
        for who, each in costs.items()
    )
    beyond = costs["Llamavisor"].rss_mib - costs["aiohttp + python-socketio"].rss_mib
    note = (
        f"Llamavisor takes {beyond:.1f} MiB beyond bare aiohttp + python-socketio. One wake-up a second or so is the liveness probe, which is "
        "answered by the engine (a second one); goal: ≤ 3 a second."
    )
    return Table("Idle, one ready instance, no clients", columns, rows, (note,))


def trace_table(calls: Mapping[str, float]) -> Table:
    """What the supervisor asked of the kernel."""
    ordered = sorted(calls.items(), key=lambda item: -item[1])[:12]
    rows = tuple((name, f"{rate:.1f}", "yes" if name in WAITING_CALLS else "") for name, rate in ordered)
    return Table("The supervisor's system calls while idle (strace, all threads)", ("call", "a second", "waits"), rows)


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, help="how long to watch (default 30; quick: 6)")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("This benchmark reads /proc, which only Linux has.")
    seconds = arguments.seconds or (6.0 if arguments.quick else 30.0)
    costs, calls = run(seconds)
    tables = (cost_table(costs), *((trace_table(calls),) if calls else ()))
    samples = {
        f"{who}: {name}": [float(getattr(each, name))]
        for who, each in costs.items()
        for name in ("wakeups", "all_wakeups", "cpu_percent", "rss_mib")
    }
    finish(Result("idle", tables, samples, arguments.quick), arguments.json)


if __name__ == "__main__":
    main()
