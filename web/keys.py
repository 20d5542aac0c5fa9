"""Typed keys of what the application and each request carry."""

from __future__ import annotations

from aiohttp import web

from supervisor.core import Supervisor

SUPERVISOR = web.AppKey("supervisor", Supervisor)
REQUEST_ID = web.RequestKey("request_id", str)
