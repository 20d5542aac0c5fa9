"""What every request passes: an id, the guard, and one shape for whatever goes wrong."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import aiohttp_jinja2
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from supervisor.errors import (
    LlamavisorError,
    MalformedRequestError,
    NotAvailableError,
    NotFoundError,
    PayloadTooLargeError,
    UnauthorizedError,
)
from supervisor.gateway.calls import new_request_id
from supervisor.gateway.openai_errors import error_body
from web.dialects import error_response
from web.errors import MethodNotAllowedError, error_headers
from web.guard import Guard
from web.identity import page_context
from web.keys import REQUEST_ID, STARTED
from web.listener import RETRY_SECONDS, is_out_of_descriptors
from web.negotiation import prefers_html

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_STATUS_ERRORS: Mapping[int, type[LlamavisorError]] = {
    400: MalformedRequestError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    413: PayloadTooLargeError,
}


def middlewares(guard: Guard) -> list[Middleware]:
    """The chain, outermost first."""

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = request_id(request.headers.get("X-Request-Id"))
        try:
            return guard.check(request) or await handler(request)
        except LlamavisorError as error:
            return _answer(request, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _answer(request, _translated(request, error))
        except ConnectionError:
            raise
        except OSError as error:
            return _answer(request, _exhausted() if is_out_of_descriptors(error) else _logged(request))
        except Exception:
            return _answer(request, _logged(request))

    return [answer_errors]


def request_id(given: str | None) -> str:
    """The client's own id where it is a plain word, else a new one."""
    return given if given and _REQUEST_ID.match(given) else new_request_id()


def _answer(request: web.Request, error: LlamavisorError) -> web.StreamResponse:
    if request.get(STARTED):
        # The status is out already: only an unclean end can tell the client that this is not the whole answer.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(str(error)) from error
    wants_page = prefers_html(request.headers.get(hdrs.ACCEPT, "")) and not request.path.startswith("/v1/")
    if wants_page and isinstance(error, UnauthorizedError) and request.method == "GET":
        raise web.HTTPSeeOther(URL("/login").with_query(next=request.path_qs)) from None
    response = _error_page(request, error) if wants_page else error_response(request.path, error)
    if isinstance(error, UnauthorizedError):
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if isinstance(error, MethodNotAllowedError):
        response.headers[hdrs.ALLOW] = ", ".join(error.details["allow"])
    if isinstance(error, PayloadTooLargeError):
        response.force_close()
    return response


def _error_page(request: web.Request, error: LlamavisorError) -> web.Response:
    context = {
        **error_body(error),
        "status": error.status,
        "request_id": request[REQUEST_ID],
        "page": "error",
        **page_context(request),
    }
    response = aiohttp_jinja2.render_template("error.html", request, context, status=error.status)
    response.headers.update(error_headers(error))
    return response


def _translated(request: web.Request, error: web.HTTPException) -> LlamavisorError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = sorted(error.allowed_methods)
        return MethodNotAllowedError(
            f"{request.path} takes {', '.join(allow)}, not {error.method}.", details={"allow": allow}
        )
    if isinstance(error, web.HTTPNotFound):
        return NotFoundError(f"There is nothing at {request.path}.", remedy="See /docs for what there is.")
    kind = _STATUS_ERRORS.get(error.status)
    if kind is None:
        return _unexpected(request)
    return kind(error.text or error.reason)


def _exhausted() -> LlamavisorError:
    message = "The server has no file descriptors left."
    return NotAvailableError(message, code="out_of_descriptors", retry_after_seconds=RETRY_SECONDS)


def _logged(request: web.Request) -> LlamavisorError:
    logger.exception("Unexpected failure of %s %s [%s]", request.method, request.path, request[REQUEST_ID])
    return _unexpected(request)


def _unexpected(request: web.Request) -> LlamavisorError:
    return LlamavisorError(f"An unexpected failure; the server's log has it as {request[REQUEST_ID]}.")
