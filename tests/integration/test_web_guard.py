"""What the guard lets in beside the table of `test_web_access.py`, and the headers of every answer."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.fixtures.webhouse import KEY, WebHouse
from web.registry import Policy, Registry, Reply, RouteTable

FOREIGN = "http://evil.example"


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
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response()

    table = RouteTable("Test")
    table.route("GET", "/x", summary="x", policy=Policy.OPEN, responses={200: Reply("x")})(handler)
    app = web.Application()
    Registry().add(app, table)
    assert {route.method for route in app.router.routes()} == {"GET", "HEAD"}
