"""The server-sent event streams that are open, so that a shutdown can end them: they would hold it up for the whole of its grace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from web.calling import caller_of
from web.guard import GUARD
from web.keys import SUPERVISOR
from web.live.engine import bound_send_buffer

PING_INTERVAL_SECONDS = 15.0


class Closable(Protocol):
    """A subscription: `close` ends its iteration."""

    def close(self) -> None:
        """End it; idempotent."""


class Streams:
    """The subscriptions behind the streams that are open."""

    def __init__(self) -> None:
        self._open: set[Closable] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def holding(self, subscription: Closable) -> Iterator[None]:
        """Close `subscription` at the end of the block, or when everything ends."""
        self._open.add(subscription)
        if self._closed:
            subscription.close()
        try:
            yield
        finally:
            self._open.discard(subscription)
            subscription.close()

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for subscription in tuple(self._open):
            subscription.close()


STREAMS = web.AppKey("streams", Streams)


@asynccontextmanager
async def event_stream(request: web.Request, subscription: Closable) -> AsyncIterator[EventSourceResponse]:
    """A prepared stream that pings, and that is cut when the client leaves what was sent unread for `server.slow_reader_seconds`."""
    unread_seconds = request.app[SUPERVISOR].settings.server.slow_reader_seconds
    with request.app[STREAMS].holding(subscription):
        bound_send_buffer(request.transport)
        async with sse_response(request, send_timeout=unread_seconds, ping_interval=PING_INTERVAL_SECONDS) as stream:
            yield stream


def check_listener(request: web.Request) -> None:
    """Raise UnauthorizedError, which cuts the stream, when the key of who listens is not valid any more."""
    request.app[GUARD].keys.check(caller_of(request))
