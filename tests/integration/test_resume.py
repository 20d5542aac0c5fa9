"""Streams that are joined again, through the front door: on the real engine, and on one that is slow on purpose."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.fixtures.door import HELLO, IMPATIENT, STREAM, Cut, Door, events
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
GREEDY = {"temperature": 0, "seed": 1, "max_tokens": 24, "cache_prompt": False}
ENDLESS = {"token_interval_seconds": 0.01, "token_count": 100_000}
RESUME = {"X-Llamavisor-Resume": "30"}
STREAM_ID = "x-llamavisor-stream-id"
ADMIN = "admin-key-of-the-server"
PIECES = (1, 7, 100, 1_000)
SEED = 20_261_121


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_slow(door: Door, *, gateway: Mapping[str, Any] | None = None, in_flight: int = 4, **more: Any) -> None:
    """Open the door to an engine whose streams never end."""
    one = misbehaving(door.house.model, knobs=ENDLESS, max_in_flight=in_flight)
    await door.open({"one": one}, gateway={**IMPATIENT, **(gateway or {})}, **more)


def post(door: Door, body: object = STREAM, path: str = CHAT, **headers: str) -> aiohttp.client._RequestContextManager:
    """A stream that is to be joined again."""
    return door.session.post(f"{door.url}{path}", json=body, headers={**RESUME, **headers})


def join(
    door: Door, stream_id: str, seen: object = None, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> aiohttp.client._RequestContextManager:
    """The same stream again, behind event `seen`."""
    given = {} if seen is None else {"Last-Event-ID": str(seen)}
    return door.session.request(method, f"{door.url}/v1/streams/{stream_id}", headers={**given, **(headers or {})})


async def rest(door: Door, response: aiohttp.ClientResponse) -> bytes:
    """What is still to come, to the good end."""
    assert response.status == 200, await response.text()
    received = bytearray()
    await door.rest(response, received)
    return bytes(received)


async def first_events(response: aiohttp.ClientResponse, number: int = 1) -> bytes:
    """So many events."""
    received = b""
    while received.count(b"\n\n") < number:
        received += await response.content.readuntil(b"\n\n")
    return received


def last_number(received: bytes) -> tuple[bytes, int]:
    """The whole events of what came, and the number of the last one, as a browser reads them."""
    dispatched = received[: received.rfind(b"\n\n") + 2] if b"\n\n" in received else b""
    numbers = re.findall(rb"^id: (\d+)$", dispatched, re.MULTILINE)
    return dispatched, int(numbers[-1]) if numbers else 0


def plain(received: bytes) -> bytes:
    """The stream as the engine sent it."""
    return re.sub(rb"\nid: \d+(?=\n\n)", b"", received)


async def refusal(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and code."""
    return response.status, (await response.json())["error"]["code"]


async def settled(door: Door) -> Any:
    """The one record in the books, once it is settled."""
    while True:
        async with door.session.get(f"{door.url}/admin/requests") as response:
            (record,) = (await response.json())["requests"]
        if record["outcome"] is not None:
            return record
        await asyncio.sleep(0.02)


async def cut_and_joined(door: Door, path: str, body: Mapping[str, Any], dice: random.Random) -> tuple[str, bytes]:
    """A stream that is cut at random places and joined again until its end; its id, and all that was dispatched."""
    dispatched, seen, stream_id, ended = b"", 0, "", False
    while not ended:
        received = b""
        async with join(door, stream_id, seen or None) if stream_id else post(door, body, path) as response:
            assert response.status == 200, await response.text()
            stream_id = response.headers[STREAM_ID]
            for _ in range(dice.randrange(1, 6)):
                piece = await response.content.read(dice.choice(PIECES))
                received += piece
                if not piece:
                    ended = True
                    break
        events_received, number = last_number(received)
        dispatched, seen = dispatched + events_received, number or seen
    return stream_id, dispatched


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (CHAT, HELLO),
        (COMPLETIONS, {"prompt": "The capital of France is"}),
        (RESPONSES, {"input": "hello"}),
        (MESSAGES, HELLO),
    ],
    ids=["chat", "completions", "responses", "messages"],
)
async def test_cut_at_random_and_joined_again_it_is_the_uncut_stream(
    door: Door, path: str, asked: Mapping[str, Any]
) -> None:
    await door.open({"demo": DEMO})
    dice = random.Random(SEED)
    for _ in range(3):
        stream_id, dispatched = await cut_and_joined(door, path, {**asked, **GREEDY, "stream": True}, dice)
        async with join(door, stream_id) as response:
            assert await rest(door, response) == dispatched
    uncut = await door.stream({**asked, **GREEDY, "stream": True}, path)
    assert text_of(plain(dispatched)) == text_of(uncut) != ""
    assert plain(dispatched).count(b"\n\n") == uncut.count(b"\n\n")
    assert b"\nid: " not in uncut
    assert door.outcomes("demo") == {"ok": 4}


