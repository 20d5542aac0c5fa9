"""The door before the real engine: pass-through, names, headers, freed slots, counts, shutdown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT, COMPLETIONS, EMBEDDINGS
from supervisor.process.states import State
from tests.fixtures.door import HELLO, STREAM, Door, events
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.slow_model import write_slow_llama

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
GREEDY = {"temperature": 0, "seed": 1, "max_tokens": 24, "cache_prompt": False}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def raw(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> bytes:
    """What a server answers, byte for byte."""
    async with session.post(url, json=body) as response:
        return await response.read()


async def test_a_stream_is_what_the_engine_sends(door: Door) -> None:
    await door.open({"demo": DEMO})
    received = await door.stream({**STREAM, **GREEDY})
    address = door.house["demo"].address
    assert address is not None
    connector = aiohttp.UnixConnector(str(address.socket_path))
    async with aiohttp.ClientSession(connector=connector) as session:
        direct = await raw(session, "http://localhost/v1/chat/completions", {**STREAM, **GREEDY})
    assert [told["choices"] for told in events(received)[:-1]] == [told["choices"] for told in events(direct)[:-1]]
    assert received.endswith(b"\n\ndata: [DONE]\n\n")
    assert received.count(b"\n") == direct.count(b"\n")


async def test_whole_answers_names_and_headers(door: Door) -> None:
    await door.open({"demo": DEMO, "other": {**DEMO, "autostart": False}}, ready=False)
    await door.house.reach("demo", State.READY)
    for name in ("demo", None, ""):
        status, answer, headers = await door.ask({**HELLO, **GREEDY, "model": name})
        assert status == 200
        assert answer["choices"][0]["message"]["content"]
        assert int(headers["openai-processing-ms"]) >= 0
        assert headers["x-request-id"].startswith("req_")
    status, answer, _ = await door.ask({"prompt": "The capital", **GREEDY}, COMPLETIONS)
    assert status == 200
    assert answer["object"] == "text_completion"
    status, answer, _ = await door.ask({**HELLO, "model": "demi"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "Did you mean `demo`?" in answer["error"]["message"]
    status, answer, _ = await door.ask({**HELLO, "model": "other"})
    assert (status, answer["error"]["code"]) == (503, "initial")


async def test_the_engines_own_refusal_has_openais_shape(door: Door) -> None:
    await door.open({"demo": DEMO})
    status, answer, _ = await door.ask({"input": "a"}, EMBEDDINGS)
    assert status == 501
    assert answer["error"].keys() >= {"message", "type", "param", "code"}
    assert answer["error"]["code"] == "surface_not_supported"
    assert "Start it with" in answer["error"]["message"]
    status, answer, _ = await door.ask({"prompt": "word " * 5_000}, COMPLETIONS)
    assert status == 400
    assert answer["error"]["code"] == "exceed_context_size_error"
    assert door.outcomes("demo") == {"refused": 2}


async def test_models_are_listed_by_every_name_that_works(door: Door) -> None:
    mute = {"engine": {"kind": "command", "argv": ["true", "${PORT}"], "openai": False}, "autostart": False}
    await door.open({"main": DEMO, "mute": mute}, ready=False)
    await door.house.reach("main", State.READY)
    async with door.session.get(f"{door.url}/v1/models") as response:
        listed = (await response.json())["data"]
    assert [model["id"] for model in listed] == ["main", "demo"]
    assert all(model.keys() == {"id", "object", "created", "owned_by"} for model in listed)
    for model in listed:
        async with door.session.get(f"{door.url}/v1/models/{model['id']}") as response:
            assert await response.json() == model
        assert (await door.ask({**HELLO, **GREEDY, "model": model["id"]}))[0] == 200
    async with door.session.get(f"{door.url}/v1/models/a/b") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"
    status, answer, _ = await door.ask({**HELLO, "model": "mute"})
    assert (status, answer["error"]["code"]) == (400, "engine_without_openai")


@pytest.mark.parametrize("way", [{}, {"X-Llamavisor-Progress": "1"}], ids=["short way", "long way"])
@pytest.mark.parametrize("chat_status", [200, 500])
async def test_who_names_no_request_is_told_its_number_in_the_books(
    door: Door, way: dict[str, str], chat_status: int
) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"chat_status": chat_status})})
    for given, named in (({}, None), ({"X-Request-Id": "mine"}, "mine"), ({"X-Request-Id": "not a word"}, None)):
        async with door.session.post(f"{door.url}{CHAT}", json=HELLO, headers={**way, **given}) as response:
            assert response.status == chat_status
            told, number = response.headers["X-Request-Id"], response.headers["x-llamavisor-request-id"]
        assert told == (named or number)
        async with door.session.get(f"{door.url}/v1/requests/{told}") as response:
            receipt = await response.json()
        assert (receipt["id"], receipt["client_request_id"]) == (number, named)
        seen = (await door.at_engine("one", "/_control"))["last_request"]
        assert seen["headers"]["x-request-id"] == told


async def test_an_error_leads_to_its_receipt(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"stream_fault": "close", "fault_after": 0})})
    status, _, headers = await door.ask(HELLO)
    assert status == 502
    async with door.session.get(f"{door.url}/v1/requests/{headers['X-Request-Id']}") as response:
        receipt = await response.json()
    assert (receipt["id"], receipt["outcome"]) == (headers["X-Request-Id"], "engine_died")


async def test_the_engine_sees_neither_key_nor_cookies_nor_a_changed_body(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model)}, api_key="the-key")
    body = b'{ "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}], "top_k": 4E1, "model": "one" }'
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Authorization": "Bearer the-key",
        "Cookie": "a=b",
        "X-Forwarded-For": "10.0.0.1",
        "X-Request-Id": "my-own-id",
        "Accept": "application/json",
    }
    async with door.session.post(f"{door.url}/v1/chat/completions", data=body, headers=headers) as response:
        assert response.status == 200
        assert response.headers["X-Request-Id"] == "my-own-id"
    seen = (await door.at_engine("one", "/_control"))["last_request"]
    assert seen["raw"].encode() == body
    allowed = {"host", "content-type", "content-length", "accept", "accept-encoding", "x-request-id"}
    assert set(seen["headers"]) <= allowed
    assert seen["headers"]["x-request-id"] == "my-own-id"
    assert (await door.ask(HELLO))[0] == 401


async def test_an_engine_that_wants_a_key_gets_its_own(door: Door) -> None:
    own = misbehaving(door.house.model, knobs={"api_key": "engines-own"})
    own["env"]["LLAMA_API_KEY"] = "engines-own"
    await door.open({"one": own})
    assert (await door.ask(HELLO))[0] == 200
    await door.at_engine("one", "/_control", {"api_key": "changed"})
    status, answer, _ = await door.ask(HELLO)
    assert (status, answer["error"]["code"]) == (502, "engine_refused")


async def test_an_engine_that_insists_on_its_models_name_gets_it(door: Door) -> None:
    vllm = misbehaving(door.house.model)
    vllm["engine"] = {"kind": "command", "argv": [vllm["engine"]["binary"], "--port", "${PORT}"]}
    vllm["model"] = "qwen3"
    await door.open({"mine": vllm})
    assert (await door.ask({**HELLO, "model": "mine", "top_k": 7}))[0] == 200
    async with aiohttp.ClientSession() as session, session.get(f"{door.house['mine'].address}/_control") as response:
        seen = (await response.json())["last_request"]
    assert seen["body"] == {**HELLO, "model": "qwen3", "top_k": 7}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_that_leaves_is_noticed_while_llama_cpp_decodes(
    door: Door, tmp_path: Path, stream: bool
) -> None:
    model = write_slow_llama(tmp_path / "slow.gguf")
    engine = {"kind": "embedded", "parallel": 1, "ctx_size": 512, "threads": 1}
    await door.open({"slow": {"engine": engine, "model": str(model)}})
    body = {"prompt": "a", "max_tokens": 500, "stream": stream, "ignore_eos": True}
    request = asyncio.create_task(door.stream(body, COMPLETIONS) if stream else door.ask(body, COMPLETIONS))
    await door.until_engine("slow", "/slots", lambda slots: slots[0]["is_processing"], "the slot to be taken")
    request.cancel()
    await until(lambda: door.outcomes("slow") == {"client_gone": 1}, "the outcome")
    assert door.house["slow"].requests_active == 0
    if stream:
        # Whole answers are worked on to their end by this engine, whoever listens: it looks at a connection only when it writes.
        await door.until_engine("slow", "/slots", lambda slots: not slots[0]["is_processing"], "the slot to be free")


async def test_traffic_is_counted_from_what_the_engine_says(door: Door) -> None:
    await door.open({"demo": DEMO})
    _, answer, _ = await door.ask({**HELLO, **GREEDY})
    received = await door.stream({**STREAM, **GREEDY, "stream_options": {"include_usage": True}})
    usage = next(told["usage"] for told in reversed(events(received)[:-1]) if told.get("usage"))
    figures = door.house.supervisor.gateway.traffic.figures(["demo"])
    assert figures.tokens_total == answer["usage"]["completion_tokens"] + usage["completion_tokens"]
    assert figures.requests_total == figures.by_outcome["ok"] == 2
    assert figures.tokens_per_second == figures.tokens_total / 10
    assert figures.average_response_ms > 0
    assert figures.active == 0


async def test_the_newest_byte_of_an_answer_is_told_to_the_supervisor(door: Door) -> None:
    await door.open({"demo": DEMO})
    before = door.house.supervisor.clock.monotonic()
    await door.stream({**STREAM, **GREEDY})
    assert door.house["demo"].traffic.last_byte_at > before


async def test_a_new_generation_is_reached_at_once_and_keeps_nothing_of_the_old(door: Door) -> None:
    await door.open({"demo": DEMO})
    for _ in range(2):
        assert (await door.ask({**HELLO, **GREEDY}))[0] == 200
        await door.house["demo"].restart()
        await door.house["demo"].wait_for({State.STARTING}, 20)
        await door.house.reach("demo", State.READY)
    assert (await door.ask({**HELLO, **GREEDY}))[0] == 200
    assert door.outcomes("demo") == {"ok": 3}


async def test_draining_lets_streams_finish_and_takes_no_more(door: Door) -> None:
    slow = misbehaving(door.house.model, knobs={"token_interval_seconds": 0.05, "token_count": 20})
    await door.open({"one": slow})
    running = asyncio.create_task(door.stream(STREAM))
    gateway = door.house.supervisor.gateway
    await until(lambda: gateway.active == 1, "the stream to begin")
    assert not await gateway.wait_idle(0)
    door.house.supervisor.request_shutdown()
    status, answer, headers = await door.ask(HELLO)
    assert (status, answer["error"]["code"]) == (503, "shutting_down")
    assert "Retry-After" in headers
    assert await gateway.wait_idle(20)
    assert events(await running)[-1] == "[DONE]"
    await gateway.close()
    door.house.supervisor._state.draining = False
    status, answer, _ = await door.ask(HELLO)
    assert (status, answer["error"]["code"]) == (503, "shutting_down")


async def test_many_at_once_all_get_their_own_answer(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"parallel": 8})}, gateway={"queue_seconds": 60.0})
    bodies = [{**(STREAM if number % 2 else HELLO), "user": str(number)} for number in range(60)]
    answers = await asyncio.gather(*(door.stream(body) if body.get("stream") else door.ask(body) for body in bodies))
    assert len(answers) == len(bodies)
    assert door.outcomes("one") == {"ok": 60}
    assert json.dumps(door.outcomes("one"))
