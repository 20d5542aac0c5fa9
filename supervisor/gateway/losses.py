"""What is said when an engine fails in the middle of its work."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from supervisor.clock import Clock
from supervisor.errors import EngineDeadlineError, EngineDiedError, LlamavisorError
from supervisor.gateway.openai_errors import error_type
from supervisor.gateway.resolve import retry_after_seconds
from supervisor.process.instance import Instance
from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import State

# The connection breaks a moment before the exit is noticed and classified (much of a second where the machine is busy): worth waiting for, as
# only that says why. An engine that closes a connection and lives on is rare, and its client has lost its answer already.
CLASSIFICATION_WAIT_SECONDS = 0.5
BEFORE = "Before it answered"
UNREACHED = "Before the request could be sent"
AMID = "In the middle of its answer"
ENGINE_ERROR = "engine_error"
"""The code of an engine's error that has none of its own."""
_NOT_READY = frozenset(State) - {State.READY}
_MESSAGE_CHARACTERS_MAX = 2_000
# llama.cpp answers 500 to these requests, though it has read them only, and found them wrong.
_FAULT_OF_THE_REQUEST = re.compile(r"Failed to parse (messages|tools): |(image|audio|video) input is not supported")
# What helps against an engine's refusal, by its code.
_REMEDIES = {"exceed_context_size_error": "Send less, or raise `engine.ctx_size` of the instance."}


class EngineRefusedError(LlamavisorError):
    """The engine does not take what Llamavisor sends it: a fault of the configuration, not of the client."""

    code, status = "engine_refused", 502


class IncompleteAnswerError(EngineDiedError):
    """The engine ended its answer, but that is no whole answer."""

    code = "incomplete_answer"


async def explain_loss(instance: Instance, generation: int, lost: str, clock: Clock) -> EngineDiedError:
    """Why the connection to that generation broke, as far as the supervisor knows or learns within half a second.

    `lost` says when that was: BEFORE, AMID, or UNREACHED when there never was one.
    """
    if not await _has_left(instance, generation):
        what = "did not take the connection" if lost is UNREACHED else "closed the connection"
        return EngineDiedError(f"{lost}, the engine of {instance.name} {what}.")
    return _died(instance, lost, clock)


async def explain_early_end(
    instance: Instance, generation: int, fault: str, lost: str, clock: Clock
) -> EngineDiedError:
    """Why an answer, whose end is that of its connection, is not whole: that generation has died, else `incomplete`. As `explain_loss`."""
    return _died(instance, lost, clock) if await _has_left(instance, generation) else incomplete(instance, fault)


async def _has_left(instance: Instance, generation: int) -> bool:
    """Whether that generation has ended, or does within a moment."""
    if instance.generation == generation:
        try:
            await instance.wait_for(_NOT_READY, CLASSIFICATION_WAIT_SECONDS)
        except TimeoutError:
            return False
    return True


def _died(instance: Instance, lost: str, clock: Clock) -> EngineDiedError:
    snapshot = instance.snapshot()
    return EngineDiedError(
        f"{lost}, {_ending(snapshot)}.",
        retry_after_seconds=retry_after_seconds(snapshot, clock.wall()),
        details=_details(snapshot),
    )


def incomplete(instance: Instance, fault: str) -> IncompleteAnswerError:
    """The error for an answer that is not whole; `fault` goes on from "it"."""
    return IncompleteAnswerError(f"The answer of {instance.name} is not complete: {fault}.")


def silent(instance: Instance, when: str, limit_seconds: float) -> EngineDeadlineError:
    """The error for an engine that said nothing for too long."""
    return EngineDeadlineError(f"{when}, the engine of {instance.name} was silent for {limit_seconds:g} s.")


def _ending(snapshot: InstanceSnapshot) -> str:
    subject, cause = f"the engine of {snapshot.name}", snapshot.cause
    if snapshot.state not in (State.CRASHED, State.ERROR) or cause is None:
        return f"{subject} was stopped" if snapshot.state is not State.READY else f"{subject} was replaced"
    if cause.exit is None or snapshot.adopted:
        return f"{subject} was given up: {cause.message}"
    return f"{subject} {'was ' if cause.exit.signal is not None else ''}{cause.message}"


def _details(snapshot: InstanceSnapshot) -> dict[str, Any]:
    cause = snapshot.cause
    details: dict[str, Any] = {"instance": snapshot.name, "state": snapshot.state.value}
    if cause is not None:
        details["reason"] = cause.reason.value
        if cause.exit is not None:
            details |= {"exit_code": cause.exit.code, "signal": cause.exit.signal}
    return details


def openai_error(body: bytes, status: int) -> bytes:
    """An engine's error as OpenAI writes it: unchanged when it is one, else what it says in that shape, with what it says beyond."""
    words = said(body)
    if _is_openai(words):
        return body
    kind, param = words.get("type"), words.get("param")
    error = {
        **words,
        "message": message_in(words, status),
        "type": kind if isinstance(kind, str) else error_type(status),
        "param": param if isinstance(param, str) else None,
        "code": code_in(words) or ENGINE_ERROR,
    }
    return json.dumps({"error": error}).encode()


def refusal_in(status: int, body: bytes) -> bytes | None:
    """The refusal (of 400) that an engine's failure really is; None when it is none. A bad request must not count as a failure."""
    if status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    words = said(body)
    message = words.get("message")
    if not isinstance(message, str) or _FAULT_OF_THE_REQUEST.match(message) is None:
        return None
    bad = HTTPStatus.BAD_REQUEST
    return json.dumps({"error": {**words, "code": bad.value, "type": error_type(bad)}}).encode()


def code_in(words: Mapping[str, Any]) -> str | None:
    """The name of an engine's error: its `code`, or its `type` where that is a number; None when it has neither."""
    code, kind = words.get("code"), words.get("type")
    return code if isinstance(code, str) else kind if isinstance(kind, str) else None


def message_in(words: Mapping[str, Any], status: int) -> str:
    """What an engine's error says, with what helps where that is a setting."""
    message, remedy = words.get("message"), _REMEDIES.get(code_in(words) or "")
    if not isinstance(message, str) or not message:
        message = f"The engine answered {status} without a word."
    return message if remedy is None else f"{message.rstrip('.')}. {remedy}"


def check_refusal(instance: Instance, status: int) -> None:
    """Raise EngineRefusedError for what only the configuration can mend: the engine wants a key, or sends us elsewhere."""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        raise EngineRefusedError(
            f"The engine of {instance.name} wants a key ({status}).",
            remedy="Put its key into `env` of the instance, under the engine's own name for it.",
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise EngineRefusedError(
            f"The engine of {instance.name} answered with a redirect ({status}), which is not followed.",
            remedy="Give the final address as its `url`.",
        )


def said(body: bytes) -> dict[str, Any]:
    """The error object in an engine's answer; of other JSON and of text, their words as its `message`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {"message": body[:_MESSAGE_CHARACTERS_MAX].decode("utf-8", "replace").strip()}
    if not isinstance(document, dict):
        return {}
    error = document.get("error", document)
    if isinstance(error, dict):
        detail = error.get("detail")
        return {"message": detail, **error} if isinstance(detail, str) else dict(error)
    return {"message": error} if isinstance(error, str) else {}


def _is_openai(error: Mapping[str, Any]) -> bool:
    shape = isinstance(error.get("message"), str) and isinstance(error.get("type"), str)
    optional = (error.get("param", 0), error.get("code", 0))
    return shape and all(value is None or isinstance(value, str) for value in optional)