def text_of(stream: bytes) -> str:
    """What the model said, in the words of any surface."""
    return "".join(re.findall(r'"(?:content|text|delta)":("[^"]*")', stream.decode()))


async def test_it_goes_on_without_its_client_and_is_one_request_in_the_books(door: Door) -> None:
    await door.open({"demo": DEMO}, sections={"storage": {"write_seconds": 0.01}})
    async with post(door, {**STREAM, **GREEDY}) as response:
        stream_id = response.headers[STREAM_ID]
        async with join(door, stream_id, method="HEAD") as head:
            assert (head.status, head.content_type) == (200, "text/event-stream")
        receipt = response.headers["x-llamavisor-request-id"]
    await until(lambda: door.outcomes("demo") == {"ok": 1}, "the answer to be complete")
    async with join(door, stream_id) as response:
        assert response.headers["x-llamavisor-request-id"] == receipt
        assert plain(await rest(door, response)).endswith(b"\n\ndata: [DONE]\n\n")
    record = await settled(door)
    assert (record["outcome"], record["usage"]["source"]) == ("ok", "engine")


async def test_openais_own_client_reads_it(door: Door) -> None:
    await door.open({"demo": DEMO})
    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", default_headers=RESUME) as client:
        pieces = [
            piece.choices[0].delta.content or ""
            async for piece in await client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=24, stream=True
            )
        ]
    assert "".join(pieces)
    assert len(door.house.supervisor.resumable) == 1


async def test_two_read_it_at_once(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"token_interval_seconds": 0.02, "token_count": 60})})
    async with post(door) as first:
        begun = await first_events(first, 5)
        async with join(door, first.headers[STREAM_ID], seen=2) as second:
            one, two = await asyncio.gather(rest(door, first), rest(door, second))
    assert begun + one == begun[: begun.index(b"id: 2\n\n") + 7] + two
    assert events(plain(begun + one))[-1] == "[DONE]"
    assert (await door.at_engine("one", "/_control"))["requests"] == 1


async def test_its_time_without_a_reader_is_limited(door: Door) -> None:
    await open_slow(door, gateway={"resume_seconds": 0.2})
    async with post(door) as response:
        stream_id = response.headers[STREAM_ID]
        await first_events(response)
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")
    async with join(door, stream_id) as response:
        assert await refusal(response) == (404, "stream_not_found")
    await until(lambda: door.outcomes("one") == {"client_gone": 1}, "the outcome to be counted")
    assert door.house.supervisor.gateway.active == len(door.house.supervisor.resumable) == 0
    async with post(door, {**STREAM, "max_tokens": 3}) as response:
        assert events(plain(await rest(door, response)))[-1] == "[DONE]"
        assert len(door.house.supervisor.resumable) == 1
    await until(lambda: len(door.house.supervisor.resumable) == 0, "what is complete to be forgotten")


async def test_it_is_stopped(door: Door) -> None:
    await open_slow(door, sections={"storage": {"write_seconds": 0.01}})
    async with post(door) as response:
        await first_events(response)
        async with join(door, response.headers[STREAM_ID], method="DELETE") as stopped:
            assert stopped.status == 204
        with pytest.raises(Cut) as caught:
            await rest(door, response)
    assert events(plain(caught.value.body))[-1]["error"]["code"] == "stream_stopped"
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")
    for method in ("GET", "DELETE"):
        async with join(door, response.headers[STREAM_ID], method=method) as again:
            assert await refusal(again) == (404, "stream_not_found")
    record = await settled(door)
    assert (record["outcome"], record["error_code"]) == ("cancelled", "stream_stopped")
    assert record["usage"]["completion_tokens"] >= 1


