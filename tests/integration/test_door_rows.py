"""Fault rows 41-49 and 55 at the door, against an engine that misbehaves: what the client is told, and what is counted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT
from supervisor.process.states import State
from tests.fixtures.door import HELLO, STREAM, Cut, Door, events
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until

pytestmark = pytest.mark.faults
LATER = {"retry_base_seconds": 30}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_with(
    door: Door, *, supervision: dict[str, Any] | None = None, server: dict[str, Any] | None = None, **knobs: Any
) -> None:
    """Open the door to one engine with those knobs."""
    await door.open(
        {"one": misbehaving(door.house.model, knobs=knobs, supervision=supervision or LATER)}, **(server or {})
    )


# 41: the client leaves


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "knobs",
    [{"prefill_seconds": 30.0, "prefill_burns": False}, {"token_interval_seconds": 0.05, "token_count": 100_000}],
    ids=["prefilling", "decoding"],
)
async def test_row_41_a_client_that_leaves_frees_its_slot(
    door: Door, body: dict[str, Any], knobs: dict[str, Any]
) -> None:
    await open_with(door, **knobs)
    request = asyncio.create_task(door.ask(body) if body is HELLO else door.stream(body))
    await door.until_engine("one", "/_control", lambda seen: seen["processing"] == 1, "the request to be worked on")
    request.cancel()
    await door.until_engine(
        "one", "/_control", lambda seen: seen["aborted"] == 1 and not seen["processing"], "a free slot"
    )
    await until(lambda: door.outcomes("one") == {"client_gone": 1}, "the outcome to be counted")
    assert door.house["one"].requests_active == door.house.supervisor.gateway.active == 0


async def test_row_41_twin_a_client_that_stays_gets_everything(door: Door) -> None:
    await open_with(door, prefill_seconds=0.3, token_interval_seconds=0.05)
    received = await door.stream(STREAM)
    assert events(received)[-1] == "[DONE]"
    assert door.outcomes("one") == {"ok": 1}


# 13, twin: all threads of the engine are busy with our streams


async def test_row_13_twin_an_engine_that_streams_but_answers_no_probe_is_alive(door: Door) -> None:
    """Bytes that pass the door are proof of life; without them the same silence is the end."""
    figures = {"liveness_interval_seconds": 0.05, "probe_deadline_seconds": 0.2, "liveness_misses": 2}
    await open_with(door, supervision={**LATER, **figures}, token_interval_seconds=0.05, token_count=40)
    stream = asyncio.create_task(door.stream(STREAM), name="stream")
    await door.until_engine("one", "/_control", lambda seen: seen["processing"] == 1, "the stream")
    await door.at_engine("one", "/_control", {"health": "hang"})
    assert events(await stream)[-1] == "[DONE]"
    crashed = await door.house.reach("one", State.CRASHED)
    assert crashed.cause is not None
    assert crashed.cause.reason == "unresponsive"
    assert door.outcomes("one") == {"ok": 1}


# 42: the client does not read


def request_bytes(door: Door, body: dict[str, Any]) -> bytes:
    """A request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{door.web.port}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def test_row_42_who_never_reads_is_cut_and_the_engine_waits_meanwhile(door: Door) -> None:
    await open_with(door, server={"slow_reader_seconds": 0.5}, token_count=1_000_000)
    with socket.create_connection(("127.0.0.1", door.web.port)) as client:
        client.sendall(request_bytes(door, STREAM))
        await until(lambda: door.outcomes("one") == {"client_gone": 1}, "the client to be cut")
    seen = await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")
    assert seen["tokens"] < 200_000


async def test_row_42_twin_who_reads_slowly_gets_everything(door: Door) -> None:
    await open_with(door, server={"slow_reader_seconds": 5}, token_count=3_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.web.port, limit=2**12)
    writer.write(request_bytes(door, STREAM))
    received = bytearray()
    while b"[DONE]" not in received:
        chunk = await reader.read(2**14)
        assert chunk
        received += chunk
        await asyncio.sleep(0.001)
    writer.close()
    await until(lambda: door.outcomes("one") == {"ok": 1}, "the outcome")
    assert received.count(b"data: ") == 3_002


# 43: the engine dies before the first byte


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
async def test_row_43_an_engine_killed_before_its_answer_is_a_502_that_says_so(
    door: Door, body: dict[str, Any]
) -> None:
    await open_with(door, stream_fault="kill", fault_after=0)
    status, answer, headers = await door.ask(body)
    assert status == 502
    assert answer["error"]["code"] == "engine_died"
    assert answer["error"]["message"].startswith("Before it answered, the engine of one was killed by signal 9")
    assert answer["error"]["details"]["signal"] == 9
    assert int(headers["Retry-After"]) > 1
    assert door.outcomes("one") == {"engine_died": 1}


