"""One line's way to an engine and back."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Protocol

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch.lines import Line, Reply, failure
from supervisor.gateway.batch.objects import Batch
from supervisor.gateway.calls import Call, check
from supervisor.gateway.exchange import Answer
from supervisor.request_fields import refuse
from supervisor.storage.records import Scope

logger = logging.getLogger(__name__)


class Asks(Protocol):
    """How batch work reaches an engine: as a request of `caller`, behind whoever waits for an answer. `batch_id`: None for a list of prompts."""

    async def __call__(self, call: Call, caller: Caller, batch_id: str | None) -> Answer:
        """The whole answer; LlamavisorError when there is none."""


async def ask_line(asks: Asks, batch: Batch, line: Line) -> Reply:
    """Send a line once. Whatever goes wrong is a reply, too: one line is not to take the others with it."""
    request_id = f"req_{uuid.uuid4().hex}"
    caller = Caller(batch.project, batch.key_id, frozenset({Scope.INFERENCE}))
    try:
        return reply_of(await asks(call_of(batch.order.endpoint, line, request_id), caller, batch.id), request_id)
    except LlamavisorError as error:
        return failure(error, request_id)
    except Exception:
        logger.exception("Unexpected failure of line %d of %s [%s]", line.number, batch.id, request_id)
        return failure(LlamavisorError(f"An unexpected failure; the server's log has it as {request_id}."), request_id)


def call_of(path: str, line: Line, request_id: str) -> Call:
    """The call that a line makes. MalformedRequestError when it breaks the contract, or asks for a stream."""
    check(path, line.body)
    if line.body.get("stream"):
        raise refuse("stream", "must be left out in a batch.")
    headers = {"Content-Type": "application/json"}
    return Call(path, json.dumps(line.body).encode(), line.body, headers, id=request_id)


def reply_of(answer: Answer, request_id: str) -> Reply:
    """An engine's answer as a reply."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return Reply(answer.status, request_id, document, _retry_after_seconds(answer))
    told = {"message": "The engine's answer is no JSON object.", "type": "server_error", "param": None}
    return Reply(502, request_id, {"error": {**told, "code": "incomplete_answer"}})


def _retry_after_seconds(answer: Answer) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else None
