"""The tokenizer's questions and answers, to engines that cannot be started here; llama.cpp's own are in the integration tests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.errors import MalformedRequestError, SurfaceNotSupportedError
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer
from supervisor.gateway.losses import IncompleteAnswerError
from supervisor.gateway.tokenizer import Tokenizer

HELLO = [{"role": "user", "content": "Hello"}]


class Engine:
    """Answers as an engine of a kind does: `answers` by path, 501 for any other; `asked` keeps what it was asked."""

    def __init__(self, kind: str, answers: dict[str, Any], status: int = 200) -> None:
        self.kind = kind
        self.answers = answers
        self.status = status
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, call: Call, /) -> Answer:
        self.asked.append((call.path, json.loads(call.body)))
        if call.path not in self.answers:
            raise SurfaceNotSupportedError("No.", details={"engine": self.kind})
        return Answer(self.status, {}, json.dumps(self.answers[call.path]).encode(), False, 0.0)


def tokenizer(engine: Engine, model: str | None = None) -> Tokenizer:
    """Over that engine."""
    return Tokenizer(engine, model, {})


async def test_vllm_is_asked_in_its_language() -> None:
    vllm = Engine("vllm", {"/tokenize": {"tokens": [1, 2], "count": 2}, "/detokenize": {"prompt": "<s>Hello"}})
    assert await tokenizer(vllm, "qwen").tokenize("Hello") == [1, 2]
    assert vllm.asked[-1][1] | {"model": "qwen", "prompt": "Hello", "add_special_tokens": False} == vllm.asked[-1][1]
    assert await tokenizer(vllm).detokenize([1, 2]) == "<s>Hello"


async def test_vllms_template_is_read_back_from_its_tokens() -> None:
    vllm = Engine("vllm", {"/tokenize": {"tokens": [1, 2]}, "/detokenize": {"prompt": "<s>Hello"}})
    assert await tokenizer(vllm).chat_template(HELLO, False) == "<s>Hello"
    (_, tried), (path, asked), (_, tokens) = vllm.asked
    assert path == "/tokenize"
    assert asked == {**tried, "add_special_tokens": False}
    assert tokens == {"tokens": [1, 2]}


async def test_an_engine_without_a_template_gets_chatml() -> None:
    prompt = await tokenizer(Engine("command", {})).chat_template(HELLO)
    assert prompt == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("answer", [[], {}, {"tokens": "x"}, {"tokens": ["x"]}, {"content": 3}])
async def test_an_answer_that_makes_no_sense_is_not_passed_on(answer: Any) -> None:
    engine = Engine("command", {"/tokenize": answer, "/detokenize": answer})
    with pytest.raises(IncompleteAnswerError, match="/tokenize"):
        await tokenizer(engine).tokenize("a")
    with pytest.raises(IncompleteAnswerError, match="/detokenize"):
        await tokenizer(engine).detokenize([1])


async def test_what_the_engine_refuses_is_the_fields_fault() -> None:
    engine = Engine("command", {"/detokenize": {"error": {"message": "out of range"}}}, status=500)
    with pytest.raises(MalformedRequestError, match="`tokens`: out of range") as refusal:
        await tokenizer(engine).detokenize([7])
    assert refusal.value.param == "tokens"


@pytest.mark.parametrize("tokens", [None, "1", [1.5], [True], [-1], [2**31], ["1"], [None]])
async def test_tokens_that_are_none_are_refused_before_the_engine_is_asked(tokens: Any) -> None:
    engine = Engine("command", {})
    with pytest.raises(MalformedRequestError, match="tokens"):
        await tokenizer(engine).detokenize(tokens)
    with pytest.raises(MalformedRequestError, match="`text`"):
        await tokenizer(engine).tokenize(tokens if tokens != "1" else None)
    assert engine.asked == []


@pytest.mark.parametrize("messages", [None, [], "Hello", [{"role": "robot"}]])
async def test_conversations_that_are_none_are_refused(messages: Any) -> None:
    with pytest.raises(MalformedRequestError, match="messages"):
        await tokenizer(Engine("command", {})).chat_template(messages)
    with pytest.raises(MalformedRequestError, match="add_generation_prompt"):
        await tokenizer(Engine("command", {})).chat_template(HELLO, "yes")
