"""What a request costs on its way through: direct to the engine, through Llamavisor, through a bare aiohttp proxy.

Two engines: a mock in C that answers at once (so that all there is to see is the way), and the embedded llama.cpp with the demo model. The three ways
take turns within each round. The load generator and the engine share one core, the proxy has the other, as far as the machine has no more.
`added` is the median answer time beyond the direct way of the same round; CPU is that of the proxy's process alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._compiler import build_mock_engine
from benchmarks._processes import ROOT, Processes, clean_environment, cpu_seconds, hear, wait_until
from benchmarks._results import NOTHING, Result, Table, finish, middle, options, ratio, spread

DIRECT, OURS, BARE = "direct", "Llamavisor", "bare aiohttp"
WAYS = (DIRECT, OURS, BARE)
BURST_EVENTS = 64
PACED_EVENTS = 32
PACE_US = 5_000
US_PER_SECOND = 1e6


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked, of which instance, by how many at once."""

    title: str
    instance: str
    stream: bool
    clients: int
    max_tokens: int = 16

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        messages = [{"role": "user", "content": "What is the capital of France? Then tell me a story."}]
        return {"model": self.instance, "messages": messages, "stream": self.stream, "max_tokens": self.max_tokens}


@dataclass(slots=True)
class Seen:
    """One figure a round."""

    requests_per_second: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    events_per_second: list[float] = field(default_factory=list)
    cpu_us_per_request: list[float] = field(default_factory=list)
    cpu_us_per_event: list[float] = field(default_factory=list)
    errors: int = 0


Findings = dict[Workload, dict[str, Seen]]


@dataclass(frozen=True, slots=True)
class Way:
    """Where requests go in, and whose processor time counts (None: nobody's)."""

    address: str
    pid: int | None


def workloads() -> list[Workload]:
    """All of them, for one client and for sixteen."""
    kinds = [
        ("mock: request", "burst", False, 16),
        (f"mock: stream of {BURST_EVENTS}, at once", "burst", True, 16),
        (f"mock: stream of {PACED_EVENTS}, one each {PACE_US / 1000:g} ms", "paced", True, 16),
        ("demo model: request of 8 tokens", "demo", False, 8),
        ("demo model: stream of 32 tokens", "demo", True, 32),
    ]
    return [Workload(*kind[:3], clients, kind[3]) for kind in kinds for clients in (1, 16)]


def start(processes: Processes) -> dict[str, dict[str, Way]]:
    """One Llamavisor with three instances, a bare proxy to each; the ways to each instance."""
    engine = build_mock_engine(processes.folder)
    configuration = processes.folder / "llamavisor.json"
    instances = {
        "burst": mock(engine, processes.folder, BURST_EVENTS, 0),
        "paced": mock(engine, processes.folder, PACED_EVENTS, PACE_US),
        "demo": {"engine": {"kind": "embedded", "parallel": 2}, "model": "demo"},
    }
    configuration.write_text(json.dumps({"server": {"port": 0}, "instances": instances}))
    ours = processes.module("benchmarks._supervised", configuration, processes.folder / "data")
    told = hear(ours)
    addresses = ready_addresses(ours, set(instances))
    door = Way(told["url"].removeprefix("http://"), told["pid"])
    ways = {}
    for name, address in addresses.items():
        bare = hear(processes.module("benchmarks._bare_proxy", address))
        ways[name] = {DIRECT: Way(address, None), OURS: door, BARE: Way(f"127.0.0.1:{bare['port']}", bare["pid"])}
    return ways


def mock(engine: Path, folder: Path, events: int, pace_us: int) -> dict[str, Any]:
    """Settings of an instance that is the mock engine."""
    argv = [str(engine), str(folder / "births"), "${PORT}", str(events), str(pace_us)]
    return {"engine": {"kind": "command", "argv": argv}}


def ready_addresses(ours: subprocess.Popen[str], names: set[str]) -> dict[str, str]:
    """Where each instance listens, once all are ready."""
    found: dict[str, str] = {}

    def look() -> dict[str, str] | None:
        line = hear(ours)
        if line["state"] == "ready":
            found[line["instance"]] = line["address"].removeprefix("unix:").removeprefix("http://")
        return found if set(found) == names else None

    return wait_until(look, "the instances to be ready")


def load(way: Way, workload: Workload, seconds: float) -> tuple[dict[str, Any], float]:
    """Put one load on one way; what the generator saw, and the proxy's processor seconds."""
    task = {"address": way.address, "clients": workload.clients, "seconds": seconds, "body": workload.body}
    before = cpu_seconds(way.pid) if way.pid is not None else 0.0
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._load", json.dumps(task)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    if done.returncode:
        sys.exit(f"the load on {way.address} failed: {done.stderr}")
    used = cpu_seconds(way.pid) - before if way.pid is not None else 0.0
    told = json.loads(done.stdout)
    if told["refusal"] and not told["all_requests"]:
        sys.exit(f"{workload.title}, {workload.clients} clients at {way.address}: {told['refusal']}")
    return told, used