@pytest.mark.parametrize("fault", ["close", "reset"])
@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
async def test_row_43_a_request_is_never_sent_twice(door: Door, fault: str, body: dict[str, Any]) -> None:
    await open_with(door, stream_fault=fault, fault_after=0)
    status, answer, _ = await door.ask(body)
    assert status == 502
    assert answer["error"]["message"] == "Before it answered, the engine of one closed the connection."
    assert (await door.at_engine("one", "/_control"))["requests"] == 1


async def test_row_43_twin_connections_that_the_engine_closed_between_requests_lose_none(door: Door) -> None:
    await open_with(door, close_after_stream=True)
    for body in (HELLO, STREAM, STREAM, HELLO, STREAM, HELLO):
        async with door.post(body) as response:
            assert response.status == 200
            await response.read()
    assert door.outcomes("one") == {"ok": 6}


# 44: the engine dies in the middle of a stream


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("kill", "In the middle of its answer, the engine of one was killed by signal 9."),
        ("die", "In the middle of its answer, the engine of one exited with code 1."),
        ("close", "In the middle of its answer, the engine of one closed the connection."),
        ("reset", "In the middle of its answer, the engine of one closed the connection."),
    ],
)
async def test_row_44_an_engine_that_dies_mid_stream_is_told_in_band_and_ends_uncleanly(
    door: Door, fault: str, told: str
) -> None:
    await open_with(door, stream_fault=fault, token_interval_seconds=0.02)
    with pytest.raises(Cut) as cut:
        await door.stream(STREAM)
    *before, error = events(cut.value.body)
    assert error["error"]["message"] == told
    assert error["error"]["code"] == "engine_died"
    assert set(error["error"]) >= {"message", "type", "param", "code"}
    assert "[DONE]" not in before
    assert door.outcomes("one") == {"engine_died": 1}


async def test_row_44_an_engine_killed_from_outside_mid_stream(door: Door) -> None:
    await open_with(door, token_interval_seconds=0.1, token_count=1_000)
    request = asyncio.create_task(door.stream(STREAM))
    await door.until_engine("one", "/_control", lambda seen: seen["tokens"] > 2, "some tokens")
    pid = door.house["one"].snapshot().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Cut) as cut:
        await request
    assert "signal 9" in events(cut.value.body)[-1]["error"]["message"]


async def test_row_44_an_engine_killed_amid_a_stream_that_only_its_connection_ends(door: Door) -> None:
    await open_with(door, stream_fault="kill", delimited_by_close=True, token_interval_seconds=0.02)
    with pytest.raises(Cut) as cut:
        await door.stream(STREAM)
    error = events(cut.value.body)[-1]["error"]
    assert (error["code"], error["message"]) == (
        "engine_died", "In the middle of its answer, the engine of one was killed by signal 9.",
    )  # fmt: skip
    assert door.outcomes("one") == {"engine_died": 1}


async def test_row_44_twin_a_stream_that_its_connection_ends_well_is_whole(door: Door) -> None:
    await open_with(door, delimited_by_close=True)
    assert events(await door.stream(STREAM))[-1] == "[DONE]"
    assert door.outcomes("one") == {"ok": 1}


# 45, 46: the stream itself is not right


async def test_row_45_an_error_event_is_forwarded_and_counted_as_a_failure(door: Door) -> None:
    await open_with(door, stream_fault="error_event")
    with pytest.raises(Cut) as cut:
        await door.stream(STREAM)
    assert events(cut.value.body)[-1]["error"] == {
        "code": 500,
        "message": "the decoder failed on purpose",
        "type": "server_error",
    }
    assert door.outcomes("one") == {"engine_error": 1}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("no_done", "it ended without [DONE]"),
        ("two_done", "it went on after [DONE]"),
        ("bad_json", "it sent an event that is no JSON object"),
    ],
)
async def test_row_46_a_malformed_stream_is_never_a_success(door: Door, fault: str, told: str) -> None:
    await open_with(door, stream_fault=fault)
    with pytest.raises(Cut) as cut:
        await door.stream(STREAM)
    error = events(cut.value.body)[-1]["error"]
    assert error["code"] == "incomplete_answer"
    assert told in error["message"]
    assert door.outcomes("one") == {"cut": 1}


@pytest.mark.parametrize("fault", ["split_utf8", "crlf"])
async def test_row_46_twin_odd_but_right_streams_pass_byte_for_byte(door: Door, fault: str) -> None:
    await open_with(door, stream_fault=fault)
    received = await door.stream(STREAM)
    assert received.endswith(b"data: [DONE]\r\n\r\n" if fault == "crlf" else b"data: [DONE]\n\n")
    assert ("é☃".encode() in received) is (fault == "split_utf8")
    assert door.outcomes("one") == {"ok": 1}


# 47: the engine says nothing any more


