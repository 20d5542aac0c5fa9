"""The declarative route registry: one decorator says all there is to know about a route, for the router, the guard and OpenAPI alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

Schema = Mapping[str, Any]
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
HTML = "text/html"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
PLAIN = "text/plain"


class Policy(StrEnum):
    """Who may call a route once a key is configured: nobody needs one (`open`), any key will do (`any`), or a key of that scope.

    Host, Origin and content type are checked on every route.
    """

    OPEN = "open"
    ANY = "any"
    READ = "read"
    ADMIN = "admin"
    INFERENCE = "inference"


@dataclass(frozen=True, slots=True)
class Reply:
    """One documented answer: what it means, and the schema of its body for each content type (None: no schema worth stating)."""

    description: str
    schema: Schema | None = None
    content_type: str | None = JSON
    others: Mapping[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query or the headers; those in the path are found by themselves."""

    name: str
    description: str
    schema: Schema
    location: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request. The guard refuses any other content type with 415."""

    schema: Schema
    description: str = ""
    required: bool = True
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the server, as it is routed, guarded and documented."""

    method: str
    path: str
    handler: Handler
    summary: str
    policy: Policy
    responses: Mapping[int, Reply]
    tag: str
    description: str
    body: Body | None = None
    parameters: Sequence[Parameter] = ()


class RouteTable:
    """The routes of one module, in order.

    >>> routes = RouteTable("Operations")
    >>> @routes.route("GET", "/livez", summary="Is the loop alive?", policy=Policy.OPEN, responses={200: Reply("It is.", content_type=PLAIN)})
    ... async def livez(request: web.Request) -> web.Response: ...
    """

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def route(
        self,
        method: str,
        path: str,
        *,
        summary: str,
        policy: Policy,
        responses: Mapping[int, Reply],
        body: Body | None = None,
        parameters: Sequence[Parameter] = (),
    ) -> Callable[[Handler], Handler]:
        """Register the decorated handler; its docstring is the description. Stack it to serve several paths."""

        def register(handler: Handler) -> Handler:
            description = (handler.__doc__ or "").strip()
            self._routes.append(
                Route(method, path, handler, summary, policy, responses, self.tag, description, body, parameters)
            )
            return handler

        return register


class Registry:
    """Every route of the application, by the router's own route object."""

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._by_resource: dict[web.AbstractRoute, Route] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def add(self, app: web.Application, *tables: RouteTable) -> None:
        """Put the tables' routes into the router; a GET route answers HEAD too."""
        for route in (route for table in tables for route in table):
            self._routes.append(route)
            methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
            for method in methods:
                self._by_resource[app.router.add_route(method, route.path, route.handler)] = route

    def of(self, request: web.Request) -> Route | None:
        """The route that answers `request`; None when nothing does (404, 405)."""
        return self.get(request.match_info.route)

    def get(self, resource: web.AbstractRoute) -> Route | None:
        """What is registered for a route object of the router; None for one that came past the registry."""
        return self._by_resource.get(resource)


REGISTRY = web.AppKey("registry", Registry)
