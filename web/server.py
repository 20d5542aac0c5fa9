"""The web server as one part: it listens, and it stops."""

from __future__ import annotations

import ssl
from contextlib import suppress

from aiohttp import web

from supervisor.config.server_settings import ServerSettings, check_exposure
from supervisor.core import Supervisor
from web.app import create_app
from web.door.door import Door
from web.guard import GUARD
from web.listener import Listener
from web.live.limits import LiveLimits
from web.long_way import LongWay
from web.origins import bracketed

KEEPALIVE_SECONDS = 75.0
# How long the rest of a body that nobody wants is read, so that the client sees the refusal instead of a reset.
LINGER_SECONDS = 2.0
BACKLOG = 1_024
# Streams have had their grace in `Supervisor.drain`; what is left writes to clients that do not read.
CLOSING_SECONDS = 1.0


class WebServer:
    """The web application on `settings.host` and `settings.port` (0: any free one), with TLS where it is configured. `app` is the application."""

    def __init__(
        self, supervisor: Supervisor, settings: ServerSettings | None = None, *, limits: LiveLimits | None = None
    ) -> None:
        self._settings = settings or supervisor.settings.server
        self.app = create_app(supervisor, limits=limits)
        self._supervisor = supervisor
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self._listener: Listener | None = None

    async def start(self) -> None:
        """Listen. ConfigError when the address may not be exposed so, OSError when it cannot be had."""
        refusal = check_exposure(self._settings)
        if refusal is not None:
            raise refusal
        # A client that leaves cancels its request: without this its slot would burn on.
        self._runner = web.AppRunner(self.app, handler_cancellation=True, shutdown_timeout=CLOSING_SECONDS)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        long_way = LongWay(server, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS, lingering_time=LINGER_SECONDS)
        self._door = Door(self._supervisor, self.app[GUARD], long_way, KEEPALIVE_SECONDS)
        host, port = self._settings.host, self._settings.port
        try:
            self._listener = Listener(self._door, tls=self._tls(), handshake_seconds=self._handshake_seconds)
            await self._listener.start(host, port, BACKLOG)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the dashboards, let what is being answered finish within a moment, then cut it. Idempotent.

        Answers of engines have their own grace before this: `Supervisor.drain`.
        """
        runner, self._runner = self._runner, None
        if self._listener is not None:
            self._listener.close()
        if self._door is not None:
            self._door.close_idle()
        if runner is not None:
            with suppress(TimeoutError):
                await runner.cleanup()
        if self._door is not None:
            self._door.abort()

    @property
    def port(self) -> int:
        """The port that is listened on. RuntimeError before `start`."""
        if self._listener is None or not self._listener.sockets:
            raise RuntimeError("the server does not listen")
        return int(self._listener.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the server; no slash at the end."""
        scheme = "https" if self._settings.tls is not None else "http"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._settings.host, bracketed(self._settings.host))
        return f"{scheme}://{host}:{self.port}"

    def _handshake_seconds(self) -> float:
        return self._supervisor.settings.server.head_deadline_seconds

    def _tls(self) -> ssl.SSLContext | None:
        tls = self._settings.tls
        if tls is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.certificate, tls.key)
        return context
