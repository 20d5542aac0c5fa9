"""The composition of the web server: it only wires."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp_jinja2
import jinja2
from aiohttp import web

from supervisor.core import Supervisor
from web.assets import Assets
from web.chat_socket import CHAT_SOCKETS, ChatSockets
from web.guard import GUARD, Guard
from web.keys import ASSETS, SUPERVISOR
from web.live.limits import LiveLimits
from web.live.server import LiveServer
from web.middlewares import middlewares
from web.page_filters import FILTERS
from web.registry import REGISTRY, Registry
from web.routes import (
    account_pages,
    accounts,
    admin,
    batch,
    batches,
    docs,
    events,
    files,
    health,
    metrics,
    openai,
    organization,
    pages,
    resume,
    route,
    sockets,
    stream_socket,
    tokenizer,
    usage,
)
from web.state_times import StateTimesReader
from web.streams import STREAMS, Streams

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
TABLES = (
    health,
    admin,
    openai,
    resume,
    route,
    tokenizer,
    stream_socket,
    batch,
    files,
    batches,
    usage,
    organization,
    accounts,
    events,
    sockets,
    metrics,
    pages,
    account_pages,
    docs,
)


def create_app(supervisor: Supervisor, *, limits: LiveLimits | None = None) -> web.Application:
    """The whole web application over an open supervisor. `limits`: of live connections, for benchmarks and tests."""
    settings = supervisor.settings.server
    guard = Guard(settings, supervisor.office.bookkeeper.keyring, supervisor.folder.secret)
    app = web.Application(middlewares=middlewares(guard), client_max_size=settings.max_body_bytes)
    app[SUPERVISOR] = supervisor
    app[GUARD] = guard
    app[ASSETS] = Assets()
    app.on_response_prepare.append(guard.on_prepare)
    _add_templates(app)
    _add_live_parts(app, limits or LiveLimits(unread_seconds=settings.slow_reader_seconds))
    app[REGISTRY] = Registry()
    app[REGISTRY].add(app, *(module.routes for module in TABLES))
    return app


def _add_templates(app: web.Application) -> None:
    loader = jinja2.FileSystemLoader(TEMPLATES_FOLDER)
    environment = aiohttp_jinja2.setup(app, loader=loader, autoescape=True)
    environment.globals["static_url"] = app[ASSETS].url
    environment.filters.update(FILTERS)


def _add_live_parts(app: web.Application, limits: LiveLimits) -> None:
    supervisor = app[SUPERVISOR]
    live = LiveServer(supervisor, app[GUARD].keys, limits)
    states = StateTimesReader(supervisor.events, supervisor.clock)
    app[sockets.LIVE] = live
    app[CHAT_SOCKETS] = ChatSockets(limits)
    app[metrics.METRICS] = metrics.registry_of(metrics.SupervisorCollector(supervisor, states, live))
    app[STREAMS] = Streams()

    async def run(app: web.Application) -> AsyncIterator[None]:
        live.start()
        states.start()
        yield
        await states.close()

    async def end_streams(app: web.Application) -> None:
        # Dashboards would hold the server open for the whole of its grace.
        app[STREAMS].close()
        await live.close()

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(end_streams)
