"""Many Socket.IO clients in one process, as cheap as they can be in Python: epoll by hand, frames by hand.

    python -m benchmarks._socket_clients PORT COUNT OFFERS

OFFERS is `deflate` (the handshake offers permessage-deflate, as every browser does) or `none`. Prints `{"joined", "deflates", "seconds"}` once
all are in the namespace; then for each line on standard input a line `{"waiting": true}`, and, when every client has got one event more (or after
a minute), `{"received", "first_ns", "middle_ns", "last_ns"}` by CLOCK_MONOTONIC.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from benchmarks._processes import raise_descriptor_limit

CONNECTING_AT_ONCE = 64
WAIT_SECONDS = 60.0
# Longer than any of Engine.IO's own packets, shorter than any event here.
EVENT_BYTES_MIN = 126
HANDSHAKE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offers}\r\n"
)
DEFLATE_OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


def masked(text: bytes) -> bytes:
    """A short text frame of a client; the mask is zero, which costs nothing."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


JOIN = masked(b"40")
PONG = masked(b"3")


class Client:
    """One connection. `joined` once the namespace has taken it; `feed` says how many events came."""

    __slots__ = ("_buffer", "_frames", "connection", "deflates", "joined", "upgraded")

    def __init__(self, port: int, handshake: bytes) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.sendall(handshake)
        self._buffer = b""
        self._frames = 0
        self.upgraded = self.joined = self.deflates = False

    def read(self) -> int:
        """Take in what came; how many events it held. ConnectionError when the server has left."""
        received = self.connection.recv(65536)
        if not received:
            raise ConnectionError("the server closed a connection")
        self._buffer += received
        if not self.upgraded and not self._upgrade():
            return 0
        events = 0
        while (payload_bytes := self._next_frame()) is not None:
            events += self._take(payload_bytes)
        return events

    def _upgrade(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(head.decode("latin-1"))
        self.deflates = b"permessage-deflate" in head
        self.upgraded, self._buffer = True, rest
        return True

    def _next_frame(self) -> int | None:
        """Take one whole frame off the buffer; the length of its payload."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1], 2
        if length == 126:
            length, start = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < start + length:
            return None
        self._buffer = buffer[start + length :]
        return length

    def _take(self, payload_bytes: int) -> int:
        self._frames += 1
        if self._frames == 1:
            self.connection.sendall(JOIN)
        elif self._frames == 2:
            self.joined = True
        elif payload_bytes >= EVENT_BYTES_MIN:
            return 1
        else:
            self.connection.sendall(PONG)
        return 0


class Crowd:
    """All clients."""

    def __init__(self, port: int, count: int, handshake: bytes) -> None:
        self._port = port
        self._count = count
        self._handshake = handshake
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}

    def join(self) -> dict[str, object]:
        """Connect everybody, some at a time."""
        began = time.monotonic()
        while (joined := sum(client.joined for client in self._clients.values())) < self._count:
            while len(self._clients) < min(self._count, joined + CONNECTING_AT_ONCE):
                self._connect()
            self._look(0.1)
        deflates = any(client.deflates for client in self._clients.values())
        return {"joined": joined, "deflates": deflates, "seconds": time.monotonic() - began}

    def wait_for_input(self) -> bool:
        """Answer pings until a line is asked for; False at the end of the input."""
        self._poll.register(0, select.EPOLLIN)
        while not self._look(1.0, until_input=True):
            pass
        self._poll.unregister(0)
        return bool(sys.stdin.readline())

    def gather(self) -> dict[str, object]:
        """Wait for one event to every client."""
        arrivals: list[int] = []
        deadline = time.monotonic() + WAIT_SECONDS
        while len(arrivals) < self._count and time.monotonic() < deadline:
            self._look(0.5, arrivals)
        arrivals.sort()
        told = (
            {"first_ns": arrivals[0], "middle_ns": arrivals[len(arrivals) // 2], "last_ns": arrivals[-1]}
            if arrivals
            else {}
        )
        return {"received": len(arrivals), **told}

    def _connect(self) -> None:
        client = Client(self._port, self._handshake)
        descriptor = client.connection.fileno()
        self._clients[descriptor] = client
        self._poll.register(descriptor, select.EPOLLIN)

    def _look(self, timeout: float, arrivals: list[int] | None = None, *, until_input: bool = False) -> bool:
        for descriptor, _ in self._poll.poll(timeout, 512):
            if descriptor == 0:
                return until_input
            events = self._clients[descriptor].read()
            if events and arrivals is not None:
                arrivals.extend([time.monotonic_ns()] * events)
        return False


def main(port: int, count: int, offers: str) -> None:
    """Join, then tell of each round."""
    raise_descriptor_limit()
    handshake = HANDSHAKE.format(port=port, offers=DEFLATE_OFFER if offers == "deflate" else "").encode()
    crowd = Crowd(port, count, handshake)
    print(json.dumps(crowd.join()), flush=True)
    while crowd.wait_for_input():
        print(json.dumps({"waiting": True}), flush=True)
        print(json.dumps(crowd.gather()), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
