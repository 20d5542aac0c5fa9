"""Typed keys of what the application and each request carry."""

from __future__ import annotations

from aiohttp import web

from supervisor.core import Supervisor
from supervisor.gateway.accounting.callers import Caller
from web.assets import Assets

SUPERVISOR = web.AppKey("supervisor", Supervisor)
ASSETS = web.AppKey("assets", Assets)
REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
CLIENT_ADDRESS = web.RequestKey("client_address", str)
STARTED = web.RequestKey("started", bool)
