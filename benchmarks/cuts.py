"""Streams that an engine cuts at random bytes: how many of them does Llamavisor pass off as complete? None, is the claim.

An engine (`_cutting_engine.py`) sends each stream up to a random byte (within the head, an event, a character, before the last bracket of `[DONE]`)
and then closes or resets the connection; every tenth stream is whole. A stream counts as reported complete unless the client is told otherwise, by a
status, by an error in the stream, or by an unclean end: many clients take a clean end for a whole answer. What came of a cut stream must be a true
beginning of it, and the usage records must say what the client heard. Ends with 1 when something of this does not hold.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aiohttp

from benchmarks._cutting_engine import words_of
from benchmarks._house import House, open_house
from benchmarks._processes import Processes, end
from benchmarks._results import Result, Table, finish, options

INSTANCE = "cut"
ENGINE = Path(__file__).with_name("_cutting_engine.py")
STREAMS = 10_000
QUICK_STREAMS = 500
CLIENTS = 200
WHOLE_EVERY = 10
PATIENCE_SECONDS = 60.0
COMPLETE = "complete"
REPORTS = ("status", "error event", "unclean end", "torn event", COMPLETE)


@dataclass(frozen=True, slots=True)
class Order:
    """What the engine is to do with one stream: see `_cutting_engine.py`."""

    seed: str
    how: str
    framing: str
    at: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What the client was told of one stream: `complete`, or how it learned that it is not. `is_true`: what it got is a beginning of the text."""

    order: Order
    report: str
    is_true: bool


def orders(count: int, seed: int) -> Iterator[Order]:
    """So many cut streams, and a whole one with every few of them."""
    chance = random.Random(seed)
    for number in range(count):
        framing = chance.choice(("chunked", "end"))
        yield Order(f"{seed}-{number}", chance.choice(("close", "reset")), framing, f"{chance.random():.6f}")
        if number % WHOLE_EVERY == 0:
            yield Order(f"{seed}-{number}-whole", "whole", framing, "1")


async def ask(session: aiohttp.ClientSession, url: str, order: Order) -> Heard:
    """One stream, read to its end."""
    body = {
        "model": INSTANCE,
        "messages": [{"role": "user", "content": "Hello."}],
        "stream": True,
        "metadata": asdict(order),
    }
    data = b""
    try:
        async with session.post(url, json=body, headers={"X-Request-Id": order.seed}) as response:
            if response.status != 200:
                return Heard(order, "status", is_true=True)
            async for piece in response.content.iter_any():
                data += piece
    except aiohttp.ClientError:
        return judged(order, data, is_clean=False)
    return judged(order, data, is_clean=True)


def judged(order: Order, data: bytes, *, is_clean: bool) -> Heard:
    """What those bytes and their end tell a client. The events that are whole are looked at, as clients do."""
    payloads = [line.removeprefix(b"data: ") for line in data.split(b"\n")[:-1] if line.startswith(b"data: ")]
    try:
        documents = [json.loads(payload) for payload in payloads if payload != b"[DONE]"]
    except ValueError:
        return Heard(order, "torn event", is_true=False)
    deltas = [choice["delta"] for document in documents for choice in document.get("choices", ())]
    words, expected = [delta["content"] for delta in deltas if "content" in delta], words_of(order.seed)
    has_error, is_done = any("error" in document for document in documents), b"[DONE]" in payloads
    report = "error event" if has_error else COMPLETE if is_done or is_clean else "unclean end"
    needed = expected if report == COMPLETE else expected[: len(words)]
    return Heard(order, report, is_true=words == needed)


async def ask_all(house: House, ordered: Sequence[Order]) -> list[Heard]:
    """All of them, many at a time."""
    waiting = iter(ordered)
    heard: list[Heard] = []
    url = f"http://{house.address}/v1/chat/completions"
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    headers = {"Authorization": f"Bearer {house.key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def client() -> None:
            for order in waiting:
                one = await ask(session, url, order)
                heard.append(one)

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(), name=f"client-{number}")
    return heard


def outcomes(database: Path) -> dict[str, list[str | None]]:
    """How the books say that each stream ended, by the client's id."""
    found: dict[str, list[str | None]] = {}
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        for identity, outcome in connection.execute("SELECT client_request_id, outcome FROM usage_records"):
            found.setdefault(identity, []).append(outcome)
    finally:
        connection.close()
    return found


def run(count: int, seed: int) -> tuple[list[Heard], dict[str, list[str | None]], float]:
    """Everything that was heard, what the books say, and the seconds that it took."""
    with tempfile.TemporaryDirectory(prefix="lv-") as name, Processes(Path(name)) as processes:
        argv = [sys.executable, str(ENGINE), "${PORT}"]
        house = open_house(processes, {INSTANCE: {"engine": {"kind": "command", "argv": argv}}})
        began = time.monotonic()
        heard = asyncio.run(ask_all(house, list(orders(count, seed))))
        seconds = time.monotonic() - began
        end(house.process)
        return heard, outcomes(processes.folder / "data" / "llamavisor.db"), seconds


def table(heard: Sequence[Heard]) -> Table:
    """How each kind of end was reported."""
    columns = ("the engine", "framing", "streams", *REPORTS)
    kinds = [(how, framing) for how in ("close", "reset", "whole") for framing in ("chunked", "end")]
    names = {"close": "closes", "reset": "resets", "whole": "sends all"}
    rows = []
    for how, framing in kinds:
        reports = Counter(one.report for one in heard if (one.order.how, one.order.framing) == (how, framing))
        rows.append((names[how], framing, f"{reports.total():,}", *(f"{reports[report]:,}" for report in REPORTS)))
    return Table("Streams cut at random bytes: what the client was told", columns, tuple(rows))


def faults(heard: Sequence[Heard], booked: Mapping[str, Sequence[str | None]]) -> dict[str, int]:
    """How often what was claimed does not hold."""
    cut, whole = ([one for one in heard if (one.order.how == "whole") is kind] for kind in (False, True))
    records = {one.order.seed: booked.get(one.order.seed, ()) for one in heard}
    return {
        "cut streams reported complete": sum(one.report == COMPLETE for one in cut),
        "whole streams not reported complete": sum(one.report != COMPLETE for one in whole),
        "streams with other words than the engine's": sum(not one.is_true for one in heard),
        "streams without exactly one usage record": sum(len(outcomes) != 1 for outcomes in records.values()),
        "cut streams booked as ok": sum("ok" in records[one.order.seed] for one in cut),
        "whole streams booked otherwise": sum("ok" not in records[one.order.seed] for one in whole),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--streams", type=int, help=f"cut streams (default {STREAMS:,}; quick: {QUICK_STREAMS})")
    parser.add_argument("--seed", type=int, default=1, help="another seed cuts elsewhere (default 1)")
    arguments = parser.parse_args()
    heard, booked, seconds = run(arguments.streams or (QUICK_STREAMS if arguments.quick else STREAMS), arguments.seed)
    found = faults(heard, booked)
    books = Counter(outcome for one in heard for outcome in booked.get(one.order.seed, ()))
    told = ", ".join(f"{outcome} {count:,}" for outcome, count in books.most_common())
    notes = (
        f"{len(heard):,} streams, {CLIENTS} at a time, in {seconds:.0f} s. In the books: {told}.",
        "; ".join(f"{what}: {count}" for what, count in found.items()) + ".",
    )
    figures = {what: [float(count)] for what, count in found.items()}
    finish(Result("cuts", (replace(table(heard), notes=notes),), figures, arguments.quick), arguments.json)
    if any(found.values()):
        sys.exit("What is claimed does not hold.")


if __name__ == "__main__":
    main()
