"""Out of file descriptors: connections that cannot be taken are told so, one by one, by means of a descriptor kept in reserve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

from supervisor.process.reserve import OUT_OF_DESCRIPTORS, with_reserve

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5
LOG_INTERVAL_SECONDS = 60.0
REQUEST_BYTES = 65_536
_BODY = (
    b'{"error": {"message": "The server has no file descriptors left. Try again soon.", "type": "server_error", '
    b'"param": null, "code": "out_of_descriptors"}}'
)
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (RETRY_SECONDS, len(_BODY), _BODY)
)


class Overload:
    """Stands in for the loop's exception handler, which logs every connection that could not be taken and leaves it waiting.

    `speaks_tls`: the refusal cannot be worded, so that connections are only closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, speaks_tls: bool) -> None:
        self._loop = loop
        self._speaks_tls = speaks_tls
        self._before = loop.get_exception_handler()
        self._refused = 0
        self._logged_at = float("-inf")
        loop.set_exception_handler(self._handle)

    def close(self) -> None:
        """Give the loop its handler back."""
        self._loop.set_exception_handler(self._before)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        listening = context.get("socket")
        if is_out_of_descriptors(context.get("exception")) and listening is not None:
            self._refuse(listening.fileno())
        elif self._before is not None:
            self._before(loop, context)
        else:
            loop.default_exception_handler(context)

    def _refuse(self, descriptor: int) -> None:
        # The loop tries again in a second; until then nobody else looks at those who wait.
        listener = socket.socket(fileno=descriptor)
        try:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = with_reserve(listener.accept)
                    self._refused += 1
                    with contextlib.closing(connection):
                        self._tell(connection)
        finally:
            listener.detach()
            # The last connection was taken with the reserve and is closed again: keep its descriptor.
            with_reserve(bool)
        self._log()

    def _tell(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            if not self._speaks_tls:
                connection.send(REFUSAL)
            connection.shutdown(socket.SHUT_WR)
            # What is left unread would turn the end into a reset.
            connection.recv(REQUEST_BYTES)

    def _log(self) -> None:
        now = self._loop.time()
        if now - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._logged_at = now
            logger.error(
                "Out of file descriptors: %d connections refused so far. Raise the limit (`ulimit -n`).", self._refused
            )


def is_out_of_descriptors(error: object) -> bool:
    """Whether `error` says that this process, or the machine, has no descriptor left."""
    return isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS
