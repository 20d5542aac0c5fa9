"""The listening sockets: takes connections, and out of file descriptors tells those that it cannot take so, one by one.

The loops' own servers leave such connections waiting, or close them without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from supervisor.process.reserve import OUT_OF_DESCRIPTORS, with_reserve

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5
LOG_INTERVAL_SECONDS = 60.0
REQUEST_BYTES = 65_536
# Connections that are taken before anybody else on the loop has a turn.
AT_ONCE = 128
_BODY = (
    b'{"error": {"message": "The server has no file descriptors left. Try again soon.", "type": "server_error", '
    b'"param": null, "code": "out_of_descriptors"}}'
)
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (RETRY_SECONDS, len(_BODY), _BODY)
)


class Listener:
    """Listens on `host` and `port` (0: any free one; the same for all addresses of the host) once `start` has returned.

    `make_protocol` makes the protocol of a connection. With `tls` a refusal cannot be worded, so that connections are only closed; a handshake that
    takes longer than `handshake_seconds` ends.
    """

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        handshake_seconds: Callable[[], float],
    ) -> None:
        self.sockets: list[socket.socket] = []
        self._make_protocol = make_protocol
        self._tls = tls
        self._handshake_seconds = handshake_seconds
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._logged_at = float("-inf")

    async def start(self, host: str, port: int, backlog: int) -> None:
        """Listen. OSError when the address cannot be had."""
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                self.sockets.append(_listening(family, (address[0], port, *address[2:]), backlog))
                port = self.sockets[-1].getsockname()[1]
        except OSError:
            self.close()
            raise
        for each in self.sockets:
            self._loop.add_reader(each, self._take_all, each)

    def close(self) -> None:
        """Take no more connections; idempotent. Those that were taken stay."""
        sockets, self.sockets = self.sockets, []
        for each in sockets:
            self._loop.remove_reader(each)
            each.close()
        for task in tuple(self._arriving):
            task.cancel()

    def _take_all(self, listening: socket.socket) -> None:
        try:
            for _ in range(AT_ONCE):
                self._take(listening.accept()[0])
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if not is_out_of_descriptors(error):
                raise
            self._refuse_all(listening)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection), name="connection")
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _connect(self, connection: socket.socket) -> None:
        seconds = None if self._tls is None else self._handshake_seconds()
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except OSError as error:
            # Of a handshake that fails, the client is told by TLS itself.
            logger.debug("A connection ended before it began: %s", error)
            connection.close()

    def _refuse_all(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = with_reserve(listening.accept)
                self._refused += 1
                with contextlib.closing(connection):
                    self._refuse(connection)
        # The last connection was taken with the reserve and is closed again: keep its descriptor.
        with_reserve(bool)
        self._log()

    def _refuse(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            if self._tls is None:
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


def _listening(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def is_out_of_descriptors(error: object) -> bool:
    """Whether `error` says that this process, or the machine, has no descriptor left."""
    return isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS
