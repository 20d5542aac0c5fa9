"""Kills of the supervisor under load: does a usage record get lost or doubled? None, is the claim.

Again and again `llamavisor serve` is started on the same data, loaded with requests and streams, each with an id of its own, and killed with
SIGKILL at a random moment; every fifth time while it is starting, and perhaps settling what the last one left. In the end it is started once more,
ended as people do, and its books are read. Lost: the client got a byte of the answer, or all of it, and there is no record. Doubled: there are two
of one request. What the client heard nothing of may have a record or none. Two such houses run beside one another.
Ends with 1 when a record is lost, doubled, open, or tells other tokens than the engine.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import aiohttp

from benchmarks._compiler import build_mock_engine
from benchmarks._house import House, Plan, await_house, issue_key, launch, mock, plan_house
from benchmarks._processes import Processes, end
from benchmarks._results import Result, Table, finish, options

INSTANCE = "mock"
EVENTS = 16
PACE_US = 1_000
CLIENTS = 16
KILLS = 1_000
HOUSES = 2
QUICK_KILLS = 10
STARTING_EVERY = 5
LONGEST_START_SECONDS = 1.5
LONGEST_LIFE_SECONDS = 0.6
PROMPT_TOKENS = 55
# What the mock engine says of its whole answer; of a stream, its events.
ANSWER_TOKENS = 9


class Heard(Enum):
    """What the client got: `nothing`; `something`, of an answer with status 200; `all` of it."""

    NOTHING = "nothing"
    SOMETHING = "something"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Record:
    """What the books say of one request."""

    outcome: str | None
    stream: bool
    prompt_tokens: int
    completion_tokens: int

    @property
    def is_exact(self) -> bool:
        """Whether the tokens are those of a whole answer, as the engine told them."""
        whole = (PROMPT_TOKENS, EVENTS if self.stream else ANSWER_TOKENS)
        return (self.prompt_tokens, self.completion_tokens) == whole


@dataclass(frozen=True, slots=True)
class Books:
    """What the clients heard of each request, and the records of each, by its id; kills, and seconds."""

    heard: Mapping[str, Heard]
    records: Mapping[str, Sequence[Record]]
    kills: int


async def ask(session: aiohttp.ClientSession, url: str, identity: str, stream: bool) -> Heard:
    """One request; how much of the answer came."""
    body = {"model": INSTANCE, "messages": [{"role": "user", "content": "Hello."}], "stream": stream}
    heard, data = Heard.NOTHING, b""
    try:
        async with session.post(url, json=body, headers={"X-Request-Id": identity}) as response:
            if response.status == 200:
                heard = Heard.SOMETHING
            async for piece in response.content.iter_any():
                data += piece
    except (aiohttp.ClientError, OSError):
        return heard
    is_whole = b"data: [DONE]\n\n" in data or not stream
    return Heard.ALL if is_whole and heard is Heard.SOMETHING else heard


async def load(house: House, identities: Iterator[str], life_seconds: float) -> dict[str, Heard]:
    """Put a load on the house, kill it after that time, and say what was heard of each request."""
    heard: dict[str, Heard] = {}
    url = f"http://{house.address}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {house.key}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def client(stream: bool) -> None:
            while house.process.returncode is None:
                identity = next(identities)
                heard[identity] = await ask(session, url, identity, stream)

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number % 2 == 0), name=f"client-{number}")
            await asyncio.sleep(life_seconds)
            house.process.kill()
            house.process.wait()
    return heard


def live(folder: Path, kills: int, seed: int) -> Books:
    """One house, killed so often, and then asked for its books."""
    chance = random.Random(seed)
    identities = (f"{seed}-{number}" for number in itertools.count())
    plan = plan_house(folder, {INSTANCE: mock(build_mock_engine(folder), folder, EVENTS, PACE_US)})
    key = first_key(folder, plan)
    heard: dict[str, Heard] = {}
    for number in range(kills):
        # Each in a context of its own, for it has pipes that are to be closed.
        with Processes(folder) as processes:
            process = launch(processes, plan)
            if number % STARTING_EVERY == STARTING_EVERY - 1:
                time.sleep(chance.uniform(0, LONGEST_START_SECONDS))
                process.kill()
            else:
                house = await_house(process, plan, key)
                heard.update(asyncio.run(load(house, identities, chance.uniform(0, LONGEST_LIFE_SECONDS))))
    with Processes(folder) as processes:
        end(await_house(launch(processes, plan), plan, key).process)
    return Books(heard, read_records(plan.data_folder / "llamavisor.db"), kills)


def first_key(folder: Path, plan: Plan) -> str:
    """Start it for the first time, to have a key made."""
    assert plan.server_key is not None
    with Processes(folder) as processes:
        return issue_key(await_house(launch(processes, plan), plan, None).address, plan.server_key)


def read_records(database: Path) -> dict[str, list[Record]]:
    """All records, by the client's id of the request."""
    found: dict[str, list[Record]] = {}
    query = "SELECT client_request_id, outcome, stream, prompt_tokens, completion_tokens FROM usage_records"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for identity, outcome, stream, prompt_tokens, completion_tokens in connection.execute(query):
            record = Record(outcome, bool(stream), prompt_tokens, completion_tokens)
            found.setdefault(identity, []).append(record)
    return found