async def new_key(door: Door) -> dict[str, str]:
    """The header of a key that may call models."""
    mine = {"Authorization": f"Bearer {ADMIN}"}
    async with door.session.post(f"{door.url}/admin/keys", json={"scopes": ["inference"]}, headers=mine) as response:
        return {"Authorization": f"Bearer {(await response.json())['key']}"}


async def test_one_key_has_at_most_half_of_what_is_kept(door: Door) -> None:
    await open_slow(door, api_key=ADMIN, gateway={"resume_streams": 2})
    one, other = await new_key(door), await new_key(door)
    async with post(door, **one) as first:
        async with post(door, **one) as second:
            assert [STREAM_ID in response.headers for response in (first, second)] == [True, False]
        await door.until_engine("one", "/_control", lambda seen: seen["processing"] == 1, "the second to have ended")
        async with post(door, **other) as third:
            assert STREAM_ID in third.headers


async def test_another_key_sees_nothing_of_it(door: Door) -> None:
    await open_slow(door, api_key=ADMIN)
    mine, theirs = {"Authorization": f"Bearer {ADMIN}"}, await new_key(door)
    async with post(door, **theirs) as stream:
        for method in ("GET", "DELETE"):
            async with join(door, stream.headers[STREAM_ID], method=method, headers=mine) as response:
                assert await refusal(response) == (404, "stream_not_found")
            async with join(door, stream.headers[STREAM_ID], method=method) as response:
                assert await refusal(response) == (401, "invalid_api_key")
        async with join(door, stream.headers[STREAM_ID], method="DELETE", headers=theirs) as response:
            assert response.status == 204


async def test_what_is_not_kept_any_more_is_said(door: Door) -> None:
    await open_slow(door, gateway={"resume_bytes": 1_024})
    async with post(door) as response:
        stream_id = response.headers[STREAM_ID]
        await first_events(response, 20)
    async with join(door, stream_id) as response:
        assert response.status == 410
        error = (await response.json())["error"]
    assert (error["code"], error["param"]) == ("events_gone", "Last-Event-ID")
    async with join(door, stream_id, seen=error["details"]["last"]) as response:
        assert response.status in {200, 410}
    for unseen in (10**9, "x"):
        async with join(door, stream_id, unseen) as response:
            assert await refusal(response) == (400, "invalid_request")


async def test_who_does_not_read_holds_the_engine_up_and_is_cut(door: Door) -> None:
    knobs = {"token_count": 1_000_000}
    await door.open(
        {"one": misbehaving(door.house.model, knobs=knobs)},
        slow_reader_seconds=0.5,
        gateway={**IMPATIENT, "resume_seconds": 1},
    )
    async with post(door) as response:
        stream_id = response.headers[STREAM_ID]
        with socket.create_connection(("127.0.0.1", door.web.port)) as lazy:
            lazy.sendall(f"GET /v1/streams/{stream_id} HTTP/1.1\r\nHost: 127.0.0.1:{door.web.port}\r\n\r\n".encode())
            (stream,) = door.house.supervisor.resumable._streams.values()
            await until(lambda: stream.readers == 2, "both to read")
            response.close()
            await until(lambda: not stream.readers, "who does not read to be cut")
    assert stream.ring.last < 200_000
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")


async def test_a_reader_who_is_slow_but_reads_loses_nothing(door: Door) -> None:
    """The ring is far smaller than the answer: the engine waits."""
    knobs = {"token_count": 2_000}
    await door.open({"one": misbehaving(door.house.model, knobs=knobs)}, gateway={**IMPATIENT, "resume_bytes": 1_024})
    async with post(door) as response:
        received = await rest(door, response)
    assert events(plain(received))[-1] == "[DONE]"
    numbers = [int(number) for number in re.findall(rb"^id: (\d+)$", received, re.MULTILINE)]
    assert numbers == list(range(1, numbers[-1] + 1))
    assert numbers[-1] > 2_000


