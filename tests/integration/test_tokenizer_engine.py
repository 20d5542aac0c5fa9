"""The tokenizer API over the real engine's own tokenizer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fixtures.door import HELLO, Door
from tests.fixtures.house import misbehaving

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
TEXTS = ["Hello there", "", " ", "é ☃ 🂡 \u202e", "a\x00b\n\n\t", "<|im_end|>", '{"a": "b\\"}', "Ünïcode " * 200]


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def test_text_comes_back_from_its_tokens(door: Door) -> None:
    await door.open({"demo": DEMO})
    for text in TEXTS:
        status, told, _ = await door.ask({"model": "demo", "text": text}, "/v1/tokenize")
        assert (status, told["length"]) == (200, len(told["tokens"]))
        assert (await door.ask({"text": text}, "/encode"))[1] == told
        for path in ("/v1/detokenize", "/decode"):
            assert (await door.ask({"tokens": told["tokens"]}, path))[1] == {"text": text}
    _, told, _ = await door.ask({"text": "<|im_end|>"}, "/v1/tokenize")
    assert told["length"] == 1


async def test_half_a_character_and_tokens_beyond_the_vocabulary(door: Door) -> None:
    await door.open({"demo": DEMO})
    _, told, _ = await door.ask({"text": "☃"}, "/v1/tokenize")
    assert told["length"] > 1
    status, answer, _ = await door.ask({"tokens": told["tokens"][:1]}, "/v1/detokenize")
    assert (status, type(answer["text"])) == (200, str)
    status, answer, _ = await door.ask({"tokens": [10**6]}, "/v1/detokenize")
    assert (status, answer["error"]["param"]) == (400, "tokens")


async def test_the_models_own_template_is_rendered_by_the_engine(door: Door) -> None:
    await door.open({"demo": DEMO})
    prompt = "<|im_start|>user\nhello<|im_end|>\n"
    for path in ("/v1/chat_template", "/chat_template"):
        assert (await door.ask(HELLO, path))[1] == {"prompt": f"{prompt}<|im_start|>assistant\n"}
        assert (await door.ask({**HELLO, "add_generation_prompt": False}, path))[1] == {"prompt": prompt}
    status, answer, _ = await door.ask({"messages": [{"role": "robot", "content": ""}]}, "/v1/chat_template")
    assert (status, answer["error"]["param"]) == (400, "messages[0].role")
    assert "robot" in answer["error"]["message"]


async def test_an_engine_without_tokenizer_and_template(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model)})
    status, answer, _ = await door.ask({"text": "a"}, "/v1/tokenize")
    assert (status, answer["error"]["code"]) == (501, "surface_not_supported")
    _, answer, _ = await door.ask(HELLO, "/v1/chat_template")
    assert answer == {"prompt": "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"}
    status, answer, _ = await door.ask({"text": "a", "model": "two"}, "/encode")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
