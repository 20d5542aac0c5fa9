"""From a client's request to the call that is made of it: who calls, which headers the engine sees, which model the router chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web

from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.gateway.accounting.paying import payer, read_project
from supervisor.gateway.calls import REQUEST_ID as ID_HEADER
from supervisor.gateway.calls import Call
from supervisor.gateway.observing.trace_context import TRACEPARENT, TRACESTATE, passed_on
from supervisor.gateway.routing import rerouted
from web.keys import CALLER, REQUEST_ID, SUPERVISOR

ROUTE_HEADER = "X-Llamavisor-Route"


def caller_of(request: web.Request) -> Caller:
    """Who makes a request."""
    caller: Caller = request.get(CALLER, ANYONE)
    return caller


def payer_of(request: web.Request, document: Mapping[str, Any]) -> Caller:
    """Who makes a request, with the project that pays for it: the one that `document` names, where it may. Errors as `payer` and `read_project`."""
    return payer(caller_of(request), read_project(document), request.app[SUPERVISOR].office.bookkeeper.projects)


def engine_headers(request: web.Request) -> dict[str, str]:
    """What the engine gets to see of the client's headers; the key is not among it."""
    given = {"Accept": request.headers[hdrs.ACCEPT]} if hdrs.ACCEPT in request.headers else {}
    if TRACEPARENT in request.headers:
        given |= passed_on(request.headers[TRACEPARENT], request.headers.get(TRACESTATE))
    if request.headers.get(ID_HEADER) == request[REQUEST_ID]:
        given[ID_HEADER] = request[REQUEST_ID]
    return {**given, "Content-Type": "application/json"}


def call_of(
    request: web.Request,
    path: str,
    document: Mapping[str, Any],
    body: bytes | None = None,
    *,
    caller: Caller | None = None,
) -> tuple[Call, dict[str, str]]:
    """The call, and the headers that tell the client where it was sent if the router chose. `body` (left out: `document` written anew) goes to the
    engine as it came, unless the router chose. `caller`: who pays, where that is not simply who makes the request. For one call of a request: its
    record has the very id that a client is told which has given none."""
    headers = engine_headers(request)
    route = request.app[SUPERVISOR].router.route(document, caller or caller_of(request))
    if route is not None:
        document, body = rerouted(document, route), None
    reason = None if route is None else route.header
    if body is None:
        body = json.dumps(document).encode()
    own = None if ID_HEADER in headers else request[REQUEST_ID]
    call = Call(path, body, document, headers, route_reason=reason, id=own)
    return call, {} if reason is None else {ROUTE_HEADER: reason}
