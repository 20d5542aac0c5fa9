"""Chat in the flat dialect (`contracts.md` §4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from supervisor.errors import LlamavisorError
from supervisor.gateway.calls import CHAT
from supervisor.gateway.chat_answers import read_answer
from supervisor.gateway.costs import cost_number
from supervisor.gateway.deadline import ask_within
from supervisor.gateway.flat import flat_answer, read_request
from supervisor.gateway.losses import said
from supervisor.gateway.openai_errors import error_body
from web.calling import call_of, payer_of
from web.errors import error_headers
from web.keys import SUPERVISOR


async def answer_flat(request: web.Request, document: Mapping[str, Any]) -> web.Response:
    """The answer to a flat request. Errors are OpenAI's with their message as `detail` too, where this dialect's clients look for it."""
    try:
        return await _answer(request, document)
    except LlamavisorError as error:
        told = {"detail": str(error), **error_body(error)}
        return web.json_response(told, status=error.status, headers=error_headers(error))


async def _answer(request: web.Request, document: Mapping[str, Any]) -> web.Response:
    asked, caller = read_request(document), payer_of(request, document)
    call, headers = call_of(request, CHAT, asked.chat, caller=caller)
    answer = await ask_within(request.app[SUPERVISOR].gateway, call, caller, asked.timeout_seconds)
    if answer.status >= HTTPStatus.BAD_REQUEST:
        told = {"detail": said(answer.body).get("message"), **json.loads(answer.body)}
        body = json.dumps(told).encode()
        return web.Response(status=answer.status, body=body, headers={**answer.headers, **headers})
    chat = read_answer(answer.body)
    return web.json_response(flat_answer(chat, cost_number(answer.cost_micros), caller.project), headers=headers)
