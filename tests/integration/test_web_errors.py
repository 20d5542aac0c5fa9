"""Bad requests get the error that they deserve: status, code, and a message that names the field."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest

from supervisor.process.states import State
from tests.fixtures.house import misbehaving
from tests.fixtures.webhouse import WebHouse
from web.schemas import COMPONENTS

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
BODY_LIMIT_BYTES = 10_000


async def refusal(answer: Any) -> dict[str, Any]:
    """The error of an answer, in the one shape."""
    body = await answer.json()
    jsonschema.validate(body, COMPONENTS["Error"])
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code", "words"),
    [
        ("GET", "/nope", {}, 404, "not_found", "/nope"),
        ("PUT", "/admin/reload", {}, 405, "method_not_allowed", "POST"),
        ("GET", "/admin/instances/on", {}, 404, "instance_not_found", "`one`"),
        ("POST", "/admin/instances/on/start", {}, 404, "instance_not_found", "`one`"),
        ("POST", "/admin/instances/one/stop?kill=maybe", {}, 400, "invalid_request", "`kill`"),
        ("GET", "/admin/instances/one/logs?tail=-1", {}, 400, "invalid_request", "`tail`"),
        ("GET", "/admin/instances/one/logs?tail=1e3", {}, 400, "invalid_request", "`tail`"),
        ("GET", "/admin/instances/one/logs?tail=" + "9" * 5_000, {}, 400, "invalid_request", "`tail`"),
        ("GET", "/admin/instances/one/logs?follow=2", {}, 400, "invalid_request", "`follow`"),
        ("GET", "/events?instance=on", {}, 404, "instance_not_found", "`one`"),
        ("GET", "/static/../app.py", {}, 404, "not_found", ""),
        ("GET", "/static/%2e%2e/app.py", {}, 404, "not_found", ""),
        ("GET", "/static/..%2fapp.py", {}, 404, "not_found", "asset"),
        ("GET", "/static/.hidden", {}, 404, "not_found", "asset"),
        ("GET", "/static/icons", {}, 404, "not_found", "asset"),
        ("POST", CHAT, {"data": "x=1", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type", "application/json"),
        ("POST", CHAT, {"data": b"", "headers": JSON}, 400, "invalid_request", "empty"),
        ("POST", CHAT, {"data": b"{", "headers": JSON}, 400, "invalid_request", "line 1"),
        ("POST", CHAT, {"data": b"[]", "headers": JSON}, 400, "invalid_request", "array"),
        ("POST", CHAT, {"data": b'{"a": NaN}', "headers": JSON}, 400, "invalid_request", "NaN"),
        ("POST", CHAT, {"data": b'{"a": "\xff"}', "headers": JSON}, 400, "invalid_request", "0xff"),
        ("POST", CHAT, {"data": b"[" * 9_000, "headers": JSON}, 400, "invalid_request", "nests too deeply"),
        ("POST", CHAT, {"data": b'{"a": ' + b"9" * 5_000 + b"}", "headers": JSON}, 400, "invalid_request", "JSON"),
        ("POST", CHAT, {"data": b"x" * (BODY_LIMIT_BYTES + 1), "headers": JSON}, 413, "payload_too_large", "server.max_body_bytes"),
        ("POST", CHAT, {"data": b"{}", "headers": {**JSON, "Content-Encoding": "gzip"}}, 415, "unsupported_media_type", "Compressed"),
        ("POST", "/login", {"json": {"key": "x"}}, 415, "unsupported_media_type", "x-www-form-urlencoded"),
        ("POST", "/login", {"data": {"key": "x" * 5_000}}, 413, "payload_too_large", ""),
        ("POST", "/admin/reload", {"data": {"a": "b"}}, 415, "unsupported_media_type", "application/json"),
    ],
)  # fmt: skip
async def test_row_49_bad_requests(
    web_house: WebHouse, method: str, path: str, options: dict[str, Any], status: int, code: str, words: str
) -> None:
    await web_house.serve(server={"max_body_bytes": BODY_LIMIT_BYTES})
    async with web_house.http.request(method, path, **options) as answer:
        error = await refusal(answer)
        assert (answer.status, error["code"]) == (status, code)
        assert words in error["message"]
        if status == 405:
            assert answer.headers["Allow"] == "POST"


async def test_row_48_an_endless_body_is_refused_before_its_end(web_house: WebHouse) -> None:
    await web_house.serve(server={"max_body_bytes": BODY_LIMIT_BYTES})
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000
            yield b"x" * 1_000
            await asyncio.sleep(0)

    async with web_house.http.post(CHAT, data=endless(), headers=JSON) as answer:
        assert answer.status == 413
        assert (await refusal(answer))["code"] == "payload_too_large"
        assert answer.headers["Connection"] == "close"


async def test_row_48_a_body_that_is_announced_too_large_is_refused_unread(web_house: WebHouse) -> None:
    await web_house.serve(server={"max_body_bytes": BODY_LIMIT_BYTES})
    reader, writer = await asyncio.open_connection("127.0.0.1", web_house.web.port)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()
    await writer.wait_closed()


async def test_a_refused_transition_is_a_conflict_and_says_the_state(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model)})
    await web_house.reach("one", State.READY)
    async with web_house.http.post("/admin/instances/one/start") as answer:
        error = await refusal(answer)
        assert (answer.status, error["code"]) == (409, "state_conflict")
        assert error["details"]["state"] == "ready"


async def test_a_bad_file_on_reload_names_the_key_and_changes_nothing(web_house: WebHouse) -> None:
    await web_house.serve()
    (web_house.folder / "config.json").write_text(json.dumps({"server": {"prot": 1}}))
    async with web_house.http.post("/admin/reload") as answer:
        error = await refusal(answer)
        assert answer.status == 422
        assert "server.prot" in error["message"]
        assert error["details"]["problems"][0]["key"] == "server.prot"
    assert web_house.supervisor.fleet.names() == ["one"]


async def test_people_get_a_page_and_programs_the_shape(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.http.get("/nope", headers={"Accept": "text/html,*/*;q=0.8"}) as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")
        assert "/nope" in await answer.text()
    async with web_house.http.get("/v1/models/nope", headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.content_type) == (404, "application/json")


async def test_what_a_client_sends_is_never_markup_in_the_page(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.http.get("/<script>alert(1)</script>", headers={"Accept": "text/html"}) as answer:
        assert "<script>alert" not in await answer.text()


async def test_an_unexpected_failure_tells_its_id_and_nothing_else(
    web_house: WebHouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await web_house.serve()

    def broken() -> None:
        raise ValueError("a secret of the inside")

    monkeypatch.setattr(web_house.supervisor, "health", broken)
    async with web_house.http.get("/health", headers={"X-Request-Id": "find-me"}) as answer:
        error = await refusal(answer)
        assert (answer.status, error["code"]) == (500, "internal_error")
        assert "find-me" in error["message"]
        assert "secret" not in error["message"]
    assert "find-me" in caplog.text
    assert "a secret of the inside" in caplog.text