@pytest.mark.parametrize(
    ("fault", "code"), [("no_done", "incomplete_answer"), ("error_event", 500)], ids=["unfinished", "engine's own"]
)
async def test_an_answer_that_fails_fails_for_whoever_reads_it(door: Door, fault: str, code: object) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"stream_fault": fault, "fault_after": 3})})
    async with post(door) as response:
        stream_id = response.headers[STREAM_ID]
        with pytest.raises(Cut) as caught:
            await rest(door, response)
    async with join(door, stream_id) as response:
        with pytest.raises(Cut) as again:
            await rest(door, response)
    assert again.value.body == caught.value.body
    assert events(plain(caught.value.body))[-1]["error"]["code"] == code


async def test_a_refusal_has_its_status_and_leaves_nothing_behind(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"chat_status": 500})})
    for body, status in ((STREAM, 500), ({**STREAM, "model": "nobody"}, 404)):
        async with post(door, body) as response:
            assert response.status == status
    for headers in ({"X-Llamavisor-Resume": "soon"}, {"Idempotency-Key": "a"}):
        async with post(door, **headers) as response:
            assert await refusal(response) == (400, "invalid_request")
    async with post(door, HELLO) as response:
        assert STREAM_ID not in response.headers
    assert len(door.house.supervisor.resumable) == 0


async def test_who_leaves_before_the_id_is_told_leaves_nothing_behind(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"prefill_seconds": 60, "prefill_burns": False})})
    request = asyncio.create_task(door.session.post(f"{door.url}{CHAT}", json=STREAM, headers=RESUME)._coro)
    await door.until_engine("one", "/_control", lambda seen: seen["processing"] == 1, "the request to be worked on")
    request.cancel()
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")
    await until(lambda: len(door.house.supervisor.resumable) == 0, "it to be forgotten")


@pytest.mark.parametrize("settings", [{"resume_seconds": 0}, {"resume_streams": 1}], ids=["off", "full"])
async def test_where_it_cannot_be_kept_it_ends_with_its_client(door: Door, settings: Mapping[str, Any]) -> None:
    await open_slow(door, gateway=settings)
    async with post(door) as first, post(door) as second:
        assert (STREAM_ID in first.headers) == ("resume_streams" in settings)
        assert STREAM_ID not in second.headers
        assert b"id: " not in await first_events(second, 3)
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] >= 1, "the second to end")


async def test_those_that_have_ended_make_room(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model)}, gateway={**IMPATIENT, "resume_streams": 1})
    names = []
    for _ in range(2):
        async with post(door) as response:
            names.append(response.headers[STREAM_ID])
            await rest(door, response)
    async with join(door, names[0]) as response:
        assert response.status == 404
    async with join(door, names[1]) as response:
        assert events(plain(await rest(door, response)))[-1] == "[DONE]"


async def test_one_that_waits_is_joined_again_and_told_so(door: Door) -> None:
    await open_slow(door, in_flight=1, gateway={"queue_seconds": 60, "comment_seconds": 0.05})
    progress = {"X-Llamavisor-Progress": "1"}
    async with post(door) as busy:
        await first_events(busy)
        async with post(door, **progress) as waiting:
            stream_id = waiting.headers[STREAM_ID]
            assert (await first_events(waiting)).startswith(b"event: llamavisor.waiting")
        async with join(door, stream_id, headers=progress) as again:
            assert (await first_events(again)).startswith(b"event: llamavisor.waiting")
            async with join(door, busy.headers[STREAM_ID], method="DELETE"):
                pass
            received = b""
            while b"id: 1\n\n" not in received:
                received = await first_events(again)


async def test_the_shutdown_ends_it_as_every_stream(door: Door) -> None:
    await open_slow(door)
    async with post(door) as response:
        await first_events(response)
        async with post(door) as gone:
            await first_events(gone)
        await door.house.supervisor.gateway.close()
        with pytest.raises(Cut) as caught:
            await rest(door, response)
    assert events(plain(caught.value.body))[-1]["error"]["code"] == "shutting_down"
