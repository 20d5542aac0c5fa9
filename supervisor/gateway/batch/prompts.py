"""`POST /v1/batch`: a list of prompts, answered side by side while the client waits (`contracts.md` §4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from supervisor.config.routing_settings import AUTO
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch.asking import Desk, Terms
from supervisor.gateway.batch.lines import Reply, failure, pause_seconds
from supervisor.gateway.calls import BOUNDS, CHAT, Call
from supervisor.gateway.costs import cost_number
from supervisor.gateway.deadline import AnswerDeadlineError
from supervisor.gateway.losses import ENGINE_ERROR, IncompleteAnswerError, code_in
from supervisor.request_fields import refuse, shown

PROMPTS_MAX = 1_000
NAME_SHOWN_CHARACTERS = 60
TIMEOUT_MIN_SECONDS, TIMEOUT_MAX_SECONDS = 1.0, 300.0
SAMPLING = ("max_tokens", "temperature", "top_p")
FIELDS = frozenset({"prompts", "model", "project_id", "timeout", *SAMPLING})
PROMPT_FIELDS = frozenset({"prompt", "id", "model"})


@dataclass(frozen=True, slots=True)
class Prompt:
    """One of the list. `id` is the client's, or its number in the list, from 1; `model` None: that of the list."""

    id: str
    text: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class PromptList:
    """What a client asks for. `timeout_seconds` is for all of them together; None: as long as it takes. `sampling` goes to the engine with each."""

    prompts: tuple[Prompt, ...]
    model: str
    timeout_seconds: float | None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a prompt: `content` and `usage`, or `error` and its code. `cost_micros` is None for an answer without a price.

    `request_id`: that of its last try in the books; None when it never came so far.
    """

    prompt: Prompt
    request_id: str | None = None
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
        if self.request_id is not None:
            named["request_id"] = self.request_id
        if not self.is_completed:
            return {**named, "status": "failed", "error": self.error, "error_code": self.error_code}
        told = {"content": self.content, "usage": self.usage, "cost": cost_number(self.cost_micros)}
        return {**named, "status": "completed", **told}


def read_prompts(document: Mapping[str, Any]) -> PromptList:
    """The body of the request. MalformedRequestError that names the field."""
    _check_known(document, FIELDS, "")
    given = document.get("prompts")
    if not isinstance(given, list) or not 0 < len(given) <= PROMPTS_MAX:
        raise refuse("prompts", f"must be a list of 1 to {PROMPTS_MAX} prompts.")
    prompts = tuple(_prompt(index, each) for index, each in enumerate(given))
    model = _text_or_none(document, "model", "model")
    timeout_seconds = document.get("timeout")
    if timeout_seconds is not None and not _is_timeout(timeout_seconds):
        extent = f"from {TIMEOUT_MIN_SECONDS:g} to {TIMEOUT_MAX_SECONDS:g}"
        raise refuse("timeout", f"must be a number of seconds {extent}, not {shown(timeout_seconds)}.")
    for bound in BOUNDS:
        if bound.name in SAMPLING:
            bound.check(document)
    sampling = {name: document[name] for name in SAMPLING if document.get(name) is not None}
    return PromptList(prompts, model or AUTO, timeout_seconds, sampling)


def _check_known(document: Mapping[str, Any], fields: Collection[str], where: str) -> None:
    unknown = min(document.keys() - fields, default=None)
    if unknown is not None:
        raise refuse(f"{where}{unknown[:NAME_SHOWN_CHARACTERS]}", f"is not one of {', '.join(sorted(fields))}.")


def _prompt(index: int, given: object) -> Prompt:
    if not isinstance(given, dict) or not isinstance(given.get("prompt"), str):
        raise refuse(f"prompts[{index}]", f"must be an object with a `prompt`, not {shown(given)}.")
    _check_known(given, PROMPT_FIELDS, f"prompts[{index}].")
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


async def answer_prompts(wanted: PromptList, caller: Caller, desk: Desk) -> list[Result]:
    """Ask for all of them, as many at once as batch work may; each again for as long as a limit, a full line or a missing model is in its way.

    Whoever cancels this cancels each; what is late at the deadline has failed.
    """
    late: list[LlamavisorError] = []
    sent: dict[int, str] = {}
    terms = Terms(caller, None, lambda: next(iter(late), None), lambda reply, _: pause_seconds(reply))
    tasks = [
        asyncio.create_task(
            desk.answer(_call(prompt, wanted), replace(terms, note=partial(sent.__setitem__, number))),
            name=f"prompt:{number}",
        )
        for number, prompt in enumerate(wanted.prompts)
    ]
    try:
        await asyncio.wait(tasks, timeout=wanted.timeout_seconds)
        late.append(AnswerDeadlineError(f"It was not answered within {wanted.timeout_seconds or 0:g} s."))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    replies = [
        failure(late[0], sent.get(number, "")) if task.cancelled() else task.result()
        for number, task in enumerate(tasks)
    ]
    return [_result(prompt, reply) for prompt, reply in zip(wanted.prompts, replies, strict=True) if reply is not None]


def _call(prompt: Prompt, wanted: PromptList) -> Call:
    messages = [{"role": "user", "content": prompt.text}]
    document = {**wanted.sampling, "model": prompt.model or wanted.model, "messages": messages}
    return Call(CHAT, json.dumps(document).encode(), document, {"Content-Type": "application/json"})


def _result(prompt: Prompt, reply: Reply) -> Result:
    request_id = reply.request_id or None
    if not reply.is_answer:
        return _failed(prompt, reply)
    try:
        content = reply.document["choices"][0]["message"]["content"]
        return Result(prompt, request_id, content or "", _usage_in(reply.document), reply.cost_micros)
    except (KeyError, IndexError, TypeError):
        error = "The engine's answer holds no message."
        return Result(prompt, request_id, error=error, error_code=IncompleteAnswerError.code)


def _failed(prompt: Prompt, reply: Reply) -> Result:
    told = reply.document.get("error")
    words = told if isinstance(told, dict) else {}
    message = words.get("message")
    text = message if isinstance(message, str) else "The engine failed without a word."
    return Result(prompt, reply.request_id or None, error=text, error_code=code_in(words) or ENGINE_ERROR)


def _usage_in(document: Mapping[str, Any]) -> Mapping[str, int]:
    told = document.get("usage")
    usage = told if isinstance(told, dict) else {}
    read, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
