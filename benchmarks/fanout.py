"""One status change to very many dashboards: Llamavisor's fan-out beside `emit` of python-socketio as it comes.

Each contender is a server in a process of its own with its clients in another; rounds take turns. What counts is when the *last* client has the
event, counted from the moment before it was published, and how much memory the server takes for each connection. Clients offer
permessage-deflate in the handshake, as browsers do, and once more they do not.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._processes import Processes, hear, raise_descriptor_limit, tell
from benchmarks._results import Result, Table, finish, median, options, ratio, spread

NS_PER_MS = 1e6
SETTLE_SECONDS = 1.0
WARM_UP_ROUNDS = 2
PAUSE_SECONDS = 0.2
CONTENDERS = (
    ("Llamavisor", "llamavisor", "deflate"),
    ("python-socketio, clients as browsers", "plain", "deflate"),
    ("python-socketio, clients without deflate", "plain", "none"),
)


@dataclass(slots=True)
class Contender:
    """One server and its clients; times are milliseconds since the event was published."""

    name: str
    server: subprocess.Popen[str]
    clients: subprocess.Popen[str]
    count: int
    memory_kb: float = 0.0
    deflates: bool = False
    middle: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    lost: int = 0

    def round(self) -> None:
        """One event to all."""
        tell(self.clients, "round")
        hear(self.clients)
        tell(self.server, "emit")
        began_ns = hear(self.server)["began_ns"]
        told = hear(self.clients)
        self.lost += self.count - told["received"]
        self.middle.append((told["middle_ns"] - began_ns) / NS_PER_MS)
        self.last.append((told["last_ns"] - began_ns) / NS_PER_MS)


def start(processes: Processes, name: str, kind: str, offers: str, count: int) -> Contender:
    """A server, and its clients joined."""
    folder = Path(tempfile.mkdtemp(prefix=kind, dir=processes.folder))
    server = processes.module("benchmarks._fanout_server", kind, folder)
    port = hear(server)["port"]
    before = memory(server)
    clients = processes.module("benchmarks._socket_clients", str(port), str(count), offers)
    joined = hear(clients)
    time.sleep(SETTLE_SECONDS)
    kb = (memory(server) - before) / count / 1_000
    return Contender(name, server, clients, count, kb, bool(joined["deflates"]))


def memory(server: subprocess.Popen[str]) -> int:
    """What is resident of a server, garbage collected."""
    tell(server, "memory")
    return int(hear(server)["rss_bytes"])


def run(count: int, rounds: int) -> list[Contender]:
    """All contenders with `count` clients each."""
    with tempfile.TemporaryDirectory(prefix="lv-") as name, Processes(Path(name)) as processes:
        contenders = [start(processes, *each, count) for each in CONTENDERS]
        for number in range(rounds + WARM_UP_ROUNDS):
            for contender in contenders:
                contender.round()
                time.sleep(PAUSE_SECONDS)
                if number < WARM_UP_ROUNDS:
                    contender.middle.clear()
                    contender.last.clear()
    return contenders


def table(contenders: Sequence[Contender]) -> Table:
    """Times, memory, and both as multiples of python-socketio's own."""
    count = contenders[0].count
    own, browsers, bare = contenders
    columns = (
        "server",
        "last client, ms",
        "median client, ms",
        "KB a client",
        "deflate",
        "last, of the 2nd row",
        "last, of the 3rd row",
    )
    rows = tuple(
        (
            each.name,
            spread(each.last, 1),
            spread(each.middle, 1),
            f"{each.memory_kb:.1f}",
            "on" if each.deflates else "off",
            ratio(each.last, browsers.last),
            ratio(each.last, bare.last),
        )
        for each in contenders
    )
    notes = (
        (
            f"Milliseconds until the last (and the median) of {count:,} clients has it, median (quartiles) over {len(own.last)} rounds; "
            f"KB: resident memory of the server. Events lost: {sum(each.lost for each in contenders)}."
        ),
        (
            f"Last client {median(own.last) / median(browsers.last):.2f} × of plain `emit` to the same clients, "
            f"{median(own.last) / median(bare.last):.2f} × where those offer no deflate (goal at 5,000: ≤ 0.4 ×); "
            f"{own.memory_kb:.1f} KB a client (goal: ≤ 35 KB)."
        ),
    )
    return Table(f"One status change to {count:,} clients", columns, rows, notes)


def main() -> None:
    """Measure, print, keep."""
    parser = options(__doc__)
    parser.add_argument("--clients", type=int, nargs="+", help="how many (default: 1000 5000; quick: 300)")
    parser.add_argument("--rounds", type=int, help="events of each contender (default 15; quick: 3)")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    rounds = arguments.rounds or (3 if arguments.quick else 15)
    counts = arguments.clients or ([300] if arguments.quick else [1_000, 5_000])
    found = [run(count, rounds) for count in counts]
    samples = {
        f"{each.count} clients, {each.name}: {what}": values
        for contenders in found
        for each in contenders
        for what, values in (("last_ms", each.last), ("median_ms", each.middle), ("memory_kb", [each.memory_kb]))
    }
    finish(Result("fanout", tuple(map(table, found)), samples, arguments.quick), arguments.json)


if __name__ == "__main__":
    main()
