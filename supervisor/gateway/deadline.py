"""An answer within the time that the client gives it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

from supervisor.errors import EngineDeadlineError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.passage import Passage, ask


class AnswerDeadlineError(EngineDeadlineError):
    """The answer was not complete within the time that the client gave it."""

    code = "answer_deadline"


async def ask_within(gateway: Gateway, call: Call, caller: Caller, seconds: float | None) -> Answer:
    """`passage.ask`, but the connection to the engine is closed when the answer is not whole after so many seconds (None: as long as it takes).

    AnswerDeadlineError then, which is also the request's outcome; the wait for a place counts.
    """
    if seconds is None:
        return await ask(gateway, call, caller)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(seconds):
                passage = await stack.enter_async_context(Passage(gateway, call, caller))
                answer = await passage.answer()
        except TimeoutError:
            # Raised inside the exchange, so that it is not taken for a client that left.
            raise AnswerDeadlineError(
                f"The answer was not complete within {seconds:g} s.", param="timeout", remedy="Give it more time."
            ) from None
    return replace(answer, cost_micros=passage.cost_micros)
