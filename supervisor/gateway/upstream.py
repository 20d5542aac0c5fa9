"""The connections to the engines.

Streams get a connection of their own, with `Connection: close`: llama.cpp closes it after each streamed answer while saying that it will not, and who
pools it loses one stream in ten. Other requests share kept connections. A POST is never sent twice once a byte of it was written; the one case that
is tried again is a kept connection that is found closed when the first byte is about to go out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from supervisor.errors import NotAvailableError
from supervisor.launch import LaunchSpec
from supervisor.process.instance import Instance

CONNECT_SECONDS = 5.0
# llama.cpp and uvicorn close a connection that was idle for 5 s; we let go of it before that.
KEEP_ALIVE_SECONDS = 4.0
# Who waits for a place waits here, not in the pool of connections.
UNLIMITED = 0
READ_BUFFER_BYTES = 2**16
_OWN_HEADERS = {"Accept-Encoding": "identity"}
_NO_HEADERS_OF_AIOHTTP = ("User-Agent", "Accept", "Content-Type")


class _Body(aiohttp.BytesPayload):
    """A request's body that knows whether its connection was already closed when the first byte (headers included) was to be written."""

    found_closed = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        transport = getattr(writer, "transport", None)
        if transport is None or transport.is_closing():
            self.found_closed = True
            raise ConnectionResetError("closed before anything was written")
        await super().write_with_length(writer, content_length)


class Upstream:
    """The connections to one generation of one instance."""

    def __init__(self, instance: Instance, spec: LaunchSpec) -> None:
        self.instance = instance
        self.generation = instance.generation
        self.spec = spec
        self.users = 0
        self.is_retired = False
        self._urls: dict[str, URL] = {}
        self._kept = self._session(force_close=False)
        self._single = self._session(force_close=True)

    def serves(self, instance: Instance) -> bool:
        """Whether these are connections to the present generation of `instance`."""
        return self.instance is instance and self.generation == instance.generation

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], *, alone: bool) -> aiohttp.ClientResponse:
        """Send a request and return its answer as soon as its head is there. `alone`: on a connection that is closed afterwards.

        aiohttp.ClientError or OSError when the connection is lost before that. The caller closes (or reads to the end) the answer.
        """
        try:
            return await self._post(path, _Body(body), headers, alone=alone)
        except _ClosedBeforeError:
            return await self._post(path, _Body(body), headers, alone=True)

    async def close(self) -> None:
        """Close every connection."""
        await self._kept.close()
        await self._single.close()

    async def _post(self, path: str, body: _Body, headers: Mapping[str, str], *, alone: bool) -> aiohttp.ClientResponse:
        session = self._single if alone else self._kept
        all_headers = {**_OWN_HEADERS, **headers, **self.spec.probe.headers}
        if alone:
            all_headers["Connection"] = "close"
        try:
            return await session.post(self._url(path), data=body, headers=all_headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            if body.found_closed and not alone:
                raise _ClosedBeforeError from error
            raise

    def _url(self, path: str) -> URL:
        if path not in self._urls:
            self._urls[path] = URL(self.spec.address.base_url + path, encoded=True)
        return self._urls[path]

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector(
                {"force_close": True} if force_close else {"keepalive_timeout": KEEP_ALIVE_SECONDS}
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            skip_auto_headers=_NO_HEADERS_OF_AIOHTTP,
            read_bufsize=READ_BUFFER_BYTES,
            trust_env=False,
        )

    def _connector(self, options: dict[str, Any]) -> aiohttp.BaseConnector:
        socket_path = self.spec.address.socket_path
        if socket_path is not None:
            return aiohttp.UnixConnector(str(socket_path), limit=UNLIMITED, **options)
        return aiohttp.TCPConnector(limit=UNLIMITED, **options)


class _ClosedBeforeError(Exception):
    """A kept connection turned out to be closed; nothing of the request was written."""


class Upstreams:
    """The connections to every instance. Those of a generation that is over are closed when the last request on them has ended."""

    def __init__(self) -> None:
        self._present: dict[str, Upstream] = {}

    @asynccontextmanager
    async def lend(self, instance: Instance) -> AsyncIterator[Upstream]:
        """The connections to the present generation of a ready instance."""
        upstream = await self._of(instance)
        upstream.users += 1
        try:
            yield upstream
        finally:
            upstream.users -= 1
            if upstream.is_retired and not upstream.users:
                await asyncio.shield(upstream.close())

    async def close(self) -> None:
        """Close every connection, whoever uses it."""
        present, self._present = self._present, {}
        for upstream in present.values():
            await upstream.close()

    async def _of(self, instance: Instance) -> Upstream:
        present = self._present.get(instance.name)
        if present is not None and present.serves(instance):
            return present
        spec = instance.watch.spec if instance.watch is not None else None
        if spec is None:
            raise NotAvailableError(f"{instance.name} has no server yet.", retry_after_seconds=1.0)
        self._present[instance.name] = fresh = Upstream(instance, spec)
        if present is not None:
            present.is_retired = True
            if not present.users:
                await present.close()
        return fresh
