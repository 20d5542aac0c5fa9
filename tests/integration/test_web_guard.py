"""Every live route × Host × Origin × key, and the headers of every answer."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp import web

from tests.fixtures.webhouse import KEY, WebHouse
from web.openapi import template_path
from web.registry import FORM, PLAIN, REGISTRY, Policy, Route

LOCKED = {"api_key": KEY}
FOREIGN = "http://evil.example"
BEARER = {"Authorization": f"Bearer {KEY}"}
# It does what it says.
NOT_FOR_TRYING = {"/admin/shutdown"}


def live_routes(house: WebHouse) -> list[Route]:
    """The routes of the live router; one that came past the registry has no policy, which is a failure."""
    found = []
    for resource in house.web.app.router.routes():
        route = house.web.app[REGISTRY].get(resource)
        assert route is not None, f"{resource} has no policy"
        if resource.method == route.method:
            found.append(route)
    return found


def example(route: Route) -> str:
    """A path that leads to a route, and to nothing behind it."""
    return re.sub(r"\{\w+\}", "nobody", template_path(route.path))


def content(route: Route) -> dict[str, Any]:
    """A body of the right type, with nothing sensible in it."""
    if route.method == "GET":
        return {}
    kind = route.body.content_type if route.body is not None else "application/json"
    return {"data": {FORM: "next=/", PLAIN: "9"}.get(kind, "{}"), "headers": {"Content-Type": kind}}


async def call(house: WebHouse, route: Route, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Status and error of one call."""
    options = content(route)
    given = {**options.pop("headers", {}), **headers}
    async with house.http.request(
        route.method, example(route), headers=given, allow_redirects=False, **options
    ) as answer:
        is_error = answer.status >= 400 and answer.content_type == "application/json"
        return answer.status, (await answer.json())["error"] if is_error else {}


async def test_every_route_has_a_policy_and_documented_answers(web_house: WebHouse) -> None:
    await web_house.serve()
    routes = live_routes(web_house)
    assert len(routes) > 25
    for route in routes:
        assert route.policy in Policy
        assert route.responses, route.path
        assert route.summary, route.path
        assert route.description, route.path


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, "foreign_host"),
        ({"Host": "localhost.evil.example"}, "foreign_host"),
        ({"Host": "10.1.2.3:3000"}, "foreign_host"),
        ({"Host": "a b"}, "invalid_host"),
        ({"Origin": FOREIGN}, "foreign_origin"),
        ({"Origin": "null"}, "foreign_origin"),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, "foreign_origin"),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, "foreign_origin"),
    ],
    ids=str,
)
async def test_strangers_are_refused_on_every_route_even_with_the_key(
    web_house: WebHouse, headers: dict[str, str], code: str
) -> None:
    await web_house.serve(server=LOCKED)
    for route in live_routes(web_house):
        status, error = await call(web_house, route, {**BEARER, **headers})
        assert error.get("code") == code, (route.method, route.path, status)
        assert status == (400 if code == "invalid_host" else 403)


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Basic {KEY}", "Bearer", f"Bearer {KEY}x"])
async def test_without_the_key_only_open_routes_answer(web_house: WebHouse, authorization: str | None) -> None:
    await web_house.serve(server=LOCKED)
    headers = {} if authorization is None else {"Authorization": authorization}
    for route in live_routes(web_house):
        status, error = await call(web_house, route, headers)
        if route.policy is Policy.OPEN:
            assert error.get("code") != "invalid_api_key", route.path
        else:
            assert (status, error["code"]) == (401, "invalid_api_key"), route.path


async def test_with_the_key_every_route_answers(web_house: WebHouse) -> None:
    await web_house.serve(server=LOCKED)
    for route in live_routes(web_house):
        if route.path not in NOT_FOR_TRYING and route.path not in {"/events", "/login"}:
            status, _ = await call(web_house, route, BEARER)
            assert status not in {401, 403, 500}, (route.path, status)


