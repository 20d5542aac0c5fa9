"""aiohttp's connections, and what is said of requests that its parser refuses.

Such a request has passed no check, and whoever reaches the port may send it, with a key in it: so of its bytes nothing is answered and nothing
logged, and a flood of them leaves one line a minute. aiohttp by itself logs each with a traceback that holds them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from supervisor.errors import MalformedRequestError
from supervisor.gateway.openai_errors import error_body
from web.guard import SECURITY_HEADERS
from web.listener import LOG_INTERVAL_SECONDS
from web.middlewares import request_id

logger = logging.getLogger(__name__)


class LongWay:
    """Makes the connections of `server`, with `options` of aiohttp's."""

    def __init__(self, server: web.Server, **options: Any) -> None:
        self._server = server
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._refused = 0
        self._logged_at = float("-inf")

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection."""
        return _Connection(self, self._server, self._loop, self._options)

    def note_malformed(self) -> None:
        """A request was refused; in the log there is one line a minute at most, with how many there were."""
        self._refused += 1
        now = self._loop.time()
        if now - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._logged_at = now
            logger.warning("Requests that are not valid HTTP are refused: %d so far.", self._refused)


class _Connection(web.RequestHandler):
    __slots__ = ("_way",)

    def __init__(
        self, way: LongWay, server: web.Server, loop: asyncio.AbstractEventLoop, options: dict[str, Any]
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._way = way

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See aiohttp. What the parser refused is answered here, since no middleware sees it."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        self._way.note_malformed()
        error = MalformedRequestError(
            "This is not a valid HTTP request: its head is malformed, ambiguous or too large."
        )
        headers = {**SECURITY_HEADERS, "X-Request-Id": request_id(None)}
        response = web.json_response(error_body(error), status=error.status, headers=headers)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """See aiohttp. It tells of a body that cannot be read, too, when the rest of it is read only to be dropped."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            self._way.note_malformed()
        else:
            super().log_exception(*args, **kw)
