"""The errors of the web server itself, and what the headers of any error say (`contracts.md` §6)."""

from __future__ import annotations

import math

from supervisor.errors import LlamavisorError, RateLimitedError, RequestCancelledError

MILLISECONDS = 1_000
FINAL_UNLESS_TIMED = (429, 501, 503)
"""What OpenAI's SDKs would try again by themselves, though nothing says that it helps."""


class TooManyRequestsError(LlamavisorError):
    """A limit of the web server was reached; `retry_after_seconds` says when to come back."""

    code, status = "too_many_requests", 429


class MethodNotAllowedError(LlamavisorError):
    """The path exists, the method does not."""

    code, status = "method_not_allowed", 405


class UnsupportedMediaTypeError(LlamavisorError):
    """The body is not of the content type that the route takes."""

    code, status = "unsupported_media_type", 415


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