async def test_on_loopback_without_a_key_everything_is_open(web_house: WebHouse) -> None:
    await web_house.serve()
    for route in live_routes(web_house):
        if route.path not in NOT_FOR_TRYING and route.path not in {"/events", "/login"}:
            status, _ = await call(web_house, route, {})
            assert status not in {401, 403, 500}, (route.path, status)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]", "LOCALHOST:3000", "my.name:80"])
async def test_own_names_are_welcome(web_house: WebHouse, host: str) -> None:
    await web_house.serve(server={"allowed_hosts": ["my.name"]})
    async with web_house.http.get("/livez", headers={"Host": host}) as answer:
        assert answer.status == 200


async def test_a_link_from_elsewhere_may_open_a_page(web_house: WebHouse) -> None:
    await web_house.serve()
    headers = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
        "Accept": "text/html",
    }
    async with web_house.http.get("/", headers=headers) as answer:
        assert answer.status == 200
    async with web_house.http.post("/admin/reload", headers=headers) as answer:
        assert answer.status == 403


async def test_its_own_pages_may_do_everything(web_house: WebHouse) -> None:
    await web_house.serve()
    headers = {"Origin": web_house.url, "Sec-Fetch-Site": "same-origin"}
    async with web_house.http.post("/admin/reload", headers=headers) as answer:
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_configured_origins_get_cors_and_only_they(web_house: WebHouse) -> None:
    await web_house.serve(server={"cors_origins": ["https://friend.example"]})
    asking = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    async with web_house.http.options("/v1/chat/completions", headers=asking) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    async with web_house.http.get("/health", headers={"Origin": "https://friend.example"}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
        assert answer.headers["Vary"] == "Origin"
    async with web_house.http.options("/v1/chat/completions", headers={**asking, "Origin": FOREIGN}) as answer:
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/health", "/", "/nope", "/socket.io/?EIO=4&transport=polling", "/static/nobody.js"])
async def test_every_answer_is_hardened(web_house: WebHouse, path: str) -> None:
    await web_house.serve()
    async with web_house.http.get(path) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Request-Id"].startswith("req_")
        assert "aiohttp" not in answer.headers["Server"]


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("", False)])
async def test_a_clients_request_id_is_kept_when_it_is_a_word(web_house: WebHouse, given: str, kept: bool) -> None:
    await web_house.serve()
    async with web_house.http.get("/livez", headers={"X-Request-Id": given}) as answer:
        assert (answer.headers["X-Request-Id"] == given) is kept


async def test_forwarded_headers_count_only_from_a_trusted_proxy(web_house: WebHouse) -> None:
    await web_house.serve(server={"api_key": KEY, "trusted_proxies": ["127.0.0.1"]})
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    async with web_house.http.post("/login", data={"key": KEY}, headers=headers, allow_redirects=False) as answer:
        assert "Secure" in answer.headers["Set-Cookie"]


async def test_forwarded_headers_are_ignored_otherwise(web_house: WebHouse) -> None:
    await web_house.serve(server={"api_key": KEY})
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    async with web_house.http.post("/login", data={"key": KEY}, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303
        assert "Secure" not in answer.headers["Set-Cookie"]


async def test_a_draining_server_takes_no_new_inference(web_house: WebHouse) -> None:
    await web_house.serve()
    web_house.supervisor.request_shutdown()
    async with web_house.http.post("/v1/chat/completions", json={"messages": []}) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "shutting_down"
        assert int(answer.headers["Retry-After"]) > 0
    async with web_house.http.get("/livez") as answer:
        assert answer.status == 200


def test_head_is_served_where_get_is() -> None:
    from web.registry import Registry, Reply, RouteTable

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response()

    table = RouteTable("Test")
    table.route("GET", "/x", summary="x", policy=Policy.OPEN, responses={200: Reply("x")})(handler)
    app = web.Application()
    Registry().add(app, table)
    assert {route.method for route in app.router.routes()} == {"GET", "HEAD"}