async def test_row_47_a_stream_that_falls_silent_ends_with_a_word(door: Door) -> None:
    await open_with(door, stream_fault="stall", server={"upstream_idle_seconds": 0.4})
    with pytest.raises(Cut) as cut:
        await door.stream(STREAM)
    error = events(cut.value.body)[-1]["error"]
    assert error["code"] == "engine_deadline"
    assert error["message"] == "In the middle of its answer, the engine of one was silent for 0.4 s."
    assert door.outcomes("one") == {"timeout": 1}
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")


async def test_row_47_silence_before_the_answer_is_a_504(door: Door) -> None:
    await open_with(door, stream_fault="stall", fault_after=0, server={"upstream_idle_seconds": 0.4})
    status, answer, _ = await door.ask(STREAM)
    assert status == 504
    assert answer["error"]["code"] == "engine_deadline"


async def test_row_47_twin_a_slow_engine_whose_tokens_advance_is_waited_for(door: Door) -> None:
    await open_with(door, token_count=12, token_interval_seconds=0.15, server={"upstream_idle_seconds": 0.5})
    status, answer, _ = await door.ask(HELLO)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 12


# 48, 49: the request itself is not right


async def test_row_48_an_oversize_body_is_refused_before_it_is_read(door: Door) -> None:
    await open_with(door, server={"max_body_bytes": 10_000})
    status, answer, _ = await door.ask({"messages": [{"role": "user", "content": "x" * 20_000}]})
    assert (status, answer["error"]["code"]) == (413, "payload_too_large")
    reader, writer = await asyncio.open_connection("127.0.0.1", door.web.port)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n{{"
    writer.write(head.encode())
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_row_48_an_endless_chunked_body_is_refused_early(door: Door) -> None:
    await open_with(door, server={"max_body_bytes": 10_000})
    reader, writer = await asyncio.open_connection("127.0.0.1", door.web.port)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    answer = asyncio.create_task(reader.readline())
    sent = 0
    while not answer.done() and sent < 10_000:
        writer.write(b"400\r\n" + b" " * 0x400 + b"\r\n")
        sent += 1
        await asyncio.sleep(0.001)
    assert b" 413 " in await answer
    writer.close()
    assert (await door.at_engine("one", "/_control"))["requests"] == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"messages": "\xff"}', "not UTF-8"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"temperature": Infinity}', "Infinity"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deep"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
        (b'{"seed": ' + b"9" * 100_000 + b"}", "not acceptable"),
        (b'{"messages": [{"role": "robot"}]}', "messages[0].role"),
        (b'{"temperature": 3, "messages": []}', "temperature"),
    ],
)
async def test_row_49_a_bad_body_is_a_400_that_says_what_is_wrong(door: Door, body: bytes, said: str) -> None:
    await open_with(door)
    async with door.session.post(
        f"{door.url}{CHAT}", data=body, headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"]
    assert (await door.at_engine("one", "/_control"))["requests"] == 0


# 55: the instance is on its way down or up


async def refused(door: Door, body: dict[str, Any] = HELLO) -> tuple[str, Mapping[str, str]]:
    """The code of a 503, and its headers."""
    status, answer, headers = await door.ask(body)
    assert status == 503, answer
    assert answer["error"]["param"] == "model"
    return answer["error"]["code"], headers


async def test_row_55_a_request_during_a_stop_is_told_when_to_come_back(door: Door) -> None:
    await open_with(door, ignore_term=True)
    await door.house["one"].stop()
    code, headers = await refused(door)
    assert code == "stopping"
    assert headers["Retry-After"] == "2"
    await door.house.reach("one", State.INITIAL)
    code, headers = await refused(door, STREAM)
    assert code == "initial"
    assert "Retry-After" not in headers
    assert headers["x-should-retry"] == "false"


async def test_row_55_a_request_during_a_start_and_after_a_crash(door: Door) -> None:
    slow = misbehaving(door.house.model, knobs={"load_seconds": 30.0}, supervision=LATER)
    await door.open({"one": slow}, ready=False)
    await until(lambda: door.house["one"].snapshot().pid is not None, "a process")
    code, headers = await refused(door)
    assert code == "starting"
    assert headers["x-should-retry"] == "true"
    os.kill(door.house["one"].pids()[0], signal.SIGKILL)
    await door.house.reach("one", State.CRASHED)
    code, headers = await refused(door)
    assert code == "signal"
    assert 25 <= int(headers["Retry-After"]) <= 31
    assert door.outcomes("one") == {"refused": 2}


async def test_row_55_a_stream_that_a_stop_cuts_is_told(door: Door) -> None:
    await open_with(door, token_interval_seconds=0.1, token_count=1_000)
    request = asyncio.create_task(door.stream(STREAM))
    await door.until_engine("one", "/_control", lambda seen: seen["tokens"] > 2, "some tokens")
    await door.house["one"].stop()
    with pytest.raises(Cut) as cut:
        await request
    assert (
        events(cut.value.body)[-1]["error"]["message"] == "In the middle of its answer, the engine of one was stopped."
    )
