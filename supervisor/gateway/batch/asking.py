"""One request's way to an engine and back, in its turn, and again as long as that makes sense."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch.lines import Line, Reply, failure
from supervisor.gateway.batch.turns import Servers, Turns
from supervisor.gateway.calls import Call, check, new_request_id
from supervisor.gateway.exchange import Answer
from supervisor.gateway.passage import Why
from supervisor.request_fields import refuse

logger = logging.getLogger(__name__)


class Engines(Protocol):
    """How batch work reaches them."""

    def servers_of(self, call: Call, caller: Caller) -> Servers:
        """Who could answer; never an error."""

    async def ask(self, call: Call, caller: Caller, batch_id: str | None, why: Why) -> Answer:
        """The whole answer, behind whoever waits for one; LlamavisorError when there is none. `why`: as for `Passage`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On whose behalf requests are sent. `batch_id` is None for a list of prompts; `why` as for `Passage`.

    `wait_seconds` says how long after a reply, the last of so many, a request is sent again (None: it is final); `is_resting`: begin no more;
    `note` is told the id of each try.
    """

    caller: Caller
    batch_id: str | None
    why: Why
    wait_seconds: Callable[[Reply, int], float | None]
    is_resting: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = lambda _: None


class Desk:
    """Where batch work hands in its requests."""

    def __init__(self, engines: Engines, parallel: int, clock: Clock) -> None:
        self.turns = Turns(parallel)
        self._engines = engines
        self._clock = clock

    async def answer(self, call: Call, terms: Terms) -> Reply | None:
        """The final reply to a request; whatever goes wrong is one, too. None: it was not sent, or not again, for `terms` rest."""
        tries = 0
        while True:
            async with self.turns.turn(self._engines.servers_of(call, terms.caller), terms.caller):
                if terms.is_resting():
                    return None
                reply = await self._ask(call, terms)
            tries += 1
            seconds = terms.wait_seconds(reply, tries)
            if seconds is None:
                return reply
            await self._clock.sleep(seconds)

    async def _ask(self, call: Call, terms: Terms) -> Reply:
        request_id = new_request_id()
        terms.note(request_id)
        try:
            answer = await self._engines.ask(replace(call, id=request_id), terms.caller, terms.batch_id, terms.why)
            return reply_of(answer, request_id)
        except LlamavisorError as error:
            return failure(error, request_id)
        except Exception:
            logger.exception("Unexpected failure in batch work [%s]", request_id)
            message = f"An unexpected failure; the server's log has it as {request_id}."
            return failure(LlamavisorError(message), request_id)


def call_of(path: str, line: Line) -> Call:
    """The call that a line makes. MalformedRequestError when it breaks the contract, or asks for a stream."""
    check(path, line.body)
    if line.body.get("stream"):
        raise refuse("stream", "must be left out in a batch.")
    return Call(path, json.dumps(line.body).encode(), line.body, {"Content-Type": "application/json"})


def reply_of(answer: Answer, request_id: str) -> Reply:
    """An engine's answer as a reply."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return Reply(answer.status, request_id, document, _retry_after_seconds(answer), answer.cost_micros)
    told = {"message": "The engine's answer is no JSON object.", "type": "server_error", "param": None}
    return Reply(502, request_id, {"error": {**told, "code": "incomplete_answer"}})


def _retry_after_seconds(answer: Answer) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else None
