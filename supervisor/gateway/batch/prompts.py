"""`POST /v1/batch`: a list of prompts, answered side by side while the client waits (`contracts.md` §4)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.config.routing_settings import AUTO
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch.asking import Asks, reply_of
from supervisor.gateway.batch.turns import Turns
from supervisor.gateway.calls import CHAT, Call
from supervisor.gateway.costs import cost_number
from supervisor.gateway.deadline import AnswerDeadlineError
from supervisor.gateway.exchange import Answer
from supervisor.gateway.losses import ENGINE_ERROR, IncompleteAnswerError, code_in
from supervisor.request_fields import refuse, shown

PROMPTS_MAX = 1_000
TIMEOUT_MIN_SECONDS, TIMEOUT_MAX_SECONDS = 1.0, 300.0

CostOf = Callable[[Answer], int | None]
"""What an answer costs, in micro-units; None when its model has no price."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One of the list. `id` is the client's, or its number in the list, from 1; `model` None: that of the list."""

    id: str
    text: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class PromptList:
    """What a client asks for. `timeout_seconds` is for all of them together; None: as long as it takes."""

    prompts: tuple[Prompt, ...]
    model: str
    timeout_seconds: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a prompt: `content` and `usage`, or `error` and its code. `cost_micros` is None for an answer without a price."""

    prompt: Prompt
    content: str | None = None
    usage: Mapping[str, int] | None = None
    cost_micros: int | None = None
    error: str | None = None
    error_code: str | None = None

    @property
    def is_completed(self) -> bool:
        """It was answered."""
        return self.error is None

    def to_wire(self) -> dict[str, Any]:
        """Its JSON; what does not apply is left out."""
        named = {"id": self.prompt.id, "prompt": self.prompt.text}
        if not self.is_completed:
            return {**named, "status": "failed", "error": self.error, "error_code": self.error_code}
        told = {"content": self.content, "usage": self.usage, "cost": cost_number(self.cost_micros)}
        return {**named, "status": "completed", **told}


def read_prompts(document: Mapping[str, Any]) -> PromptList:
    """The body of the request. MalformedRequestError that names the field."""
    given = document.get("prompts")
    if not isinstance(given, list) or not 0 < len(given) <= PROMPTS_MAX:
        raise refuse("prompts", f"must be a list of 1 to {PROMPTS_MAX} prompts.")
    prompts = tuple(_prompt(index, each) for index, each in enumerate(given))
    model = _text_or_none(document, "model", "model")
    timeout_seconds = document.get("timeout")
    if timeout_seconds is not None and not _is_timeout(timeout_seconds):
        extent = f"from {TIMEOUT_MIN_SECONDS:g} to {TIMEOUT_MAX_SECONDS:g}"
        raise refuse("timeout", f"must be a number of seconds {extent}, not {shown(timeout_seconds)}.")
    return PromptList(prompts, model or AUTO, timeout_seconds)


def _prompt(index: int, given: object) -> Prompt:
    if not isinstance(given, dict) or not isinstance(given.get("prompt"), str):
        raise refuse(f"prompts[{index}]", f"must be an object with a `prompt`, not {shown(given)}.")
    name = _text_or_none(given, "id", f"prompts[{index}].id")
    model = _text_or_none(given, "model", f"prompts[{index}].model")
    return Prompt(str(index + 1) if name is None else name, given["prompt"], model or None)


def _text_or_none(document: Mapping[str, Any], name: str, shown_name: str) -> str | None:
    value = document.get(name)
    if value is None or isinstance(value, str):
        return value
    raise refuse(shown_name, f"must be a string, not {shown(value)}.")


def _is_timeout(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return TIMEOUT_MIN_SECONDS <= value <= TIMEOUT_MAX_SECONDS


def summary(results: list[Result]) -> dict[str, Any]:
    """The answer: the results in the order of the prompts, and their sums. `total_cost` is null when the cost of an answer is not known."""
    completed = [result for result in results if result.is_completed]
    costs = [result.cost_micros for result in completed]
    known = [cost for cost in costs if cost is not None]
    return {
        "total": len(results),
        "completed": len(completed),
        "failed": len(results) - len(completed),
        "results": [result.to_wire() for result in results],
        "total_cost": cost_number(sum(known) if len(known) == len(costs) else None),
        "total_tokens": sum(result.usage["total_tokens"] for result in completed if result.usage),
    }


async def answer_prompts(wanted: PromptList, caller: Caller, asks: Asks, turns: Turns, cost_of: CostOf) -> list[Result]:
    """Ask for all of them, as many at once as batch work may. Whoever cancels this cancels each; what is late at the deadline has failed."""

    async def answer(prompt: Prompt) -> Result:
        async with turns.turn():
            return await _answered(prompt, prompt.model or wanted.model, caller, asks, cost_of)

    tasks = [
        asyncio.create_task(answer(prompt), name=f"prompt:{number}") for number, prompt in enumerate(wanted.prompts)
    ]
    try:
        await asyncio.wait(tasks, timeout=wanted.timeout_seconds)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    late = f"It was not answered within {wanted.timeout_seconds or 0:g} s."
    return [
        Result(prompt, error=late, error_code=AnswerDeadlineError.code) if task.cancelled() else task.result()
        for prompt, task in zip(wanted.prompts, tasks, strict=True)
    ]


async def _answered(prompt: Prompt, model: str, caller: Caller, asks: Asks, cost_of: CostOf) -> Result:
    document: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt.text}]}
    request_id = f"req_{uuid.uuid4().hex}"
    call = Call(CHAT, json.dumps(document).encode(), document, {"Content-Type": "application/json"}, id=request_id)
    try:
        answer = await asks(call, caller, None)
    except LlamavisorError as error:
        return Result(prompt, error=str(error), error_code=error.code)
    reply = reply_of(answer, request_id)
    if not reply.is_answer:
        return _failed(prompt, reply.document)
    try:
        content = reply.document["choices"][0]["message"]["content"]
        return Result(prompt, content or "", _usage_in(reply.document), cost_of(answer))
    except (KeyError, IndexError, TypeError):
        return Result(prompt, error="The engine's answer holds no message.", error_code=IncompleteAnswerError.code)


def _failed(prompt: Prompt, document: Mapping[str, Any]) -> Result:
    told = document.get("error")
    words = told if isinstance(told, dict) else {}
    message = words.get("message")
    text = message if isinstance(message, str) else "The engine failed without a word."
    return Result(prompt, error=text, error_code=code_in(words) or ENGINE_ERROR)


def _usage_in(document: Mapping[str, Any]) -> Mapping[str, int]:
    told = document.get("usage")
    usage = told if isinstance(told, dict) else {}
    read, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
