"""The stock `openai` package against the door: sync and async, streaming and not, and its exceptions for what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from supervisor.engines.embedded import SERVER_FILE
from supervisor.process.states import State
from tests.fixtures.door import Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.stock_clients import write_tool_model

T = TypeVar("T")
USER: Any = [{"role": "user", "content": "What is the capital of France?"}]
DEMO = {"engine": "embedded", "model": "demo"}
KEY = "sk-of-the-house"
CITY = {"type": "string", "enum": ["Paris", "Rome"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": CITY}, "required": ["city"]},
    },
}


class Weather(BaseModel):
    """What the answer must be."""

    city: Literal["Paris", "Rome"]
    sunny: bool


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


@pytest_asyncio.fixture
async def client(door: Door) -> AsyncIterator[Callable[..., openai.AsyncOpenAI]]:
    """Makes clients of the open door that do not try again."""
    clients: list[openai.AsyncOpenAI] = []

    def make(**options: Any) -> openai.AsyncOpenAI:
        values = {"base_url": f"{door.url}/v1", "api_key": KEY, "max_retries": 0, **options}
        clients.append(openai.AsyncOpenAI(**values))
        return clients[-1]

    yield make
    for each in clients:
        await each.close()


async def collect(api: openai.AsyncOpenAI, model: str, pieces: list[str | None]) -> None:
    """Stream a chat into `pieces`."""
    async for chunk in await api.chat.completions.create(model=model, messages=USER, stream=True):
        # One by one, so that what came before a failure is there after it.
        pieces += [chunk.choices[0].delta.content]


async def in_thread(door: Door, work: Callable[[openai.OpenAI], T]) -> T:
    """Work with the synchronous client, beside the loop that serves it."""

    def run() -> T:
        with openai.OpenAI(base_url=f"{door.url}/v1", api_key=KEY, max_retries=0) as client:
            return work(client)

    return await asyncio.to_thread(run)


async def test_async_chat_whole_and_streamed(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"demo": DEMO})
    api = client()
    whole = await api.chat.completions.create(model="demo", messages=USER, temperature=0, seed=1)
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    text, usage = "", None
    stream = await api.chat.completions.create(
        model="demo", messages=USER, temperature=0, seed=1, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


async def test_sync_chat_whole_and_streamed(door: Door) -> None:
    await door.open({"demo": DEMO})

    def work(api: openai.OpenAI) -> tuple[str | None, str]:
        whole = api.chat.completions.create(model="demo", messages=USER, temperature=0, seed=1)
        stream = api.chat.completions.create(model="demo", messages=USER, temperature=0, seed=1, stream=True)
        return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    whole, streamed = await in_thread(door, work)
    assert whole
    assert whole == streamed


async def test_completions_and_models(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"main": DEMO})
    api = client()
    models = [model async for model in api.models.list()]
    assert [model.id for model in models] == ["main", "demo"]
    assert (await api.models.retrieve("demo")).object == "model"
    whole = await api.completions.create(model="main", prompt="The capital of", max_tokens=5, temperature=0)
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= 5
    stream = await api.completions.create(
        model="main", prompt="The capital of", max_tokens=5, temperature=0, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


async def test_a_tool_call_and_its_result(
    door: Door, client: Callable[..., openai.AsyncOpenAI], tmp_path: Path
) -> None:
    # Never shown a tool: the grammar holds the model to the form, and the bias makes it begin.
    brace = write_tool_model(tmp_path / "tools.gguf")
    await door.open({"demo": {"engine": "embedded", "model": str(tmp_path / "tools.gguf")}})
    forced: Any = {"tool_choice": "required", "parallel_tool_calls": False, "logit_bias": {str(brace): 100}}
    asked: Any = {"model": "demo", "messages": USER, "tools": [TOOL], "temperature": 0, "max_tokens": 1_000, **forced}
    api = client()
    whole = (await api.chat.completions.create(**asked)).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.tool_calls is not None
    call: Any = whole.message.tool_calls[0]
    assert (call.function.name, set(json.loads(call.function.arguments))) == ("get_weather", {"city"})
    async with api.chat.completions.stream(**asked) as stream:
        streamed = (await stream.get_final_completion()).choices[0].message.tool_calls
    assert streamed is not None
    assert streamed[0].function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    conversation: Any = [*USER, whole.message, result]
    last = await api.chat.completions.create(model="demo", messages=conversation, max_tokens=8)
    assert last.choices[0].message.content


async def test_json_schema_and_logprobs(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"demo": DEMO})
    api = client()
    parsed = await api.chat.completions.parse(
        model="demo", messages=USER, response_format=Weather, temperature=0, max_tokens=1_000
    )
    assert isinstance(parsed.choices[0].message.parsed, Weather)
    answer = await api.chat.completions.create(
        model="demo", messages=USER, logprobs=True, top_logprobs=2, max_tokens=3, temperature=0
    )
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content
    assert tokens is not None
    assert [len(token.top_logprobs) for token in tokens] == [2, 2, 2]
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content


async def test_who_cancels_or_loses_patience_is_let_go(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    endless = misbehaving(door.house.model, knobs={"token_count": 1_000_000, "token_interval_seconds": 0.01})
    mute = misbehaving(door.house.model, knobs={"prefill_seconds": 3600, "prefill_burns": False})
    await door.open({"endless": endless, "mute": mute})
    stream = await client().chat.completions.create(model="endless", messages=USER, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await until(lambda: door.house["endless"].requests_active == 0, "the stream to be let go")
    asking = asyncio.ensure_future(client().chat.completions.create(model="endless", messages=USER))
    await until(lambda: door.house["endless"].requests_active == 1, "the request to arrive")
    asking.cancel()
    await until(lambda: door.house["endless"].requests_active == 0, "the request to be let go")
    with pytest.raises(openai.APITimeoutError):
        await client(timeout=0.3).chat.completions.create(model="mute", messages=USER)
    await until(lambda: door.house["mute"].requests_active == 0, "the late request to be let go")


async def test_embeddings(door: Door, client: Callable[..., openai.AsyncOpenAI], tmp_path: Path) -> None:
    # The user's own llama-server stands for itself here: of a chat model it must be told how to make one vector of many.
    server = tmp_path / "llama-server"
    server.write_text(f'#!/bin/sh\nexec {sys.executable} -P {SERVER_FILE} "$@"\n')
    server.chmod(0o700)
    engine = {"kind": "llama-server", "binary": str(server), "embedding": True, "extra_args": ["--pooling", "mean"]}
    await door.open({"vectors": {"engine": engine, "model": "demo"}})
    api = client()
    answer = await api.embeddings.create(model="vectors", input=["one", "two"])
    assert [len(item.embedding) > 8 for item in answer.data] == [True, True]
    plain = await api.embeddings.create(model="vectors", input="one", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-3)


async def test_raw_responses_show_the_headers(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    await door.open({"demo": DEMO})
    raw = await client().chat.completions.with_raw_response.create(model="demo", messages=USER, max_tokens=3)
    assert raw.request_id is not None
    assert raw.request_id == raw.headers["x-request-id"]
    assert int(raw.headers["openai-processing-ms"]) >= 0
    parsed = raw.parse()
    assert parsed.choices[0].message.content
    own = await client(default_headers={"X-Request-Id": "mine"}).models.with_raw_response.list()
    assert own.headers["x-request-id"] == "mine"


async def test_refusals_are_the_sdks_exceptions(door: Door, client: Callable[..., openai.AsyncOpenAI]) -> None:
    crowded = misbehaving(door.house.model, knobs={"chat_status": 429})
    instances = {"demo": DEMO, "crowded": crowded, "off": {**DEMO, "autostart": False, "on_demand": False}}
    await door.open(instances, ready=False, api_key=KEY)
    for name in ("demo", "crowded"):
        await door.house.reach(name, State.READY)
    chat = client().chat.completions
    with pytest.raises(openai.BadRequestError) as bad:
        await chat.create(model="demo", messages=USER, temperature=9)
    assert (bad.value.param, bad.value.code) == ("temperature", "invalid_request")
    with pytest.raises(openai.NotFoundError, match="Did you mean `demo`") as unknown:
        await chat.create(model="demmo", messages=USER)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError):
        await chat.create(model="crowded", messages=USER)
    with pytest.raises(openai.InternalServerError) as stopped:
        await chat.create(model="off", messages=USER)
    assert (stopped.value.status_code, stopped.value.code) == (503, "initial")
    with pytest.raises(openai.AuthenticationError) as stranger:
        await client(api_key="wrong").chat.completions.create(model="demo", messages=USER)
    assert stranger.value.code == "invalid_api_key"
    with pytest.raises(openai.APIStatusError) as large:
        await chat.create(model="demo", messages=[{"role": "user", "content": "x" * 40_000_000}])
    assert large.value.status_code == 413


async def test_an_engine_that_dies_is_an_exception_before_and_amid_the_answer(
    door: Door, client: Callable[..., openai.AsyncOpenAI]
) -> None:
    figures = {"retry_base_seconds": 30}
    early = misbehaving(door.house.model, knobs={"stream_fault": "kill", "fault_after": 0}, supervision=figures)
    late = misbehaving(
        door.house.model, knobs={"stream_fault": "kill", "token_interval_seconds": 0.02}, supervision=figures
    )
    await door.open({"early": early, "late": late})
    with pytest.raises(openai.InternalServerError) as before:
        await client().chat.completions.create(model="early", messages=USER, stream=True)
    assert (before.value.status_code, before.value.code) == (502, "engine_died")
    pieces: list[str | None] = []
    with pytest.raises(openai.APIError, match="killed by signal 9") as amid:
        await collect(client(), "late", pieces)
    assert pieces == ["token0 ", "token1 ", "token2 "]
    assert amid.value.code == "engine_died"


async def test_the_sdks_own_retries_carry_a_client_over_a_crash(
    door: Door, client: Callable[..., openai.AsyncOpenAI]
) -> None:
    await door.open({"demo": DEMO})
    pid = door.house["demo"].pids()[0]
    os.kill(pid, signal.SIGKILL)
    await door.house.reach("demo", State.CRASHED)
    answer = await client(max_retries=8).chat.completions.create(model="demo", messages=USER, max_tokens=3)
    assert answer.choices[0].message.content
    assert door.outcomes("demo")["refused"] >= 1
