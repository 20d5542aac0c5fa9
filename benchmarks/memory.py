"""Whether memory stays flat: a million small requests through Llamavisor with everything on, answers and streams in turns.

A mock engine in C answers at once. Between two loads the memory of Llamavisor is read (RSS; PSS, which divides shared pages), with its threads
and open files. The first tenth is left out of the growth: caches fill, the allocator finds its size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from benchmarks._compiler import build_mock_engine
from benchmarks._house import House, mock, open_house
from benchmarks._load import LoadGenerator, request_bytes
from benchmarks._processes import Processes
from benchmarks._processors import memory_of
from benchmarks._results import Result, Table, finish, options

INSTANCE = "small"
STREAM_EVENTS = 4
CLIENTS = 16
SLICE_SECONDS = 1.0
STEPS = 10
REQUESTS = 1_000_000
QUICK_REQUESTS = 20_000


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood after so many requests."""

    requests: int
    failures: int
    rss_mib: float
    pss_mib: float
    threads: int
    files: int


def sample(house: House, requests: int, failures: int) -> Sample:
    """How things stand now."""
    memory, process = memory_of([house.pid]), psutil.Process(house.pid)
    return Sample(requests, failures, memory.rss_mib, memory.pss_mib, process.num_threads(), process.num_fds())


def run(total: int) -> list[Sample]:
    """So many requests; a sample at first and after each tenth of them."""
    with tempfile.TemporaryDirectory(prefix="lv-") as name, Processes(Path(name)) as processes:
        engine = mock(build_mock_engine(processes.folder), processes.folder, STREAM_EVENTS)
        house, generator = open_house(processes, {INSTANCE: engine}), LoadGenerator(processes.folder)
        samples = [sample(house, 0, 0)]
        requests = failures = 0
        is_stream = False
        while requests < total:
            body = {"model": INSTANCE, "messages": [{"role": "user", "content": "Hello."}], "stream": is_stream}
            told = generator.put(house.address, request_bytes(body, house.key), CLIENTS, SLICE_SECONDS)
            requests, failures = requests + told.all_requests, failures + told.failures
            if requests * STEPS // total >= len(samples):
                samples.append(sample(house, requests, failures))
            is_stream = not is_stream
        return samples


def table(samples: Sequence[Sample]) -> Table:
    """Sample by sample."""
    columns = ("requests", "RSS, MiB", "PSS, MiB", "threads", "open files", "failed")
    rows = [
        (
            f"{each.requests:,}",
            f"{each.rss_mib:.1f}",
            f"{each.pss_mib:.1f}",
            str(each.threads),
            str(each.files),
            str(each.failures),
        )
        for each in samples
    ]
    first, last = samples[1], samples[-1]
    grown = (
        f"From {first.requests:,} to {last.requests:,} requests: RSS {last.rss_mib - first.rss_mib:+.1f} MiB, "
        f"PSS {last.pss_mib - first.pss_mib:+.1f} MiB."
    )
    return Table("Memory over many small requests", columns, tuple(rows), (grown,))


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--requests", type=int, help=f"how many (default {REQUESTS:,}; quick: {QUICK_REQUESTS:,})")
    arguments = parser.parse_args()
    samples = run(arguments.requests or (QUICK_REQUESTS if arguments.quick else REQUESTS))
    figures = {each.name: [getattr(one, each.name) for one in samples] for each in fields(Sample)}
    finish(Result("memory", (table(samples),), figures, arguments.quick), arguments.json)


if __name__ == "__main__":
    main()
