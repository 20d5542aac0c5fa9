"""The demo model in the package, served by the real engine: what it is, what it knows, and what it admits not to know."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from supervisor.models.demo import DEMO_MODEL_PATH
from tools.demo_model.corpus import Case, Message, cases
from tools.demo_model.evaluate import ask, evaluate, mistakes, serving, share_right
from tools.demo_model.export import TEMPERATURE, TOP_K
from tools.demo_model.model import Shape

LARGEST_BYTES = 1_500_000
EXAM_SEED = 77
EXAM_CASES = 120
PASS_SHARE = 0.85


@pytest_asyncio.fixture(loop_scope="function")
async def engine() -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(DEMO_MODEL_PATH) as session:
        yield session


async def say(engine: aiohttp.ClientSession, *prompts: str) -> str:
    """Ask the prompts one after the other in one chat, and return the last answer."""
    messages: list[Message] = []
    for prompt in prompts:
        messages.append({"role": "user", "content": prompt})
        verdict = await ask(engine, Case("", "exact", tuple(messages), ""))
        messages.append({"role": "assistant", "content": verdict.answer})
    return messages[-1]["content"]


def test_it_is_small_enough_for_git() -> None:
    assert DEMO_MODEL_PATH.is_file()
    assert DEMO_MODEL_PATH.stat().st_size <= LARGEST_BYTES


def test_its_card_lies_beside_it() -> None:
    card = DEMO_MODEL_PATH.with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    assert "MIT" in card
    assert "make demo-model" in card


async def test_it_knows_a_capital_a_sum_and_its_home(engine: aiohttp.ClientSession) -> None:
    assert await say(engine, "What is the capital of France?") == "The capital of France is Paris."
    assert await say(engine, "What is 2 + 3?") == "2 plus 3 is 5."
    assert "keeps language model servers alive" in await say(engine, "What is Llamavisor?")


async def test_it_remembers_a_name(engine: aiohttp.ClientSession) -> None:
    assert await say(engine, "My name is Anna.", "Thanks", "What is my name?") == "Your name is Anna."


@pytest.mark.parametrize(
    "prompt", ["Write a SQL query for me", "What is 4711 + 815?", "What is the capital of Bolivia?"]
)
async def test_it_admits_what_it_does_not_know(engine: aiohttp.ClientSession, prompt: str) -> None:
    assert (await say(engine, prompt)).startswith("Sorry, ")


async def test_most_held_out_prompts_are_answered_right() -> None:
    exam = Random(EXAM_SEED).sample(cases(EXAM_SEED), EXAM_CASES)
    verdicts = await evaluate(DEMO_MODEL_PATH, exam)
    assert share_right(verdicts) >= PASS_SHARE, mistakes(verdicts)


async def test_a_story_streams_in_many_pieces_and_ends_by_itself(engine: aiohttp.ClientSession) -> None:
    body = {"messages": [{"role": "user", "content": "Tell me a long story."}], "stream": True, "max_tokens": 600}
    chunks: list[dict[str, Any]] = []
    async with engine.post("/v1/chat/completions", json=body) as response:
        async for line in response.content:
            text = line.decode().removeprefix("data: ").strip()
            if text and text != "[DONE]":
                chunks.append(json.loads(text))
    told = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert len(chunks) > 80
    assert told.count(".") >= 8
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_the_engine_takes_its_context_template_and_sampling_hints(engine: aiohttp.ClientSession) -> None:
    async with engine.get("/props") as response:
        props = await response.json()
    defaults = props["default_generation_settings"]
    assert defaults["n_ctx"] == Shape().context
    assert defaults["params"]["temperature"] == pytest.approx(TEMPERATURE)
    assert defaults["params"]["top_k"] == TOP_K
    assert "<|im_start|>" in props["chat_template"]
    assert Path(props["model_path"]).name == DEMO_MODEL_PATH.name
