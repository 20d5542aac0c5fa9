"""Chat over the WebSocket: true tokens of the real engine, several chats a connection, and what ends one (row 52)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any, cast

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSCloseCode, WSMsgType

from supervisor.config.accounting_settings import AccountingSettings
from tests.fixtures.door import HELLO, Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import GENEROUS_SECONDS, until
from web.chat_socket import MESSAGE_BYTES, WAITING_CHATS
from web.live.limits import LiveLimits

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
CHAT = {"type": "chat", "model": "demo", **HELLO, "project_id": "default", "temperature": 0, "max_tokens": 8}
LONG = {"type": "chat", "model": "one", **HELLO}
KEY = "the-key"
ENDLESS = {"token_interval_seconds": 0.02, "token_count": 100_000}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


def connect(door: Door, **headers: str) -> Any:
    """A connection of a usual client."""
    return door.session.ws_connect(f"{door.url}/v1/stream", headers=headers)


async def hear(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = await socket.receive_json(timeout=GENEROUS_SECONDS)
    return message


async def chat(socket: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """One chat to its end: the pieces of text, and the last message."""
    await socket.send_json(message)
    pieces = []
    while (told := await hear(socket))["type"] == "token":
        pieces.append(told["content"])
    return pieces, told


async def ended(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """Wait until the server has closed the connection: its code."""
    async with asyncio.timeout(GENEROUS_SECONDS):
        while (await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
            pass
    return socket.close_code


async def test_chats_one_after_the_other_token_by_token(door: Door) -> None:
    await door.open({"demo": DEMO})
    _, whole, _ = await door.ask({**HELLO, "temperature": 0, "max_tokens": 8})
    usage = whole["usage"]
    async with connect(door) as socket:
        pieces, told = await chat(socket, CHAT)
        assert len(pieces) > 1
        assert "".join(pieces) == whole["choices"][0]["message"]["content"]
        assert told == {
            "type": "done",
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
            },
            "cost": None,
            "model": "demo",
        }
        for model in ("auto", "opus", None):
            assert (await chat(socket, {**CHAT, "model": model}))[1]["type"] == "done"
        for number in range(3):
            await socket.send_json({**CHAT, "id": number})
        order = [
            told["id"] for told in [await hear(socket) for _ in range(3 * (len(pieces) + 1))] if told["type"] == "done"
        ]
        assert order == [0, 1, 2]
    assert door.outcomes("demo") == {"ok": 8}


async def test_a_price_that_changes_meanwhile_is_not_this_chats(door: Door) -> None:
    prices = {"one": {"input": "1000", "output": "2000"}}
    engine = misbehaving(door.house.model, knobs={"token_interval_seconds": 0.02})
    await door.open({"one": engine}, sections={"accounting": {"prices": prices}})
    async with connect(door) as socket:
        await socket.send_json(LONG)
        assert (await hear(socket))["type"] == "token"
        door.house.supervisor.office.bookkeeper.retune(AccountingSettings())
        while (told := await hear(socket))["type"] == "token":
            pass
    usage = told["usage"]
    assert told["cost"] == (usage["input_tokens"] + 2 * usage["output_tokens"]) / 1_000


async def test_what_is_wrong_with_a_chat_does_not_end_the_connection(door: Door) -> None:
    await door.open({"demo": DEMO})
    async with connect(door) as socket:
        for message, code, words in (
            ("{", "invalid_request", "not JSON"),
            ("[]", "invalid_request", "JSON object"),
            ('{"type": "ping"}', "invalid_request", "`type`"),
            (json.dumps({**CHAT, "model": "none"}), "model_not_found", "none"),
            (json.dumps({**CHAT, "messages": []}), "invalid_request", "`messages`"),
            (json.dumps({**CHAT, "n": 2}), "invalid_request", "`n`"),
            (json.dumps({**CHAT, "project_id": 7}), "invalid_request", "`project_id`"),
            (json.dumps({**CHAT, "messages": [{"role": "user", "content": "word " * 5_000}]}), None, "context"),
        ):
            await socket.send_str(message)
            told = await hear(socket)
            assert told["type"] == "error"
            assert words in told["error"]
            assert code is None or told["code"] == code
        assert (await chat(socket, {**CHAT, "id": "last"}))[1]["id"] == "last"


async def test_who_has_no_key_does_not_come_in(door: Door) -> None:
    await door.open({"demo": DEMO}, api_key=KEY)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await connect(door, **headers)
        assert refusal.value.status == 401
    for headers in ({"Authorization": f"Bearer {KEY}", "Origin": "http://evil.example"},):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await connect(door, **headers)
        assert refusal.value.status == 403
    async with connect(door, Authorization=f"Bearer {KEY}") as socket:
        assert (await chat(socket, CHAT))[1]["type"] == "done"
    async with door.session.get(f"{door.url}/v1/stream", headers={"Authorization": f"Bearer {KEY}"}) as response:
        assert response.status == 400


async def test_who_leaves_cancels_its_chat_and_those_that_wait(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs=ENDLESS)})
    async with connect(door) as socket:
        for _ in range(3):
            await socket.send_json(LONG)
        assert (await hear(socket))["type"] == "token"
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")
    await until(lambda: door.outcomes("one") == {"client_gone": 1}, "the outcome")
    assert door.house["one"].requests_active == 0


async def test_an_engine_that_fails_amid_a_chat(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"stream_fault": "error_event"})})
    message = {**CHAT, "model": "one"}
    async with connect(door) as socket:
        pieces, told = await chat(socket, message)
        assert pieces
        assert (told["type"], told["code"]) == ("error", "engine_error")
        await door.at_engine("one", "/_control", {"stream_fault": "no_done"})
        assert (await chat(socket, message))[1]["code"] == "incomplete_answer"
        await door.at_engine("one", "/_control", {"stream_fault": "", "chat_status": 400})
        assert (await chat(socket, message))[1]["type"] == "error"
        await door.at_engine("one", "/_control", {"chat_status": 200})
        assert (await chat(socket, message))[1]["type"] == "done"


@pytest.mark.faults
async def test_row_52_floods_and_binary_end_the_connection(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs=ENDLESS)}, limits=LiveLimits(message_burst=20))
    async with connect(door) as socket:
        await socket.send_bytes(b"\x00\x01")
        assert await ended(socket) == WSCloseCode.UNSUPPORTED_DATA
    for flood in ("chat", "ping"):
        async with connect(door) as socket:
            for _ in range(200):
                await (socket.send_str("{}") if flood == "chat" else socket.ping())
            assert await ended(socket) == WSCloseCode.POLICY_VIOLATION
    async with connect(door) as socket:
        await socket.send_str(" " * (MESSAGE_BYTES + 1))
        assert await ended(socket) == WSCloseCode.MESSAGE_TOO_BIG
    assert door.outcomes("one") == {}


@pytest.mark.faults
async def test_row_52_chats_and_connections_are_bounded(door: Door) -> None:
    limits = LiveLimits(message_burst=100, connections_from_loopback=2)
    await door.open({"one": misbehaving(door.house.model, knobs=ENDLESS)}, limits=limits)
    async with connect(door) as socket, connect(door):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await connect(door)
        assert refusal.value.status == 429
        await socket.send_json({**LONG, "id": "first"})
        assert (await hear(socket))["type"] == "token"
        for number in range(WAITING_CHATS + 1):
            await socket.send_json({**LONG, "id": number})
        while (told := await hear(socket))["type"] == "token":
            pass
        assert (told["code"], told["id"]) == ("too_many_requests", WAITING_CHATS)
    async with connect(door) as socket:
        await socket.ping(b"x")
        await socket.send_str("{}")
        assert (await hear(socket))["type"] == "error"


async def test_a_client_that_does_not_read_is_cut_off(door: Door) -> None:
    knobs = {"token_count": 50_000}
    await door.open({"one": misbehaving(door.house.model, knobs=knobs)}, limits=LiveLimits(unread_seconds=0.2))
    async with connect(door) as socket:
        transport = socket._conn.transport if socket._conn is not None else None
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 4_096)
        cast(asyncio.ReadTransport, transport).pause_reading()
        await socket.send_json(LONG)
        await until(lambda: door.outcomes("one") == {"client_gone": 1}, "the chat to be cut off")
        await until(lambda: door.house["one"].requests_active == 0, "the engine to be left")
        # To it, too, the connection is gone; it only does not look.
        cast(asyncio.ReadTransport, transport).resume_reading()


async def test_the_end_of_the_server_ends_the_connection(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs=ENDLESS)})
    async with connect(door) as socket, connect(door) as idle:
        await socket.send_json(LONG)
        assert (await hear(socket))["type"] == "token"
        door.house.supervisor.request_shutdown()
        await idle.send_json(LONG)
        assert (await hear(idle))["code"] == "shutting_down"
        codes = await asyncio.gather(ended(socket), ended(idle), door.web.stop())
        assert set(codes[:2]) == {WSCloseCode.GOING_AWAY}
    assert door.outcomes("one") == {"client_gone": 1}
