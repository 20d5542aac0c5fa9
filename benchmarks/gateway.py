"""What the door costs: direct to the engine, and through nginx, a bare aiohttp proxy, LiteLLM's proxy, and Llamavisor with everything on.

Two engines: a mock in C that answers at once (so that all there is to see is the way), and the embedded llama.cpp with the demo model. The ways
take turns within each round. On the mock, what is measured has one core for itself, and the engine and the load generator (C, both) share the
others; on the real engine nothing is pinned, for that is how people run it. nginx runs at its best: one worker, no log, no buffering, connections to
the engine kept (but for streams of the real engine, which closes them after each while it says that it will not, and so tears every twentieth).
LiteLLM has its turn every second round. `added` is the median answer time beyond the direct way of the same round; CPU is that of the
proxy's processes alone, of its engine nothing. A stream counts as failed unless it ended with `[DONE]`.

Compare a few ways in some seconds: `--quick --only "mock: request" --clients 16 --ways nginx,bare,llamavisor`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._findings import Findings, Seen, Workload, samples_of, workloads
from benchmarks._gateway_tables import goals_table, memory_table, request_table, stream_table
from benchmarks._load import LoadGenerator, Told, request_bytes
from benchmarks._processes import Processes
from benchmarks._processors import Cores, Memory, cpu_of, memory_of, pin
from benchmarks._results import OWN_PACKAGES, Result, finish, installed_versions, options
from benchmarks._ways import DEMO, DIRECT, LITELLM, WAYS, Engines, Way, start

LITELLM_EVERY = 2
SLOW_FACTOR = 3


class Bench:
    """The running ways, and the load generator."""

    def __init__(self, ways: Mapping[str, Way], engines: Engines, generator: LoadGenerator, seconds: float) -> None:
        self._ways = ways
        self._engines = engines
        self._generator = generator
        self._seconds = seconds
        self._cores = Cores.of_this_machine()

    def memories(self) -> dict[str, Memory]:
        """Of each way that has processes."""
        return {name: memory_of(way.pids) for name, way in self._ways.items() if way.pids}

    def warm_up(self, chosen: Sequence[Workload]) -> None:
        """Each way does a bit of everything once: LiteLLM loads half of itself with its first request."""
        for workload in {each.kind: each for each in chosen}.values():
            for name in self._ways:
                self._load(workload, name)

    def round(self, number: int, findings: Findings) -> None:
        """Every workload on every way whose turn it is."""
        for workload, seen in findings.items():
            direct_ms = self._measure(workload, DIRECT, seen[DIRECT], None)
            for name in seen:
                if name != DIRECT and (name != LITELLM or number % LITELLM_EVERY == 0):
                    self._measure(workload, name, seen[name], direct_ms)

    def _measure(self, workload: Workload, name: str, seen: Seen, direct_ms: float | None) -> float | None:
        told, cpu_seconds = self._load(workload, name)
        seen.note(told, cpu_seconds, direct_ms)
        if told.refusal:
            print(f"{workload.title}, {workload.clients} clients, {name}: {told.refusal}", file=sys.stderr)
        return told.total_ms.p50 or None

    def _load(self, workload: Workload, name: str) -> tuple[Told, float | None]:
        way = self._ways[name]
        self._place(workload, way)
        request = request_bytes(workload.body, way.key)
        before = cpu_of(way.pids)
        # A shorter look would end before the first wave of sixty-four is through.
        is_slow = name == LITELLM or workload.kind.instance == DEMO
        seconds = self._seconds * (SLOW_FACTOR if is_slow else 1)
        told = self._generator.put(way.addresses[workload.kind], request, workload.clients, seconds)
        return told, cpu_of(way.pids) - before if way.pids else None

    def _place(self, workload: Workload, way: Way) -> None:
        is_pinned = workload.kind.instance != DEMO
        others = self._cores.rest if is_pinned else self._cores.all
        pin(self._engines.pids, others)
        # The load generator is our child, and inherits where we may run.
        pin([os.getpid()], others)
        pin(way.pids, self._cores.proxy if is_pinned else self._cores.all)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found; the memory of each way before and after; versions of other people's programs."""

    findings: Findings
    memories: Mapping[str, tuple[Memory, Memory]]
    versions: Mapping[str, str]


def run(
    chosen: Sequence[Workload], names: Sequence[str], rounds: int, seconds: float, *, everything_on: bool
) -> Outcome:
    """Those workloads on those ways, round after round."""
    with tempfile.TemporaryDirectory(prefix="lv-") as name, Processes(Path(name)) as processes:
        instances = {workload.kind.instance for workload in chosen}
        ways, engines = start(processes, names, instances, everything_on=everything_on)
        for missing in set(names) - set(ways):
            print(f"{missing} is not installed, and left out.", file=sys.stderr)
        findings: Findings = {workload: {way: Seen() for way in ways} for workload in chosen}
        bench = Bench(ways, engines, LoadGenerator(processes.folder), seconds)
        bench.warm_up(chosen)
        before = bench.memories()
        for number in range(rounds):
            bench.round(number, findings)
        memories = {way: (before[way], after) for way, after in bench.memories().items()}
        versions = {name: way.version for name, way in ways.items() if way.version is not None}
        return Outcome(findings, memories, versions)


def chosen_ways(text: str) -> list[str]:
    """The ways whose names begin so, direct always."""
    begins = tuple(word.strip().lower() for word in text.split(","))
    return [way for way in WAYS if way == DIRECT or way.lower().startswith(begins)]


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, help="rounds (default 5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of each load (default 1.5; quick: 0.5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the workloads with this in their title")
    parser.add_argument("--clients", type=int, nargs="+", help="only so many at once (1, 16 or 64)")
    parser.add_argument("--ways", default="", metavar="A,B", help="only those (beginnings of names) beside direct")
    parser.add_argument("--off", action="store_true", help="Llamavisor without keys, limits, prices and budgets")
    arguments = parser.parse_args()
    chosen = [
        each
        for each in workloads()
        if arguments.only in each.title and each.clients in (arguments.clients or [each.clients])
    ]
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    seconds = arguments.seconds or (0.5 if arguments.quick else 1.5)
    outcome = run(chosen, chosen_ways(arguments.ways), rounds, seconds, everything_on=not arguments.off)
    findings = outcome.findings
    tables = (request_table(findings), stream_table(findings), memory_table(outcome.memories), goals_table(findings))
    versions = {**installed_versions(OWN_PACKAGES), **outcome.versions}
    shown = tuple(table for table in tables if table.rows)
    finish(Result("gateway", shown, samples_of(findings), arguments.quick, versions), arguments.json)


if __name__ == "__main__":
    main()
