"""`Idempotency-Key`: a request that is sent again is answered as before, and its work is done once (`contracts.md` §6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from supervisor.gateway.flat import HEADER as DIALECT_HEADER
from supervisor.gateway.idempotency import Keeping, KeptAnswer, Scope
from web.bodies import read_body
from web.calling import caller_of
from web.keys import SUPERVISOR
from web.registry import Parameter, Reply
from web.schemas import STRING, ref

IDEMPOTENCY_KEY = "Idempotency-Key"
REPLAYED = "idempotent-replayed"
KEY_PARAMETER = Parameter(
    IDEMPOTENCY_KEY,
    "Names the request: sent again with the same body within 24 h, it is answered as before, with `idempotent-replayed: true`. "
    "Only good answers are kept, in memory.",
    STRING,
    location="header",
)
REPEATED = {
    409: Reply("A request with the same `Idempotency-Key` is being answered.", ref("Error")),
    422: Reply("The `Idempotency-Key` was given to another request.", ref("Error")),
}

Answers = Callable[[Keeping | None], Awaitable[web.StreamResponse]]
"""Answers a request, and keeps what it sends, where it is given where."""


async def answered_once(request: web.Request, answer: Answers, *parts: bytes) -> web.StreamResponse:
    """The answer to a request; where it has a key that was there before, the one before. `parts`, and its dialect, make it the same.

    Errors as `IdempotencyStore.begin`.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return await answer(None)
    caller = caller_of(request)
    dialect = request.headers.get(DIALECT_HEADER, "").strip().lower().encode()
    scope = Scope(caller.project, caller.key_id, request.path)
    begun = request.app[SUPERVISOR].idempotency.begin(scope, key, *parts, dialect)
    if isinstance(begun, KeptAnswer):
        return web.Response(status=begun.status, body=begun.body, headers={**begun.headers, REPLAYED: "true"})
    with begun as keeping:
        return await answer(keeping)


async def json_once(request: web.Request, answer: Callable[[bytes], Awaitable[object]]) -> web.StreamResponse:
    """The JSON that `answer` makes of the request's body, once for each key."""
    body = await read_body(request, request.app[SUPERVISOR].settings.server.max_body_bytes)

    async def respond(keeping: Keeping | None) -> web.StreamResponse:
        return kept(web.json_response(await answer(body)), keeping)

    return await answered_once(request, respond, body)


def kept(response: web.Response, keeping: Keeping | None) -> web.Response:
    """An answer in one piece, for when it is asked for again."""
    if keeping is not None and isinstance(response.body, bytes):
        keeping.add(response.body)
        keeping.complete(response.status, {**response.headers})
    return response
