"""One wire shape for errors, whoever raised them: OpenAI's, which its SDKs map to exceptions (`contracts.md` §6)."""

from __future__ import annotations

import math
from typing import Any

from supervisor.errors import BudgetExceededError, LlamavisorError, RateLimitedError, RequestCancelledError

MILLISECONDS = 1_000
SERVER_ERROR_STATUS = 500
FINAL_UNLESS_TIMED = (429, 501, 503)
"""What OpenAI's SDKs would try again by themselves, though nothing says that it helps."""

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class TooManyRequestsError(LlamavisorError):
    """A limit of the web server was reached; `retry_after_seconds` says when to come back."""

    code, status = "too_many_requests", 429


class MethodNotAllowedError(LlamavisorError):
    """The path exists, the method does not."""

    code, status = "method_not_allowed", 405


class UnsupportedMediaTypeError(LlamavisorError):
    """The body is not of the content type that the route takes."""

    code, status = "unsupported_media_type", 415


def error_type(status: int) -> str:
    """The `type` that goes with an HTTP status."""
    return "server_error" if status >= SERVER_ERROR_STATUS else _TYPES.get(status, "invalid_request_error")


def error_body(error: LlamavisorError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`, and `details` where there are some; also the payload of an in-band error.

    An exhausted budget says so in `detail` beside it as well, where clients of the flat dialect look for it.
    """
    body: dict[str, Any] = {
        "message": str(error),
        "type": error_type(error.status),
        "param": error.param,
        "code": error.code,
    }
    if error.details:
        body["details"] = error.details
    return {"error": body, "detail": body["message"]} if isinstance(error, BudgetExceededError) else {"error": body}


def error_headers(error: LlamavisorError) -> dict[str, str]:
    """When trying again makes sense: `Retry-After` (whole seconds, rounded up), `retry-after-ms`, `x-should-retry`.

    What does not come back by itself (an instance that is stopped, a budget that is used up) or is not to come back (a request that was cancelled)
    says so, for OpenAI's SDKs would try again all the same. A limit that is reached says how far all of them are, as answers do.
    """
    standing = error.standing if isinstance(error, RateLimitedError) else {}
    seconds = error.retry_after_seconds
    if seconds is None:
        is_final = error.status in FINAL_UNLESS_TIMED or isinstance(error, RequestCancelledError)
        return {"x-should-retry": "false"} if is_final else {}
    return {
        **standing,
        "Retry-After": str(max(1, math.ceil(seconds))),
        "retry-after-ms": str(int(seconds * MILLISECONDS)),
        "x-should-retry": "true",
    }
