"""The composition of the web server: it only wires."""

from __future__ import annotations

from aiohttp import web

from supervisor.core import Supervisor
from web.keys import SUPERVISOR
from web.registry import REGISTRY, Registry


def create_app(supervisor: Supervisor) -> web.Application:
    """The whole web application over an open supervisor."""
    app = web.Application()
    app[SUPERVISOR] = supervisor
    app[REGISTRY] = Registry()
    return app
