"""`/openapi.json` and its interactive page."""

from __future__ import annotations

from aiohttp import web

from web.keys import SUPERVISOR
from web.openapi import document
from web.registry import HTML, REGISTRY, Policy, Reply, RouteTable
from web.routes.pages import render
from web.schemas import STRING

routes = RouteTable("Documentation")


@routes.route(
    "GET",
    "/openapi.json",
    summary="This document",
    policy=Policy.READ,
    responses={200: Reply("OpenAPI 3.1 of every route of the server.", {"type": "object"})},
)
async def openapi(request: web.Request) -> web.Response:
    """Generated from the routes themselves."""
    return web.json_response(document(request.app[REGISTRY], request.app[SUPERVISOR].version))


@routes.route(
    "GET",
    "/docs",
    summary="The routes, to try out",
    policy=Policy.READ,
    responses={200: Reply("The page.", STRING, HTML)},
)
async def docs(request: web.Request) -> web.StreamResponse:
    """Its scripts come from this server."""
    return render(request, "docs.html", "docs", {})
