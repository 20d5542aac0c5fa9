"""One shape for errors, whoever raised them and wherever they are told: OpenAI's, which its SDKs map to exceptions (`contracts.md` §6). Pure."""

from __future__ import annotations

from typing import Any

from supervisor.errors import BudgetExceededError, LlamavisorError

SERVER_ERROR_STATUS = 500
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_type(status: int) -> str:
    """The `type` that goes with an HTTP status."""
    return "server_error" if status >= SERVER_ERROR_STATUS else _TYPES.get(status, "invalid_request_error")


def error_body(error: LlamavisorError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`, and `details` where there are some; of an answer, of an in-band error, of a batch's line.

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