def faults(books: Sequence[Books]) -> dict[str, int]:
    """How often what was claimed does not hold."""
    counts: Counter[str] = Counter()
    for one in books:
        answered = [identity for identity, heard in one.heard.items() if heard is not Heard.NOTHING]
        records = [record for each in one.records.values() for record in each]
        counts["lost"] += sum(identity not in one.records for identity in answered)
        counts["doubled"] += sum(len(each) > 1 for each in one.records.values())
        counts["of requests that nobody made"] += len(one.records.keys() - one.heard.keys())
        counts["still open"] += sum(record.outcome is None for record in records)
        counts["ok with other tokens than the engine's"] += sum(
            record.outcome == "ok" and not record.is_exact for record in records
        )
    return dict(counts)


def table(books: Sequence[Books]) -> Table:
    """What clients heard beside what the books say."""
    rows = []
    outcomes = sorted({str(record.outcome) for one in books for each in one.records.values() for record in each})
    for heard in Heard:
        counts: Counter[str] = Counter()
        for one in books:
            for identity, what in one.heard.items():
                if what is heard:
                    counts.update([str(record.outcome) for record in one.records.get(identity, ())] or ["none"])
        rows.append((heard.value, f"{counts.total():,}", *(f"{counts[name]:,}" for name in ("none", *outcomes))))
    columns = ("the client got", "requests", "no record", *outcomes)
    return Table("Requests, and how the books say that they ended", columns, tuple(rows))


def run(kills: int, seed: int) -> list[Books]:
    """All houses, beside one another."""
    houses = min(HOUSES, kills)
    shares = [kills // houses + (number < kills % houses) for number in range(houses)]
    with tempfile.TemporaryDirectory(prefix="lv-") as name, ThreadPoolExecutor(houses) as threads:
        folders = [Path(name) / str(number) for number in range(houses)]
        for folder in folders:
            folder.mkdir()
        seeds = [seed * 1_000 + number for number in range(houses)]
        return list(threads.map(live, folders, shares, seeds))


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--kills", type=int, help=f"how many (default {KILLS:,}; quick: {QUICK_KILLS})")
    parser.add_argument("--seed", type=int, default=1, help="another seed kills at other moments (default 1)")
    arguments = parser.parse_args()
    began = time.monotonic()
    books = run(arguments.kills or (QUICK_KILLS if arguments.quick else KILLS), arguments.seed)
    found = faults(books)
    kills = sum(one.kills for one in books)
    notes = (
        f"{kills:,} kills in {time.monotonic() - began:.0f} s, {CLIENTS} clients.",
        "An answer that came whole and is booked as interrupted was killed between its last byte and its settlement.",
        "Records " + ", ".join(f"{what}: {count}" for what, count in found.items()) + ".",
    )
    figures = {what: [float(count)] for what, count in found.items()}
    finish(Result("kills", (replace(table(books), notes=notes),), figures, arguments.quick), arguments.json)
    if any(found.values()):
        sys.exit("What is claimed does not hold.")


if __name__ == "__main__":
    main()
