"""An answer within the time that the client gives it."""

from __future__ import annotations

import asyncio

from supervisor.errors import EngineDeadlineError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.passage import ask


class AnswerDeadlineError(EngineDeadlineError):
    """The answer was not complete within the time that the client gave it."""

    code = "answer_deadline"


async def ask_within(gateway: Gateway, call: Call, caller: Caller, seconds: float | None) -> Answer:
    """`passage.ask`, but the connection to the engine is closed when the answer is not whole after so many seconds (None: as long as it takes).

    AnswerDeadlineError then, which is also the request's outcome; the wait for a place counts.
    """
    late = AnswerDeadlineError(
        f"The answer was not complete within {seconds or 0:g} s.", param="timeout", remedy="Give it more time."
    )
    try:
        async with asyncio.timeout(seconds) as time:
            return await ask(gateway, call, caller, why=lambda: late if time.expired() else None)
    except TimeoutError:
        raise late from None
