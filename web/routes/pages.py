"""The pages, the login, and the files they load."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

import aiohttp_jinja2
from aiohttp import web

from supervisor.core import Supervisor
from supervisor.errors import ForbiddenError, UnauthorizedError
from web import views
from web.assets import REVALIDATE
from web.auth import SESSION_COOKIE
from web.bodies import read_body
from web.guard import GUARD
from web.identity import page_context
from web.keys import ASSETS, SUPERVISOR
from web.negotiation import prefers_html
from web.registry import FORM, HTML, Body, Parameter, Policy, Reply, RouteTable
from web.schemas import STRING, record, ref

routes = RouteTable("Pages")

LOGIN_BODY_LIMIT_BYTES = 4 * 1024
# A path on this server: `//host` and `/\host` would lead elsewhere.
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*\Z")
_PAGE = Reply("The page.", STRING, HTML)


@routes.route(
    "GET",
    "/",
    summary="The status page",
    policy=Policy.READ,
    responses={
        200: Reply("The page where HTML is wanted, else the whole picture.", ref("Picture"), others={HTML: STRING})
    },
)
async def status(request: web.Request) -> web.StreamResponse:
    """Rendered on the server, then live."""
    supervisor = request.app[SUPERVISOR]
    if not prefers_html(request.headers.get("Accept", "")):
        return web.json_response(views.picture(supervisor), headers={"Vary": "Accept"})
    context = {**views.picture(supervisor), "metrics": views.metrics_data(supervisor, None)}
    return render(request, "status.html", "status", context)


@routes.route("GET", "/chat", summary="The chat page", policy=Policy.READ, responses={200: _PAGE})
async def chat(request: web.Request) -> web.StreamResponse:
    """Talks to `POST /v1/chat/completions`."""
    supervisor = request.app[SUPERVISOR]
    models = [{"id": model["id"], "status": model["status"]} for model in views.models_data(supervisor)]
    return render(request, "chat.html", "chat", {"models": models, "default": default_model(supervisor)})


@routes.route("GET", "/login", summary="The login page", policy=Policy.OPEN, responses={200: _PAGE})
async def login_page(request: web.Request) -> web.StreamResponse:
    """Asks for the key."""
    return render(request, "login.html", "login", {"next": local_path(request.query.get("next")), "problem": None})


@routes.route(
    "POST",
    "/login",
    summary="Log a browser in",
    policy=Policy.OPEN,
    body=Body(record({"key": STRING, "next": STRING}, optional_keys=("next",)), content_type=FORM),
    responses={
        303: Reply("The key opens the pages: a session cookie, and on to `next`.", content_type=None),
        401: Reply("It is none, or not valid any more.", STRING, HTML),
        403: Reply("It has neither the scope `read` nor `admin`.", STRING, HTML),
    },
)
async def login(request: web.Request) -> web.StreamResponse:
    """The server's own key, or one with the scope `read` or `admin`. The cookie is HttpOnly and SameSite=Strict; it holds no key, may do what the key
    may, and ends with the key or the browser."""
    fields = dict(parse_qsl((await read_body(request, LOGIN_BODY_LIMIT_BYTES)).decode("utf-8", "replace")))
    keys = request.app[GUARD].keys
    target = local_path(fields.get("next"))
    try:
        session = keys.session(keys.log_in(fields.get("key", "")))
    except (UnauthorizedError, ForbiddenError) as error:
        context = {"next": target, "problem": error.message}
        return render(request, "login.html", "login", context, status=error.status)
    response = web.HTTPSeeOther(target)
    if session is not None:
        secure = request.app[GUARD].is_secure(request)
        response.set_cookie(SESSION_COOKIE, session, path="/", httponly=True, samesite="Strict", secure=secure)
    raise response


@routes.route(
    "POST",
    "/logout",
    summary="Log a browser out",
    policy=Policy.OPEN,
    body=Body(record({}), required=False, content_type=FORM),
    responses={303: Reply("The cookie is gone.", content_type=None)},
)
async def logout(request: web.Request) -> web.StreamResponse:
    """Takes the session cookie off the browser."""
    response = web.HTTPSeeOther("/login")
    response.del_cookie(SESSION_COOKIE, path="/")
    raise response


@routes.route(
    "GET",
    "/static/{name:.+}",
    summary="What the pages load",
    policy=Policy.OPEN,
    parameters=(
        Parameter("v", "The hash of the content, as `static_url` writes it: then it may be cached for ever.", STRING),
    ),
    responses={200: Reply("The file.", content_type=None), 404: Reply("There is none of that name.", ref("Error"))},
)
async def static_file(request: web.Request) -> web.StreamResponse:
    """Scripts, styles, licences of third parties."""
    assets, name = request.app[ASSETS], request.match_info["name"]
    path = assets.path(name)
    return web.FileResponse(path, headers={"Cache-Control": assets.cache_control(name, request.query.get("v"))})


@routes.route(
    "GET",
    "/favicon.ico",
    summary="The icon",
    policy=Policy.OPEN,
    responses={200: Reply("The logo as SVG.", content_type=None)},
)
async def icon(request: web.Request) -> web.StreamResponse:
    """For answers that cannot name their icon: browsers ask here then."""
    return web.FileResponse(request.app[ASSETS].path("icons/logo.svg"), headers={"Cache-Control": REVALIDATE})


def local_path(target: str | None) -> str:
    """`target` when it is a path on this server, else `/`."""
    return target if target is not None and _LOCAL_PATH.match(target) else "/"


def default_model(supervisor: Supervisor) -> str | None:
    """The first model of the default instance; its name while it serves none."""
    instances = supervisor.fleet.instances()
    if not instances:
        return None
    models = instances[0].models
    return str(models[0]["id"]) if models else instances[0].name


def render(
    request: web.Request, template: str, page: str, context: dict[str, Any], *, status: int = 200
) -> web.Response:
    """A page, with what every page says; `page` is its name in the navigation."""
    shared = {"page": page, **page_context(request)}
    response = aiohttp_jinja2.render_template(template, request, {**shared, **context}, status=status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept, Cookie"
    return response
