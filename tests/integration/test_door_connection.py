"""One client's connection at the door: which way its requests take, how they are framed, and what is said of those that never end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT
from supervisor.process.states import State
from tests.fixtures.door import HELLO, STREAM, Door
from tests.fixtures.house import misbehaving

GENEROUS_SECONDS = 30.0
JSON = "application/json"


class Client:
    """Speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Write."""
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body (chunks joined)."""
        async with asyncio.timeout(GENEROUS_SECONDS):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
            if headers.get("transfer-encoding") == "chunked":
                body = b"".join([chunk async for chunk in self._chunks()])
            else:
                body = await self.reader.readexactly(int(headers["content-length"]))
            return int(lines[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        """Wait for the server to close; False when it says something instead."""
        async with asyncio.timeout(GENEROUS_SECONDS):
            return await self.reader.read(1) == b""

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)


class Hall:
    """The door, its clients, and how many of them were sent the long way."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.long_ways = 0
        self._clients: list[Client] = []
        shared = door.web._door
        assert shared is not None
        original = shared.long_way

        def counted() -> asyncio.Protocol:
            self.long_ways += 1
            return original()

        shared.long_way = counted

    async def client(self) -> Client:
        """A new connection."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.door.web.port))
        self._clients.append(client)
        return client

    def close(self) -> None:
        """End every connection."""
        for client in self._clients:
            client.writer.close()


@pytest_asyncio.fixture
async def hall(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Hall]:
    """One misbehaving engine that behaves; parameters are settings of the server."""
    door = Door(tmp_path)
    await door.open({"one": misbehaving(door.house.model)}, **getattr(request, "param", {}))
    hall = Hall(door)
    yield hall
    hall.close()
    await door.close()


def request(body: Any = HELLO, *, path: str = CHAT, **headers: str) -> bytes:
    """A request's bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "127.0.0.1", "Content-Type": JSON, "Content-Length": str(len(data)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


def text_of(body: bytes) -> str:
    """What the model said."""
    return str(json.loads(body)["choices"][0]["message"]["content"])


async def test_requests_in_one_write_are_answered_in_their_order(hall: Hall) -> None:
    client = await hall.client()
    client.send(request(X_Request_Id="first") + request(STREAM, X_Request_Id="second") + request(X_Request_Id="third"))
    answers = [await client.answer() for _ in range(3)]
    assert [headers["x-request-id"] for _, headers, _ in answers] == ["first", "second", "third"]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert answers[1][2].endswith(b"data: [DONE]\n\n")
    assert text_of(answers[0][2]) == text_of(answers[2][2])
    assert hall.long_ways == 0


async def test_a_request_may_come_byte_by_byte(hall: Hall) -> None:
    client = await hall.client()
    for byte in request():
        client.send(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    status, _, body = await client.answer()
    assert status == 200
    assert text_of(body)
    assert hall.long_ways == 0


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        request(Origin="http://127.0.0.1:1"),
        request(Idempotency_Key="once"),
        f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n".encode(),
    ],
)
async def test_what_is_not_plain_goes_the_long_way_byte_for_byte(hall: Hall, data: bytes) -> None:
    client = await hall.client()
    client.send(data)
    status, headers, _ = await client.answer()
    assert status in {200, 400, 403}
    assert headers["x-request-id"]
    assert hall.long_ways == 1


async def test_a_connection_may_change_to_the_long_way_and_stays_there(hall: Hall) -> None:
    client = await hall.client()
    get = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    client.send(request() + get + request())
    assert text_of((await client.answer())[2])
    assert (await client.answer())[0] == 200
    assert text_of((await client.answer())[2])
    assert hall.long_ways == 1


async def test_both_ways_answer_alike(hall: Hall) -> None:
    short, long = await hall.client(), await hall.client()
    bodies: tuple[Any, ...] = (HELLO, {"messages": []}, {"model": "nobody", **HELLO}, b"{", b"\xff")
    for body in bodies:
        short.send(request(body, X_Request_Id="a"))
        long.send(request(body, X_Request_Id="a", Idempotency_Key=f"{hash(str(body))}"))
        (status, headers, content), (other_status, other_headers, other_content) = (
            await short.answer(),
            await long.answer(),
        )
        assert status == other_status
        assert headers.keys() - {"openai-processing-ms"} == other_headers.keys() - {"openai-processing-ms"}
        if status != 200:
            assert content == other_content
    assert hall.long_ways == 1


@pytest.mark.parametrize("hall", [{"head_deadline_seconds": 0.2}], indirect=True)
@pytest.mark.parametrize("begun", [b"P", b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127", b"GET / HTT"])
async def test_row_51_a_head_that_never_ends_has_a_deadline(hall: Hall, begun: bytes) -> None:
    client = await hall.client()
    client.send(begun)
    status, _, body = await client.answer()
    assert status == 408
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert await client.is_closed()


@pytest.mark.parametrize("hall", [{"head_deadline_seconds": 0.2}], indirect=True)
async def test_row_51_a_head_that_trickles_gets_no_more_time(hall: Hall) -> None:
    client = await hall.client()

    async def trickle() -> None:
        for byte in request()[:-20] * 100:
            client.send(bytes([byte]))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(trickle())
    assert (await client.answer())[0] == 408
    task.cancel()


@pytest.mark.parametrize("hall", [{"body_deadline_seconds": 0.2}], indirect=True)
async def test_row_51_a_body_that_never_ends_has_a_deadline(hall: Hall) -> None:
    client = await hall.client()
    client.send(request()[:-3])
    status, _, body = await client.answer()
    assert status == 408
    assert json.loads(body)["error"]["param"] == "body"
    assert await client.is_closed()


@pytest.mark.parametrize("hall", [{"head_deadline_seconds": 0.2, "body_deadline_seconds": 0.2}], indirect=True)
async def test_row_51_twin_a_connection_that_waits_between_requests_is_kept(hall: Hall) -> None:
    client = await hall.client()
    for _ in range(2):
        client.send(request())
        assert (await client.answer())[0] == 200
        await asyncio.sleep(0.5)
    assert hall.door.outcomes("one") == {"ok": 2}


async def test_a_client_that_wants_to_close_is_closed(hall: Hall) -> None:
    client = await hall.client()
    client.send(request(Connection="close"))
    _, headers, _ = await client.answer()
    assert headers["connection"] == "close"
    assert await client.is_closed()


async def test_a_client_that_ends_its_side_has_left(hall: Hall) -> None:
    client = await hall.client()
    client.send(request())
    client.writer.write_eof()
    assert await client.is_closed()
    async with asyncio.timeout(GENEROUS_SECONDS):
        await hall.door.house.supervisor.gateway.wait_idle(GENEROUS_SECONDS)
    assert "ok" not in hall.door.outcomes("one")


async def test_a_large_body_in_pieces_is_whole(hall: Hall) -> None:
    client = await hall.client()
    data = request({"messages": [{"role": "user", "content": "x" * 3_000_000}]})
    for start in range(0, len(data), 100_000):
        client.send(data[start : start + 100_000])
        await client.writer.drain()
    status, _, _ = await client.answer()
    assert status == 200
    assert hall.long_ways == 0


async def test_a_stop_ends_connections_that_wait(hall: Hall) -> None:
    client = await hall.client()
    client.send(request())
    await client.answer()
    await hall.door.web.stop()
    assert await client.is_closed()


async def test_an_engine_that_is_not_ready_is_told_with_its_state(hall: Hall) -> None:
    await hall.door.house["one"].stop()
    await hall.door.house.reach("one", State.INITIAL)
    client = await hall.client()
    client.send(request())
    status, headers, body = await client.answer()
    assert status == 503
    assert headers["x-should-retry"] == "false"
    assert json.loads(body)["error"]["code"] == "initial"


HEAD = f"POST {CHAT} HTTP/1.1\r\nContent-Type: {JSON}\r\n"
MANY = "X: y\r\n" * 3_000
SMUGGLED = "GET /admin/instances HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        f"{HEAD}Host: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
        f"{HEAD}Host: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{SMUGGLED}",
        f"{HEAD}Host: 127.0.0.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}{SMUGGLED}",
        f"{HEAD}Host: 127.0.0.1\r\nContent-Length: 2, 2\r\n\r\n{{}}{SMUGGLED}",
        f"{HEAD}Host: 127.0.0.1\r\nContent-Length: +2\r\n\r\n{{}}{SMUGGLED}",
        f"{HEAD}Host: 127.0.0.1\nContent-Length: 2\n\n{{}}",
        f"{HEAD}Host: 127.0.0.1\r\nContent-Length : 2\r\n\r\n{{}}{SMUGGLED}",
        f"{HEAD}Host: 127.0.0.1\r\nX: {'x' * 20_000}\r\nContent-Length: 2\r\n\r\n{{}}",
        f"{HEAD}Host: 127.0.0.1\r\n{MANY}Content-Length: 2\r\n\r\n{{}}",
        f"{HEAD}Host: 127.0.0.1\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\n{{}}",
    ],
    ids=[
        "cl+te", "te+cl", "two lengths", "a list", "a sign", "bare LF", "a space", "a long header", "many headers", "a control character",
    ],
)  # fmt: skip
async def test_row_50_framing_that_can_be_read_in_two_ways_is_refused_and_ends_the_connection(
    hall: Hall, data: str
) -> None:
    client = await hall.client()
    client.send(data.encode())
    status, headers, body = await client.answer()
    assert status == 400, body
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert (headers["server"], headers["x-content-type-options"]) == ("llamavisor", "nosniff")
    assert await client.is_closed()


async def test_row_50_a_flood_of_them_leaves_one_line_in_the_log(hall: Hall, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        client = await hall.client()
        client.send(f"{HEAD}Host: 127.0.0.1\nAuthorization: Bearer lv-secret\n\n{{}}".encode())
        assert (await client.answer())[0] == 400
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == [
        "Requests that are not valid HTTP are refused: 1 so far."
    ]
    assert "lv-secret" not in caplog.text


async def test_row_50_a_body_that_cannot_be_read_is_not_logged(hall: Hall, caplog: pytest.LogCaptureFixture) -> None:
    client = await hall.client()
    client.send(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n")
    assert (await client.answer())[0] == 404
    client.send(b"lv-secret")
    async with asyncio.timeout(GENEROUS_SECONDS):
        assert b"lv-secret" not in await client.reader.read()
    assert "lv-secret" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


async def test_row_50_two_hosts_are_refused(hall: Hall) -> None:
    client = await hall.client()
    client.send(request(Host="127.0.0.1\r\nHost: other"))
    assert (await client.answer())[0] == 400
