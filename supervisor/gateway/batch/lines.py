"""The lines of batches: requests as they are read, answers as they are written. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from supervisor.errors import LlamavisorError
from supervisor.gateway.batch.objects import Fault
from supervisor.gateway.openai_errors import error_body

LINES_MAX = 50_000
LINE_BYTES_MAX = 32 * 1024**2
CUSTOM_ID_CHARACTERS_MAX = 512
TRIES_MAX = 3
RETRY_MAX_SECONDS = 30.0
OK = 200
FIRST_ERROR = 400
_FOR_THE_MOMENT = frozenset({429, 503})
_WORTH_ANOTHER_TRY = frozenset({429, 502, 503, 504})
_OUT_OF_MONEY = "insufficient_quota"


@dataclass(frozen=True, slots=True)
class Line:
    """One request. `number` is that of its line in the file, from 1."""

    number: int
    custom_id: str
    body: Mapping[str, Any]


class BadLineError(Exception):
    """A line that is no request; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request: an engine's answer, or an error in its shape. `retry_after_seconds`: when trying again makes sense.

    `cost_micros`: what it costs; None where its model has no price.
    """

    status: int
    request_id: str
    document: Mapping[str, Any]
    retry_after_seconds: float | None = None
    cost_micros: int | None = None

    @property
    def is_answer(self) -> bool:
        """It is what was asked for."""
        return self.status < FIRST_ERROR


def read_line(number: int, raw: bytes, endpoint: str) -> Line:
    """The request in a line. BadLineError for anything else."""
    if len(raw) > LINE_BYTES_MAX:
        raise BadLineError(Fault("line_too_long", f"The line exceeds {LINE_BYTES_MAX} bytes.", number))
    document = _object_in(number, raw)
    custom_id = document.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_CHARACTERS_MAX:
        message = f"`custom_id` must be text of 1 to {CUSTOM_ID_CHARACTERS_MAX} characters."
        raise BadLineError(Fault("invalid_custom_id", message, number, "custom_id"))
    if document.get("method") != "POST":
        raise BadLineError(Fault("invalid_method", "`method` must be POST.", number, "method"))
    if document.get("url") != endpoint:
        raise BadLineError(Fault("mismatched_url", f"`url` must be the batch's endpoint, {endpoint}.", number, "url"))
    body = document.get("body")
    if not isinstance(body, dict):
        raise BadLineError(Fault("invalid_body", "`body` must be an object.", number, "body"))
    return Line(number, custom_id, body)


def _object_in(number: int, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadLineError(Fault("invalid_json_line", f"The line is not JSON: {error}", number)) from None
    if not isinstance(document, dict):
        raise BadLineError(Fault("invalid_json_line", "The line is no JSON object.", number))
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def wait_seconds(reply: Reply, tries: int) -> float | None:
    """How long to wait until the request is sent again, after it was sent `tries` times; None when `reply` is what goes into the files.

    What is expected to be over comes back as often as it takes (the batch's window ends it); other failures of an engine get three tries.
    """
    seconds = pause_seconds(reply)
    if seconds is not None:
        return seconds
    is_transient = reply.status in _WORTH_ANOTHER_TRY and _code(reply) != _OUT_OF_MONEY
    if is_transient and tries < TRIES_MAX:
        return float(2 ** (tries - 1))
    return None


def pause_seconds(reply: Reply) -> float | None:
    """How long to wait until what stands in the way is expected to be over: a limit, a full line, a model that is not there. None: nothing did.

    Nothing was done for the request, so that sending it again is safe.
    """
    if reply.status in _FOR_THE_MOMENT and reply.retry_after_seconds is not None:
        return min(max(reply.retry_after_seconds, 0.1), RETRY_MAX_SECONDS)
    return None


def _code(reply: Reply) -> object:
    error = reply.document.get("error")
    return error.get("code") if isinstance(error, dict) else None


def failure(error: LlamavisorError, request_id: str) -> Reply:
    """An error of ours as the reply that it would be over HTTP."""
    return Reply(error.status, request_id, error_body(error), error.retry_after_seconds)


def result_id(batch_id: str, number: int) -> str:
    """The id of a line's result: the same however often the line was sent."""
    return f"batch_req_{batch_id.removeprefix('batch_')}_{number}"


def number_in(result: str) -> int:
    """The number of the line that a result belongs to. ValueError for what `result_id` did not make."""
    return int(result.rpartition("_")[2])


def answered(batch_id: str, line: Line, reply: Reply) -> bytes:
    """The line for the output or the error file."""
    response = {"status_code": reply.status, "request_id": reply.request_id, "body": reply.document}
    return _result(batch_id, line.number, line.custom_id, response, None)


def unanswered(batch_id: str, line: Line, code: str, message: str) -> bytes:
    """The line for the error file of a request that was not answered."""
    return _result(batch_id, line.number, line.custom_id, None, {"code": code, "message": message})


def _result(batch_id: str, number: int, custom_id: str, response: object, error: object) -> bytes:
    result = {"id": result_id(batch_id, number), "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(result, separators=(",", ":")).encode() + b"\n"