def note(seen: Seen, told: Mapping[str, Any], used: float, direct_ms: float) -> None:
    """Add one run to the figures of its way."""
    seen.errors += told["errors"]
    seen.requests_per_second.append(told["requests"] / told["seconds"])
    if not told["requests"]:
        return
    seen.total_ms.append(told["total_ms"])
    if direct_ms:
        seen.added_ms.append(told["total_ms"] - direct_ms)
    seen.first_ms.append(told["first_ms"])
    seen.events_per_second.append(told["events"] / told["seconds"])
    if used:
        seen.cpu_us_per_request.append(used / told["all_requests"] * US_PER_SECOND)
    if used and told["events"]:
        # The warm-up has its share of the processor time, and of the requests.
        events = told["events"] / told["requests"] * told["all_requests"]
        seen.cpu_us_per_event.append(used / events * US_PER_SECOND)


def run(rounds: int, seconds: float, only: str) -> Findings:
    """Every workload (with `only` in its title) on every way, round after round."""
    chosen = [each for each in workloads() if only in each.title]
    findings: Findings = {each: {way: Seen() for way in WAYS} for each in chosen}
    with tempfile.TemporaryDirectory(prefix="lv-") as name, Processes(Path(name)) as processes:
        ways = start(processes)
        for _ in range(rounds):
            for workload, seen in findings.items():
                direct_ms = 0.0
                for way in WAYS:
                    told, used = load(ways[workload.instance][way], workload, seconds)
                    direct_ms = told["total_ms"] if way == DIRECT else direct_ms
                    note(seen[way], told, used, direct_ms)
    return findings


def request_table(findings: Findings) -> Table:
    """Requests that are answered in one piece."""
    columns = (
        "workload",
        "clients",
        "way",
        "requests/s",
        "median, ms",
        "added, ms",
        "CPU µs/request",
        "requests/s, of bare",
    )
    rows = [
        (
            workload.title, str(workload.clients), way, spread(seen.requests_per_second, 0), middle(seen.total_ms),
            NOTHING if way == DIRECT else spread(seen.added_ms), spread(seen.cpu_us_per_request, 0),
            ratio(seen.requests_per_second, ways[BARE].requests_per_second),
        )
        for workload, ways in findings.items() if not workload.stream for way, seen in ways.items()
    ]  # fmt: skip
    return Table("Requests", columns, tuple(rows), (errors_note(findings),))


def stream_table(findings: Findings) -> Table:
    """Streams."""
    columns = (
        "workload",
        "clients",
        "way",
        "events/s",
        "first event, ms",
        "added to all, ms",
        "CPU µs/event",
        "events/s, of bare",
    )
    rows = [
        (
            workload.title, str(workload.clients), way, spread(seen.events_per_second, 0), middle(seen.first_ms),
            NOTHING if way == DIRECT else spread(seen.added_ms), spread(seen.cpu_us_per_event, 1),
            ratio(seen.events_per_second, ways[BARE].events_per_second),
        )
        for workload, ways in findings.items() if workload.stream for way, seen in ways.items()
    ]  # fmt: skip
    return Table(
        "Streams",
        columns,
        tuple(rows),
        ("Llamavisor reads every event of a stream and judges it; the bare proxy copies bytes.",),
    )


def errors_note(findings: Findings) -> str:
    """Who lost answers."""
    lost = {way: sum(ways[way].errors for ways in findings.values()) for way in WAYS}
    return (
        "Medians (quartiles) over the rounds. Answers lost: "
        + ", ".join(f"{way} {count}" for way, count in lost.items())
        + "."
    )


def samples_of(findings: Findings) -> dict[str, Sequence[float]]:
    """Raw figures by name."""
    names = (
        "requests_per_second",
        "total_ms",
        "added_ms",
        "first_ms",
        "events_per_second",
        "cpu_us_per_request",
        "cpu_us_per_event",
    )
    return {
        f"{workload.title}, {workload.clients} clients, {way}: {name}": getattr(seen, name)
        for workload, ways in findings.items()
        for way, seen in ways.items()
        for name in names
    }


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, help="rounds (default 5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of each load (default 2; quick: 0.5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the workloads with this in their title")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    findings = run(rounds, arguments.seconds or (0.5 if arguments.quick else 2.0), arguments.only)
    tables = (request_table(findings), stream_table(findings))
    finish(Result("overhead", tables, samples_of(findings), arguments.quick), arguments.json)


if __name__ == "__main__":
    main()
