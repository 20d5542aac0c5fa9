"""The error tree: one error, three audiences.

::

    LlamavisorError                 500 internal_error
    ├── MalformedRequestError       400 invalid_request
    ├── UnauthorizedError           401 invalid_api_key
    ├── ForbiddenError              403 forbidden
    │   └── PriceUnknownError       403 price_unknown
    ├── NotFoundError               404 not_found
    │   ├── InstanceNotFoundError   404 instance_not_found
    │   └── ModelNotFoundError      404 model_not_found
    ├── StateConflictError          409 state_conflict
    ├── RequestCancelledError       409 cancelled
    ├── RequestTimeoutError         408 request_timeout
    ├── PayloadTooLargeError        413 payload_too_large
    ├── InvalidConfigurationError   422 invalid_configuration
    ├── RateLimitedError            429 rate_limit_exceeded
    ├── BudgetExceededError         429 insufficient_quota
    ├── SurfaceNotSupportedError    501 surface_not_supported
    ├── EngineDiedError             502 engine_died
    ├── NotAvailableError           503 not_available
    ├── EngineDeadlineError         504 engine_deadline
    └── DataFolderInUseError        the second supervisor on a data folder refuses

`message` is for the person, `code` for programs, `status` for HTTP. The renderer in `web/` need not know which part raised the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class LlamavisorError(Exception):
    """Every expected failure of Llamavisor.

    `code` is a stable machine code, `status` the HTTP status that a façade answers with, `param` the field at fault,
    `remedy` a sentence that says what to do, `retry_after_seconds` when trying again makes sense, `details` more for programs.
    """

    code: str = "internal_error"
    status: int = 500

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        remedy: str | None = None,
        retry_after_seconds: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.remedy = remedy
        self.retry_after_seconds = retry_after_seconds
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class MalformedRequestError(LlamavisorError):
    """The request cannot be understood; `param` names the field."""

    code, status = "invalid_request", 400


class UnauthorizedError(LlamavisorError):
    """No key, or not a valid one."""

    code, status = "invalid_api_key", 401


class ForbiddenError(LlamavisorError):
    """Understood and refused: a foreign Host, Origin or scope."""

    code, status = "forbidden", 403


class PriceUnknownError(ForbiddenError):
    """A budget in money cannot pay for a model without a price."""

    code = "price_unknown"


class NotFoundError(LlamavisorError):
    """Nothing of that name."""

    code, status = "not_found", 404


class InstanceNotFoundError(NotFoundError):
    """No instance of that name is configured."""

    code = "instance_not_found"


class ModelNotFoundError(NotFoundError):
    """No instance serves a model of that name."""

    code = "model_not_found"


class StateConflictError(LlamavisorError):
    """The state machine refuses this event in this state; `details["state"]` holds the state."""

    code, status = "state_conflict", 409


class RequestCancelledError(LlamavisorError):
    """Somebody who may do so ended the request before its answer was complete; it is not to be tried again."""

    code, status = "cancelled", 409


class RequestTimeoutError(LlamavisorError):
    """The client did not send its body within `server.body_deadline_seconds`."""

    code, status = "request_timeout", 408


class PayloadTooLargeError(LlamavisorError):
    """The body exceeds `server.max_body_bytes`."""

    code, status = "payload_too_large", 413


class InvalidConfigurationError(LlamavisorError):
    """The configuration is refused; the old one, if any, stays in force."""

    code, status = "invalid_configuration", 422


class RateLimitedError(LlamavisorError):
    """A limit of the key or of its project is reached; `retry_after_seconds` says when it lets the next request in.

    `standing`: OpenAI's `x-ratelimit-…` headers, where there are such limits.
    """

    code, status = "rate_limit_exceeded", 429
    standing: Mapping[str, str] = MappingProxyType({})


class BudgetExceededError(LlamavisorError):
    """What is left of a budget does not pay for the request; trying again does not help before `details["resets_at_ms"]`."""

    code, status = "insufficient_quota", 429


class SurfaceNotSupportedError(LlamavisorError):
    """The engine does not have this route, or not with the settings that it runs with; `remedy` says which have it."""

    code, status = "surface_not_supported", 501


class EngineDiedError(LlamavisorError):
    """The engine's process ended, or closed the connection, before its answer was complete."""

    code, status = "engine_died", 502


class NotAvailableError(LlamavisorError):
    """Not now: starting, stopping, crashed, draining. `retry_after_seconds` says when to come back."""

    code, status = "not_available", 503


class EngineDeadlineError(LlamavisorError):
    """The engine sent nothing within its deadline."""

    code, status = "engine_deadline", 504


class DataFolderInUseError(LlamavisorError):
    """Another supervisor holds the lock of this data folder; the message names it."""

    code, status = "data_folder_in_use", 409
