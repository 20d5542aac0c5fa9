"""A cheap load generator: chat completions over kept connections, one after the other on each, for a set time.

    python -m benchmarks._load '{"address": "127.0.0.1:3000", "clients": 16, "seconds": 2, "body": {…}}'

`address` may be the path of a Unix socket. Prints one line of JSON: `requests` (within the time, after a warm-up), `all_requests` (with the
warm-up), `errors`, `refusal` (the head of the first answer that was not 200), `events` (of streams), `seconds`, `total_ms` and `first_ms` (medians:
whole answer; first event or first byte), `total_p95_ms`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

WARM_UP_SECONDS = 0.3
NS_PER_MS = 1e6
HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
EVENT_MARK = b"data: "


@dataclass(slots=True)
class Tally:
    """What all clients saw. `from_ns` to `until_ns` is the time that counts."""

    from_ns: int
    until_ns: int
    errors: int = 0
    refusal: str = ""
    all_requests: int = 0
    events: int = 0
    total_ns: list[int] = field(default_factory=list)
    first_ns: list[int] = field(default_factory=list)

    def add(self, began_ns: int, first_ns: int, events: int) -> None:
        """One answer, whole."""
        now = time.monotonic_ns()
        self.all_requests += 1
        if began_ns >= self.from_ns and now <= self.until_ns:
            self.events += events
            self.total_ns.append(now - began_ns)
            self.first_ns.append(first_ns - began_ns)


class Client(asyncio.Protocol):
    """One connection; sends the next request when an answer is whole, and connects anew when the server closes."""

    def __init__(self, address: str, request: bytes, tally: Tally) -> None:
        self._address = address
        self._request = request
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[Any] | None = None
        self.done = asyncio.get_running_loop().create_future()
        self._head = self._tail = b""
        self._left: int | None = None
        self._chunked = self._closes = self._is_waiting = self._failed = False
        self._first_ns = self._events = self._began_ns = 0

    def connect(self) -> None:
        """Connect, for the first time or again."""
        loop = asyncio.get_running_loop()
        if "/" in self._address:
            opening: Any = loop.create_unix_connection(lambda: self, self._address)
        else:
            host, _, port = self._address.rpartition(":")
            opening = loop.create_connection(lambda: self, host, int(port))
        self._connecting = asyncio.create_task(opening, name="connect")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._left is None and not self._chunked:
            self._head += data
            head, end, data = self._head.partition(HEAD_END)
            if not end:
                return
            self._read_head(head)
        if data and not self._first_ns:
            self._first_ns = time.monotonic_ns()
        self._events += data.count(EVENT_MARK)
        if self._chunked:
            self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
            if self._tail == LAST_CHUNK:
                self._finish()
        elif self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if self._is_waiting:
            self._tally.errors += 1
        if time.monotonic_ns() < self._tally.until_ns:
            self.connect()
        elif not self.done.done():
            self.done.set_result(None)

    def _reset(self) -> None:
        self._head = self._tail = b""
        self._left = None
        self._chunked = self._closes = self._is_waiting = self._failed = False
        self._first_ns = self._events = self._began_ns = 0

    def _send(self) -> None:
        assert self._transport is not None
        self._reset()
        if time.monotonic_ns() >= self._tally.until_ns:
            self._transport.close()
            return
        self._is_waiting = True
        self._began_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def _read_head(self, head: bytes) -> None:
        lines = head.lower().split(b"\r\n")
        if b" 200" not in lines[0]:
            self._tally.refusal = self._tally.refusal or head.decode("latin-1")
            self._failed = True
        values = dict(line.split(b": ", 1) for line in lines[1:])
        self._closes = values.get(b"connection") == b"close"
        self._chunked = values.get(b"transfer-encoding") == b"chunked"
        if not self._chunked:
            self._left = int(values[b"content-length"])

    def _finish(self) -> None:
        self._is_waiting = False
        if self._failed:
            self._tally.errors += 1
        else:
            self._tally.add(self._began_ns, self._first_ns, self._events)
        assert self._transport is not None
        if self._closes:
            self._transport.close()
        else:
            self._send()


def request_of(body: dict[str, Any]) -> bytes:
    """The bytes of one request."""
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def load(task: dict[str, Any]) -> dict[str, Any]:
    """Put the load on, and say what came of it."""
    now = time.monotonic_ns()
    from_ns = now + int(WARM_UP_SECONDS * 1e9)
    tally = Tally(from_ns, from_ns + int(task["seconds"] * 1e9))
    clients = [Client(task["address"], request_of(task["body"]), tally) for _ in range(task["clients"])]
    for client in clients:
        client.connect()
    await asyncio.gather(*(client.done for client in clients))
    total = [each / NS_PER_MS for each in tally.total_ns]
    return {
        "requests": len(total),
        "all_requests": tally.all_requests,
        "errors": tally.errors,
        "refusal": tally.refusal,
        "events": tally.events,
        "seconds": task["seconds"],
        "total_ms": statistics.median(total) if total else 0.0,
        "total_p95_ms": sorted(total)[int(len(total) * 0.95)] if total else 0.0,
        "first_ms": statistics.median(tally.first_ns) / NS_PER_MS if tally.first_ns else 0.0,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(json.loads(sys.argv[1])))), flush=True)
