"""The connections to the engines.

Streams get a connection of their own, with `Connection: close`: llama.cpp closes it after each streamed answer while saying that it will not, and who
pools it loses one stream in ten. Other requests share kept connections. A POST is never sent twice once a byte of it was written.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

from supervisor.errors import NotAvailableError
from supervisor.gateway.connection import Connection, Receiver
from supervisor.launch import LaunchSpec
from supervisor.process.instance import Instance

CONNECT_SECONDS = 5.0
# llama.cpp and uvicorn close a connection that was idle for 5 s; we let go of it before that.
KEEP_ALIVE_SECONDS = 4.0


class CannotConnectError(ConnectionError):
    """The engine did not take the connection; nothing was sent."""


class Upstream:
    """The connections to one generation of one instance."""

    def __init__(self, instance: Instance, spec: LaunchSpec) -> None:
        self.instance = instance
        self.generation = instance.generation
        self.spec = spec
        self._loop = asyncio.get_running_loop()
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._heads: dict[str, bytes] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_retired = False

    def serves(self, instance: Instance) -> bool:
        """Whether these are connections to the present generation of `instance`."""
        return self.instance is instance and self.generation == instance.generation

    @property
    def kept_count(self) -> int:
        """Connections that wait for a request."""
        return len(self._free)

    def send_at_once(
        self, receiver: Receiver, path: str, body: bytes, headers: Mapping[str, str], *, alone: bool
    ) -> Connection | None:
        """Send a request on a kept connection; None when there is none, or when it is to be `alone` on its own."""
        connection = None if alone else self._kept()
        if connection is not None:
            connection.send(receiver, self._request(path, body, headers, alone=False), alone=False)
        return connection

    async def send(
        self, receiver: Receiver, path: str, body: bytes, headers: Mapping[str, str], *, alone: bool
    ) -> Connection:
        """Send a request; the receiver gets the answer as it comes. CannotConnectError when the engine takes no connection.

        The caller aborts the connection when it no longer wants the answer.
        """
        connection = await self._connect()
        connection.send(receiver, self._request(path, body, headers, alone=alone), alone=alone)
        return connection

    def retire(self) -> None:
        """The generation is over: keep no connection; those in use end with their answers."""
        self._is_retired = True
        for connection in tuple(self._free):
            connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def close(self) -> None:
        """Close every connection, whoever uses it."""
        self.retire()
        for connection in tuple(self._all):
            connection.abort()

    # Keeper

    def keep(self, connection: Connection) -> None:
        """See `connection.Keeper`."""
        if self._is_retired:
            connection.abort()
            return
        self._free.append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(KEEP_ALIVE_SECONDS, self._sweep)

    def forget(self, connection: Connection) -> None:
        """See `connection.Keeper`."""
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)

    def _sweep(self) -> None:
        self._sweeping = None
        late = self._loop.time() - KEEP_ALIVE_SECONDS
        for connection in [each for each in self._free if each.freed_at <= late]:
            self._free.remove(connection)
            connection.abort()
        if self._free:
            first = min(each.freed_at for each in self._free)
            self._sweeping = self._loop.call_at(first + KEEP_ALIVE_SECONDS, self._sweep)

    def _kept(self) -> Connection | None:
        late = self._loop.time() - KEEP_ALIVE_SECONDS
        while self._free:
            connection = self._free.pop()
            if connection.is_open and connection.freed_at > late:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        address, connection = self.spec.address, Connection(self, self._loop)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if address.socket_path is not None:
                    await self._loop.create_unix_connection(lambda: connection, str(address.socket_path))
                else:
                    tls = ssl.create_default_context() if address.https else None
                    await self._loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
        except OSError as error:
            raise CannotConnectError(str(error)) from error
        self._all.add(connection)
        return connection

    def _request(self, path: str, body: bytes, headers: Mapping[str, str], *, alone: bool) -> bytes:
        own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        closing = "Connection: close\r\n" if alone else ""
        rest = f"{own}{closing}Content-Length: {len(body)}\r\n\r\n"
        return b"".join((self._head(path), rest.encode("latin-1"), body))

    def _head(self, path: str) -> bytes:
        head = self._heads.get(path)
        if head is None:
            address = self.spec.address
            authority = address.base_url.removesuffix(address.prefix).partition("://")[2]
            fixed = {"Host": authority, "Accept-Encoding": "identity", **self.spec.probe.headers}
            lines = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
            head = self._heads[path] = f"POST {address.prefix}{path} HTTP/1.1\r\n{lines}".encode("latin-1")
        return head


class Upstreams:
    """The connections to every instance."""

    def __init__(self) -> None:
        self._present: dict[str, Upstream] = {}

    def to(self, instance: Instance) -> Upstream:
        """The connections to the present generation of a ready instance. NotAvailableError when it has no server."""
        present = self._present.get(instance.name)
        if present is not None and present.serves(instance):
            return present
        spec = instance.watch.spec if instance.watch is not None else None
        if spec is None:
            raise NotAvailableError(f"{instance.name} has no server yet.", retry_after_seconds=1.0)
        if present is not None:
            present.retire()
        self._present[instance.name] = fresh = Upstream(instance, spec)
        return fresh

    def close(self) -> None:
        """Close every connection, whoever uses it."""
        present, self._present = self._present, {}
        for upstream in present.values():
            upstream.close()
