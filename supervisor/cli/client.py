"""An HTTP client of the running server, for the commands."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Any, NoReturn

import aiohttp

from supervisor.cli.outcome import ConnectionLostError, NoServerError, RefusedError
from supervisor.cli.place import API_KEY_VARIABLE, ServerPlace
from supervisor.cli.sse import EventParser, ServerSentEvent

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
# The server pings a quiet stream every 15 s; four of them lost are a connection that is gone.
SILENCE_SECONDS = 60.0
ERROR_STATUS = 400
UNAUTHORIZED = 401

Query = Mapping[str, str | int]
Body = Mapping[str, Any]


class Client:
    """An asynchronous context manager around one connection pool.

    Raises NoServerError when nothing that is a Llamavisor answers, RefusedError when it answers with an error, ConnectionLostError when
    an answer ends in the middle.
    """

    def __init__(self, place: ServerPlace) -> None:
        self.place = place
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        headers = {"Accept": "application/json"}
        if self.place.api_key is not None:
            headers["Authorization"] = f"Bearer {self.place.api_key}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, query: Query | None = None) -> Any:
        """The JSON that a GET of `path` answers."""
        return await self._ask("GET", path, query)

    async def post(self, path: str, query: Query | None = None, *, body: Body | None = None) -> Any:
        """The JSON that a POST of `body` to `path` answers; None: without a body."""
        return await self._ask("POST", path, query, body)

    async def put(self, path: str, body: Body) -> Any:
        """The JSON that a PUT of `body` to `path` answers."""
        return await self._ask("PUT", path, None, body)

    async def patch(self, path: str, body: Body) -> Any:
        """The JSON that a PATCH of `body` to `path` answers."""
        return await self._ask("PATCH", path, None, body)

    async def delete(self, path: str, query: Query | None = None) -> Any:
        """The JSON that a DELETE of `path` answers."""
        return await self._ask("DELETE", path, query)

    async def follow(
        self, path: str, query: Query | None = None, *, last_event_id: str | None = None
    ) -> AsyncGenerator[ServerSentEvent]:
        """The events of `path` until the server ends the stream; the first that is yielded means that it is open."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        async for event in self._stream("GET", path, SILENCE_SECONDS, params=query, headers=headers):
            yield event

    async def stream(self, path: str, body: Body, headers: Mapping[str, str]) -> AsyncGenerator[ServerSentEvent]:
        """POST `body` as JSON and yield the events of the answer. Waits as long as the server does: reading a prompt can take minutes."""
        accepting = {"Accept": "text/event-stream", **headers}
        async for event in self._stream("POST", path, None, json=body, headers=accepting):
            yield event

    async def _ask(self, method: str, path: str, query: Query | None, body: Body | None = None) -> Any:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        try:
            async with self._request(method, path, params=query, json=body, timeout=timeout) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            self._give_up(error)
        return self._understood(response, answer)

    async def _stream(
        self, method: str, path: str, silence_seconds: float | None, **options: Any
    ) -> AsyncGenerator[ServerSentEvent]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        begun = False
        try:
            async with self._request(method, path, timeout=timeout, **options) as response:
                if response.status >= ERROR_STATUS or response.content_type != "text/event-stream":
                    self._understood(response, await response.read(), wanted="text/event-stream")
                begun, parser = True, EventParser()
                async for chunk in response.content.iter_any():
                    for event in parser.feed(chunk):
                        yield event
        except (aiohttp.ClientError, OSError) as error:
            if begun:
                raise ConnectionLostError(f"The connection to {self.place.url} was lost.") from error
            self._give_up(error)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        if self._session is None:
            raise RuntimeError("the client is used outside of its context")
        # A redirect would carry the key to wherever it points.
        return self._session.request(method, self.place.url + path, allow_redirects=False, **options)

    def _give_up(self, error: Exception) -> NoReturn:
        url = self.place.url
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            remedy = (
                "Name the server as its certificate does, with --url; SSL_CERT_FILE names an authority of your own."
            )
            raise NoServerError(f"The certificate of {url} is not to be trusted.", remedy=remedy) from error
        if isinstance(error, TimeoutError):
            raise NoServerError(
                f"No Llamavisor answers at {url} in time.", remedy="Look at the server's log."
            ) from error
        raise NoServerError(f"No Llamavisor answers at {url}.", remedy="Start it with `llamavisor serve`.") from error

    def _understood(self, response: aiohttp.ClientResponse, body: bytes, *, wanted: str = "application/json") -> Any:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if response.status >= ERROR_STATUS and isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise _refusal(response.status, answer["error"])
        if response.status >= ERROR_STATUS or answer is None or response.content_type != wanted:
            raise NoServerError(
                f"What answers at {self.place.url} is no Llamavisor (HTTP {response.status} to {response.url.path}).",
                remedy="Name the right address with --url or LLAMAVISOR_URL.",
            )
        return answer


def _refusal(status: int, error: Mapping[str, Any]) -> RefusedError:
    message = str(error.get("message") or f"The server refused with HTTP {status}.")
    remedy = f"Set {API_KEY_VARIABLE} to the key of the server." if status == UNAUTHORIZED else None
    return RefusedError(message, status=status, code=str(error.get("code") or "refused"), remedy=remedy)
