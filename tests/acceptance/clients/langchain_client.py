"""LangChain's model of an OpenAI chat: `langchain_openai.ChatOpenAI`."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.acceptance.clients.harness import (
    BASE_URL,
    CALL_A_TOOL,
    KEY,
    ONE_CALL,
    QUESTION,
    RUNNER,
    SCHEMA,
    SHORT_SECONDS,
    raises,
    run,
    wait_until_idle,
)


def model(name: str = "demo", **options: Any) -> Any:
    """A chat model that tries once."""
    return ChatOpenAI(**{"model": name, "base_url": BASE_URL, "api_key": KEY, "max_retries": 0, **options})


def weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


get_weather = tool("get_weather")(weather)


def models() -> None:
    # What ChatOpenAI offers for it is the client below it.
    assert "demo" in [each.id for each in model().root_client.models.list()]


def chat() -> None:
    answer = model(temperature=0).invoke(QUESTION)
    assert answer.content == "The capital of France is Paris."
    assert answer.usage_metadata["output_tokens"] > 0
    assert RUNNER.run(model(temperature=0).ainvoke(QUESTION)).content == answer.content


def stream_with_usage() -> None:
    whole: AIMessageChunk | None = None
    for chunk in model(temperature=0, stream_usage=True).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert whole.content == "The capital of France is Paris."
    assert (
        whole.usage_metadata["output_tokens"] == model(temperature=0).invoke(QUESTION).usage_metadata["output_tokens"]
    )


def tool_call_round_trip() -> None:
    asking = model(**CALL_A_TOOL).bind_tools([get_weather], **ONE_CALL)
    question = HumanMessage(QUESTION)
    answer = asking.invoke([question])
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    assert call["name"] == "get_weather", answer
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert result.tool_call_id == call["id"]
    last = model(max_tokens=20).bind_tools([get_weather], tool_choice="none").invoke([question, answer, result])
    assert last.content


def json_schema() -> None:
    schema = {"title": "weather", "description": "The weather.", **SCHEMA}
    asking = model(temperature=0, max_tokens=1_000).with_structured_output(schema, method="json_schema", strict=True)
    assert set(asking.invoke(QUESTION)) == {"city", "sunny"}


def errors() -> None:
    # A check of its own lets nothing above 2 through: the request is bent after it.
    bent = model(extra_body={"temperature": 9})
    assert "temperature" in str(raises(openai.BadRequestError, lambda: bent.invoke(QUESTION)))
    raises(openai.AuthenticationError, lambda: model(api_key="wrong").invoke(QUESTION))
    assert "Did you mean `demo`" in str(raises(openai.NotFoundError, lambda: model("demmo").invoke(QUESTION)))
    raises(openai.RateLimitError, lambda: model("crowded").invoke(QUESTION))
    refused = raises(openai.InternalServerError, lambda: model("off").invoke(QUESTION))
    assert isinstance(refused, openai.APIStatusError)
    assert refused.status_code == 503


def cancel() -> None:
    async def leave() -> None:
        stream = model("endless").astream(QUESTION)
        async for _ in stream:
            break
        await stream.aclose()
        # What it left open is closed by the loop, which goes on.
        await asyncio.to_thread(wait_until_idle, "endless")

    RUNNER.run(leave())


def timeout() -> None:
    raises(openai.APITimeoutError, lambda: model("mute", timeout=SHORT_SECONDS).invoke(QUESTION))
    wait_until_idle("mute")


run(models, chat, stream_with_usage, tool_call_round_trip, json_schema, errors, cancel, timeout)
