"""The other surfaces before the real engine: rerank, responses, Anthropic's messages, and what an engine does not have."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RERANK, RESPONSES
from tests.fixtures.door import HELLO, Cut, Door
from tests.fixtures.gguf_files import write_tiny_reranker
from tests.fixtures.house import misbehaving
from tests.fixtures.slow_model import write_slow_llama

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
ASKED = {**HELLO, "temperature": 0, "max_tokens": 8}
KEY = "the-key"


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


def typed(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream that names them."""
    found = []
    for event in stream.decode().strip().split("\n\n"):
        name, data = event.split("\n", 1)
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ANTHROPICS_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
NOT_UNDERSTOOD: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, "image input is not supported"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "audio input is not supported"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "Failed to parse messages"),
    (CHAT, {"tools": [{"type": "other"}]}, "Failed to parse tools"),
    (MESSAGES, {"messages": [{"role": "user", "content": [ANTHROPICS_IMAGE]}]}, "image input is not supported"),
]


async def test_what_the_engine_does_not_understand_is_the_clients_fault(door: Door) -> None:
    await door.open({"demo": DEMO})
    for path, fields, said in NOT_UNDERSTOOD:
        for stream in (False, True):
            status, answer, _ = await door.ask({**ASKED, **fields, "stream": stream}, path)
            assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
            assert said in answer["error"]["message"]
    assert door.outcomes("demo") == {"refused": 2 * len(NOT_UNDERSTOOD)}


async def test_anthropics_messages_whole_streamed_and_counted(door: Door) -> None:
    await door.open({"demo": DEMO})
    status, answer, _ = await door.ask(ASKED, MESSAGES)
    assert (status, answer["type"], answer["stop_reason"]) == (200, "message", "max_tokens")
    assert answer["usage"]["output_tokens"] == 8
    events = typed(await door.stream({**ASKED, "stream": True}, MESSAGES))
    assert [name for name, _ in events[:2]] == ["message_start", "content_block_start"]
    assert events[-1] == ("message_stop", {"type": "message_stop"})
    text = "".join(told["delta"].get("text", "") for name, told in events if name == "content_block_delta")
    assert text == answer["content"][0]["text"]
    assert door.outcomes("demo") == {"ok": 2}
    status, counted, _ = await door.ask(HELLO, COUNT_TOKENS)
    assert status == 200
    # The prompt of the answer, cached or not, is what was counted.
    usage = answer["usage"]
    assert counted == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


async def test_anthropics_clients_are_told_of_errors_in_their_words_and_may_show_their_key(door: Door) -> None:
    await door.open({"demo": DEMO}, api_key=KEY)
    status, answer, _ = await door.ask(ASKED, MESSAGES)
    assert (status, answer["error"]["type"]) == (401, "authentication_error")
    door.session.headers["X-Api-Key"] = KEY
    for body, expected, kind, code in (
        ({**ASKED, "model": "claude"}, 404, "not_found_error", "model_not_found"),
        ({"max_tokens": 8}, 400, "invalid_request_error", "invalid_request"),
        ({"messages": [{"role": "robot", "content": ""}]}, 400, "invalid_request_error", "invalid_request"),
        ({"messages": [{"role": "user", "content": "word " * 5_000}]}, 400, "invalid_request_error", None),
    ):
        status, answer, _ = await door.ask(body, MESSAGES)
        assert (status, answer["type"], answer["error"]["type"]) == (expected, "error", kind)
        assert answer["error"]["message"]
        assert code is None or answer["error"]["code"] == code
    assert (await door.ask(ASKED, MESSAGES))[0] == 200


async def test_responses_through_openais_own_client(door: Door) -> None:
    await door.open({"demo": DEMO})
    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0) as client:
        whole = await client.responses.create(model="demo", input="Hello", temperature=0, max_output_tokens=8)
        assert (whole.status, whole.usage.output_tokens if whole.usage else None) == ("completed", 8)
        stream = await client.responses.create(
            model="demo", input="Hello", temperature=0, max_output_tokens=8, stream=True
        )
        events = [event async for event in stream]
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events[-1].type == "response.completed"
        with pytest.raises(openai.NotFoundError, match="no model named"):
            await client.responses.create(model="none", input="Hello")
        with pytest.raises(openai.BadRequestError, match="max_output_tokens"):
            await client.responses.create(model="demo", input="Hello", max_output_tokens=0)
    assert door.outcomes("demo") == {"ok": 2}


async def test_documents_are_ranked_by_a_reranker_and_by_nobody_else(door: Door, tmp_path: Path) -> None:
    engine = {"kind": "embedded", "embedding": True, "pooling": "rank", "parallel": 1, "ctx_size": 512}
    model = write_tiny_reranker(tmp_path / "rank.gguf")
    await door.open({"demo": DEMO, "rank": {"engine": engine, "model": str(model)}})
    asked = {"query": "cats", "documents": ["cats and dogs", "stones", "a"], "model": "rank"}
    status, answer, _ = await door.ask(asked, RERANK)
    assert status == 200
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["usage"]["prompt_tokens"] > 0
    for path, body in ((RERANK, {**asked, "model": "demo"}), (EMBEDDINGS, {"input": "a", "model": "demo"})):
        status, answer, headers = await door.ask(body, path)
        assert (status, answer["error"]["code"]) == (501, "surface_not_supported")
        assert "embedded" in answer["error"]["message"]
        assert headers["x-should-retry"] == "false"


async def test_an_engine_that_has_no_such_route_says_which_have(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model)})
    for path in (RESPONSES, MESSAGES, RERANK):
        status, answer, _ = await door.ask({**HELLO, "input": "a", "query": "a"}, path)
        assert status == 501
        assert "`llama-server`" in answer["error"]["message"]
        assert answer["error"]["code"] == "surface_not_supported"
    assert door.outcomes("one") == {"refused": 3}


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_an_engine_that_dies_amid_its_answer_is_told_of_in_the_words_of_the_route(
    door: Door, tmp_path: Path, path: str
) -> None:
    model = write_slow_llama(tmp_path / "slow.gguf")
    engine = {"kind": "embedded", "parallel": 1, "ctx_size": 512, "threads": 1}
    await door.open({"slow": {"engine": engine, "model": str(model)}})
    body = {**HELLO, "input": "a", "stream": True, "ignore_eos": True, "temperature": 0, "max_tokens": 400}
    received = bytearray()
    async with door.post(body, path) as response:
        received += await response.content.readany()
        pid = door.house["slow"].snapshot().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Cut) as cut:
            await door.rest(response, received)
    last = cut.value.body.decode().strip().split("\n\n")[-1]
    told = json.loads(last.partition("data: ")[2])
    assert told["error"]["code"] == "engine_died"
    assert last.startswith("data: " if path == CHAT else "event: error\n")
    assert "message_stop" not in cut.value.body.decode()
    assert door.outcomes("slow") == {"engine_died": 1}
