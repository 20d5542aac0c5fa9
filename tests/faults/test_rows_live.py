"""Fault rows 29, 38-40 and 52, as far as dashboards go: clients that lag, never read, flood, or are no clients at all."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.process.states import State
from tests.fixtures.nursery import GENEROUS_SECONDS, until
from tests.fixtures.webhouse import KEY, EventReader, RawWebSocket, WebHouse
from web.live.limits import LiveLimits

pytestmark = pytest.mark.faults

# More than the kernel keeps for one connection.
FLOOD_EVENTS = 3_000
PAD = "x" * 4_096
QUEUE_BYTES_MAX = 64 * 1024
A_DAY_SECONDS = 86_400


@pytest_asyncio.fixture
async def web_house(tmp_path: Path) -> AsyncIterator[WebHouse]:
    """A supervisor with its web server; the oracle runs after the test."""
    house = WebHouse(tmp_path)
    yield house
    await house.oracle()
    await house.close()


async def joined(house: WebHouse, *, receive_buffer_bytes: int = 4_096) -> RawWebSocket:
    """A client that has joined, and reads only when told; its kernel keeps little for it."""
    client = house.raw()
    await client.open(receive_buffer_bytes=receive_buffer_bytes)
    await client.join()
    return client


async def publish(house: WebHouse, count: int) -> None:
    """So many changes of the instance, each with its number."""
    wire = house["one"].snapshot().to_wire()
    for number in range(count):
        house.supervisor.events.publish("llama_status", {**wire, "number": number, "pad": PAD}, instance="one")
        await asyncio.sleep(0)


def event_of(frame: bytes) -> dict[str, Any]:
    """The data of a `llamaStatus`."""
    _, message = json.loads(frame[2:])
    data: dict[str, Any] = message["data"]
    return data


async def test_row_38_who_lags_gets_the_newest_and_not_all_of_it(web_house: WebHouse) -> None:
    await web_house.serve()
    slow = await joined(web_house)
    await publish(web_house, FLOOD_EVENTS)
    seen: list[int] = []
    while not seen or seen[-1] != FLOOD_EVENTS - 1:
        frame = await asyncio.wait_for(slow.receive(), GENEROUS_SECONDS)
        if frame.startswith(b"42"):
            seen.append(event_of(frame)["number"])
    assert len(seen) < FLOOD_EVENTS / 2
    assert seen == sorted(seen)


async def test_row_39_a_dashboard_that_never_reads_is_dropped(web_house: WebHouse) -> None:
    await web_house.serve(limits=LiveLimits(unread_seconds=0.3))
    await joined(web_house)
    reader = await web_house.dashboard()
    largest = 0
    (wire,) = (client.wire for client in web_house.live.fanout.clients() if client.sid != reader.client.get_sid())
    assert wire is not None
    for _ in range(FLOOD_EVENTS // 100):
        await publish(web_house, 100)
        largest = max(largest, wire.unsent_bytes)
    await until(lambda: web_house.live.fanout.dropped_total == 1, "the sleeper to be dropped")
    await until(lambda: len(web_house.live.fanout) == 1, "the sleeper to be forgotten")
    assert largest <= QUEUE_BYTES_MAX
    await until(lambda: reader.named("llamaStatus")[-1]["data"].get("number") == 99, "the other to hear the last")


async def test_row_39_twin_who_reads_slowly_stays(web_house: WebHouse) -> None:
    await web_house.serve(limits=LiveLimits(unread_seconds=1))
    slow = await joined(web_house, receive_buffer_bytes=65_536)
    publishing = asyncio.create_task(publish(web_house, 1_000_000))
    numbers = []
    ends_at = time.monotonic() + 3
    while time.monotonic() < ends_at:
        frame = await asyncio.wait_for(slow.receive(), GENEROUS_SECONDS)
        numbers.append(event_of(frame)["number"])
        await asyncio.sleep(0.01)
    publishing.cancel()
    assert numbers[-1] > 10 * len(numbers), "it did not even lag"
    assert web_house.live.fanout.dropped_total == 0
    assert len(web_house.live.fanout) == 1


async def test_row_39_an_event_stream_that_is_never_read_is_cut(web_house: WebHouse) -> None:
    await web_house.serve(server={"slow_reader_seconds": 0.3})
    reader, writer = await asyncio.open_connection("127.0.0.1", web_house.web.port, limit=1_024)
    writer.write(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{web_house.web.port}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    before = web_house.supervisor.events.subscriber_count
    # Events of keys of their own, since newer ones of one key replace those that wait.
    deadline = time.monotonic() + GENEROUS_SECONDS
    while web_house.supervisor.events.subscriber_count == before:
        assert time.monotonic() < deadline, "the reader that sleeps was kept"
        for number in range(20):
            web_house.supervisor.events.publish("llama_status_test", {"pad": PAD}, instance=f"none-{number}")
        await asyncio.sleep(0.01)
    writer.close()


async def test_row_40_a_reconnect_brings_what_was_missed(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.events() as stream:
        first = await stream.next()
        last = (await stream.next())["id"]
    assert first["event"] == "snapshot"
    await web_house.supervisor.fleet.start("one")
    await web_house.reach("one", State.READY)
    async with web_house.events(**{"Last-Event-ID": last}) as stream:
        statuses = await statuses_until(stream, "ready")
    assert statuses[0] == "starting"


async def statuses_until(stream: EventReader, last: str) -> list[str]:
    """The statuses told, up to one."""
    statuses: list[str] = []
    while not statuses or statuses[-1] != last:
        statuses.append((await stream.next())["data"]["data"]["status"])
    return statuses


@pytest.mark.parametrize(
    ("payload", "opcode"),
    [
        (b"\x00\x01binary", 2),
        (b"hello", 1),
        (b"9", 1),
        (b"40" + b"x" * 70_000, 1),
        (b"", 1),
    ],
    ids=["binary", "text", "unknown packet", "too large", "empty"],
)
async def test_row_52_who_speaks_something_else_before_joining_is_disconnected(
    web_house: WebHouse, payload: bytes, opcode: int
) -> None:
    await web_house.serve(server={"api_key": KEY})
    client = web_house.raw()
    await client.open()
    client.send(payload, opcode=opcode)
    await client.ended()
    await until(lambda: web_house.live.connections == 0, "the session to be forgotten")


async def test_row_52_who_does_not_join_in_time_is_disconnected(web_house: WebHouse) -> None:
    await web_house.serve(server={"api_key": KEY}, limits=LiveLimits(auth_deadline_seconds=0.2))
    silent, refused, polling = web_house.raw(), web_house.raw(), "/socket.io/?EIO=4&transport=polling"
    await silent.open()
    await refused.open()
    refused.send(b'40{"token":"wrong"}')
    async with web_house.http.get(polling) as answer:
        assert answer.status == 200
    await silent.ended()
    await refused.ended()
    await until(lambda: web_house.live.connections == 0, "the sessions to be forgotten")


async def test_row_52_a_flood_ends_the_connection(web_house: WebHouse) -> None:
    await web_house.serve(limits=LiveLimits(messages_per_second=1, message_burst=20))
    client = web_house.raw()
    await client.open()
    await client.join()
    for _ in range(100):
        client.send(b'42["requestModels"]')
    await client.ended()
    await until(lambda: len(web_house.live.fanout) == 0, "the client to be forgotten")


async def test_row_52_a_flood_of_polls_is_refused(web_house: WebHouse) -> None:
    await web_house.serve(limits=LiveLimits(messages_per_second=0.001, message_burst=5))
    path = "/socket.io/?EIO=4&transport=polling"
    async with web_house.http.get(path) as answer:
        sid = json.loads((await answer.text())[1:])["sid"]
    statuses = []
    for _ in range(8):
        async with web_house.http.post(f"{path}&sid={sid}", data="3", headers={"Content-Type": "text/plain"}) as answer:
            statuses.append(answer.status)
    assert statuses == [200] * 5 + [429] * 3


async def test_row_52_questions_whose_answers_are_not_read_end_the_connection(web_house: WebHouse) -> None:
    limits = LiveLimits(messages_per_second=1e6, message_burst=1e6, queued_messages=8)
    await web_house.serve(limits=limits)
    client = await joined(web_house, receive_buffer_bytes=65_536)
    deadline = time.monotonic() + GENEROUS_SECONDS
    while len(web_house.live.fanout) and time.monotonic() < deadline:
        for _ in range(50):
            client.send(b'420["requestLlamaStatus"]')
        await asyncio.sleep(0.01)
    assert len(web_house.live.fanout) == 0


async def test_row_52_one_address_may_hold_only_so_many_connections(web_house: WebHouse) -> None:
    await web_house.serve(limits=LiveLimits(connections_from_loopback=3))
    clients = [web_house.raw() for _ in range(4)]
    for client in clients:
        await client.open()
    assert [client.answer.split()[1] for client in clients] == ["101", "101", "101", "429"]
    await clients[0].close()
    await until(lambda: web_house.live.connections == 2, "the place to be free again")
    late = web_house.raw()
    await late.open()
    assert late.answer.split()[1] == "101"


async def test_row_52_deflate_is_not_accepted(web_house: WebHouse) -> None:
    await web_house.serve()
    client = web_house.raw()
    await client.open()
    assert "permessage-deflate" not in client.answer


async def test_row_29_a_jump_of_the_wall_clock_disconnects_nobody(
    web_house: WebHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await web_house.serve()
    engine = web_house.live.engine
    engine.ping_interval, engine.ping_timeout = 0.1, 5
    dashboard = await web_house.dashboard()
    await dashboard.hear("llamaStatus")
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + A_DAY_SECONDS)
    (socket,) = engine.sockets.values()
    for _ in range(3):
        # A ping that was sent before a jump is the one that the jump would make look old.
        await until(lambda: socket.last_ping, "a ping")
        assert await socket.check_ping_timeout()
        await until(lambda: not socket.last_ping, "its pong")
    await publish(web_house, 1)
    await dashboard.hear("llamaStatus", 2)
    assert dashboard.client.connected


async def test_a_client_that_answers_no_ping_is_disconnected(web_house: WebHouse) -> None:
    await web_house.serve()
    web_house.live.engine.ping_interval, web_house.live.engine.ping_timeout = 0.05, 0.2
    client = web_house.raw()
    await client.open()
    await client.join()
    await client.ended()
    await until(lambda: web_house.live.connections == 0, "the session to be forgotten")
