"""Answers as bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from supervisor.errors import LlamavisorError
from supervisor.gateway.openai_errors import error_body
from web.errors import error_headers
from web.guard import SECURITY_HEADERS

PROCESSING_MS = "openai-processing-ms"
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
LAST_CHUNK = b"0\r\n\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_FIXED = "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS.items())


class _Date:
    """The Date header, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = ""

    def line(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._line


_date = _Date()


def head(status: int, headers: Mapping[str, str], request_id: str, framing: str, *, closes: bool) -> bytes:
    """The head of an answer; `framing` is the line that says how long its body is."""
    own = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    closing = "Connection: close\r\n" if closes else ""
    line = f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n"
    return f"{line}{own}{_FIXED}X-Request-Id: {request_id}\r\n{_date.line()}{closing}{framing}\r\n\r\n".encode(
        "latin-1"
    )


def whole(status: int, headers: Mapping[str, str], body: bytes, request_id: str, *, closes: bool) -> bytes:
    """An answer in one piece."""
    return head(status, headers, request_id, f"Content-Length: {len(body)}", closes=closes) + body


def stream_head(status: int, headers: Mapping[str, str], request_id: str, *, closes: bool) -> bytes:
    """The head of a stream; `chunk`s follow, and LAST_CHUNK says that it was all."""
    return head(status, headers, request_id, "Transfer-Encoding: chunked", closes=closes)


def chunk(data: bytes) -> bytes:
    """A piece of a stream."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def refusal(error: LlamavisorError, request_id: str, *, closes: bool) -> bytes:
    """An error, as `web.errors.error_response` answers it."""
    headers = {"Content-Type": "application/json; charset=utf-8", **error_headers(error)}
    return whole(error.status, headers, json.dumps(error_body(error)).encode(), request_id, closes=closes)


def error_event(error: LlamavisorError) -> bytes:
    """An error in the middle of a stream, as an event of its own."""
    return f"data: {json.dumps(error_body(error))}\n\n".encode()
