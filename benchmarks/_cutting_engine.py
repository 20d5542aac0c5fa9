"""An engine whose streams end where the request says: whole, or after so many of their bytes. Standard library only; run as a program.

    python _cutting_engine.py PORT

A request for a chat completion carries in `metadata` (strings): `seed` (of the text), `how` (`whole`, `close` or `reset`), `framing` (`chunked`,
or `end`: the stream lasts until the connection is closed), and `at`, the share of the bytes after which a stream that is not whole ends:
from 0 (nothing is sent) to 1 (all of it is, but the last bracket of `[DONE]`).
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
from typing import Any

WORDS = (
    "plain",
    " line\nfeed",
    "naïve",
    " 東京",
    "🦙🦙",
    '"quoted"',
    " \\back",
    "data: x",
    "[DONE]",
    " ",
    "\u2028",
    "x" * 300,
)
MOST_EVENTS = 24
LAST = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FRAMINGS = {"chunked": b"Transfer-Encoding: chunked\r\n\r\n", "end": b"Connection: close\r\n\r\n"}
# Reset at once when closed, whatever was not sent yet.
RESET = struct.pack("ii", 1, 0)


def words_of(seed: str) -> list[str]:
    """The text that a seed stands for, event by event."""
    chance = random.Random(seed)
    return [chance.choice(WORDS) for _ in range(chance.randint(1, MOST_EVENTS))]


def events_of(seed: str) -> list[bytes]:
    """The events of the stream, without the last."""
    deltas: list[dict[str, Any]] = [{"delta": {"content": word}, "finish_reason": None} for word in words_of(seed)]
    deltas.append({"delta": {}, "finish_reason": "stop"})
    return [_event({"choices": [{"index": 0, **delta}]}) for delta in deltas]


def wire_of(seed: str, framing: str, wants_usage: bool) -> tuple[bytes, int]:
    """The whole answer, and how many of its bytes there are before the last bracket of `[DONE]`."""
    events = events_of(seed)
    if wants_usage:
        tokens = len(events)
        usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": tokens + 5}
        events.append(_event({"choices": [], "usage": usage}))
    frame = _chunk if framing == "chunked" else bytes
    before = HEAD + FRAMINGS[framing] + b"".join(map(frame, events))
    whole = before + frame(LAST) + (b"0\r\n\r\n" if framing == "chunked" else b"")
    return whole, whole.rindex(b"]", len(before))


def _event(document: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-cut", "object": "chat.completion.chunk", "created": 1_763_658_000, "model": "cut"}
    return b"data: %b\n\n" % json.dumps({**head, **document}, ensure_ascii=False).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One client: answers one request after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
        if found and len(rest) >= length:
            self._buffer = rest[length:]
            self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            page = json.dumps({"object": "list", "data": []}).encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page)
            )
            return
        request = json.loads(body)
        order = request["metadata"]
        wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        wire, limit = wire_of(order["seed"], order["framing"], wants_usage)
        if order["how"] != "whole":
            wire = wire[: int(limit * float(order["at"]))]
        self._transport.write(wire)
        if order["how"] == "reset":
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if order["how"] != "whole" or order["framing"] == "end":
            self._transport.close()


async def serve(port: int) -> None:
    """Serve until ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
