"""LiteLLM as a client: the door as an OpenAI-compatible provider."""

from __future__ import annotations

import json
from typing import Any

import litellm

from tests.acceptance.clients.harness import (
    BASE_URL,
    CALL_A_TOOL,
    KEY,
    MESSAGES,
    ONE_CALL,
    RESPONSE_FORMAT,
    RUNNER,
    SHORT_SECONDS,
    TOOL,
    raises,
    run,
    wait_until_idle,
)

litellm.telemetry = False


def ask(model: str = "demo", messages: list[Any] = MESSAGES, **options: Any) -> Any:
    """One completion, tried once."""
    given = {"api_base": BASE_URL, "api_key": KEY, "max_retries": 0, **options}
    return litellm.completion(model=f"openai/{model}", messages=messages, **given)


def models() -> None:
    found = litellm.get_valid_models(
        check_provider_endpoint=True, custom_llm_provider="openai", api_key=KEY, api_base=BASE_URL
    )
    assert "demo" in found, found


def chat() -> None:
    answer = ask(temperature=0, seed=1)
    assert answer.choices[0].message.content == "The capital of France is Paris.", answer
    assert answer.usage.completion_tokens > 0
    other = RUNNER.run(
        litellm.acompletion(model="openai/demo", messages=MESSAGES, api_base=BASE_URL, api_key=KEY, temperature=0)
    )
    assert other.choices[0].message.content == answer.choices[0].message.content


def stream_with_usage() -> None:
    chunks = list(ask(temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The capital of France is Paris.", text
    usage = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert usage, chunks
    assert usage[-1].completion_tokens == ask(temperature=0).usage.completion_tokens


def tool_call_round_trip() -> None:
    answer = ask(tools=[TOOL], **ONE_CALL, **CALL_A_TOOL)
    message = answer.choices[0].message
    (call,) = message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)["city"] in {"Paris", "Rome"}) == (
        "get_weather",
        True,
    )
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    last = ask(messages=[*MESSAGES, message.model_dump(), result], tools=[TOOL], tool_choice="none", max_tokens=20)
    assert last.choices[0].message.content


def json_schema() -> None:
    answer = ask(response_format=RESPONSE_FORMAT, temperature=0, max_tokens=1_000)
    assert set(json.loads(answer.choices[0].message.content)) == {"city", "sunny"}


def errors() -> None:
    assert "temperature" in str(raises(litellm.BadRequestError, lambda: ask(temperature=9)))
    raises(litellm.AuthenticationError, lambda: ask(api_key="wrong"))
    assert "Did you mean `demo`" in str(raises(litellm.NotFoundError, lambda: ask("demmo")))
    raises(litellm.RateLimitError, lambda: ask("crowded"))
    raises(litellm.ServiceUnavailableError, lambda: ask("off"))


def cancel() -> None:
    async def leave() -> None:
        stream = await litellm.acompletion(
            model="openai/endless", messages=MESSAGES, api_base=BASE_URL, api_key=KEY, stream=True
        )
        async for _ in stream:
            break
        # What one has of a stream that one is done with.
        await stream.completion_stream.close()

    RUNNER.run(leave())
    wait_until_idle("endless")


def timeout() -> None:
    raises(litellm.Timeout, lambda: ask("mute", timeout=SHORT_SECONDS))
    wait_until_idle("mute")


run(models, chat, stream_with_usage, tool_call_round_trip, json_schema, errors, cancel, timeout)
