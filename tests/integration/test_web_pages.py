"""The pages, the login and the files they load."""

from __future__ import annotations

import re
import sqlite3

import pytest

from supervisor.gateway.accounting.callers import ANYONE
from supervisor.gateway.traffic import Outcome
from supervisor.process.states import State
from supervisor.storage.records import TokenSource, TokenUsage
from tests.fixtures.kept_books import keep, record
from tests.fixtures.nursery import GENEROUS_SECONDS
from tests.fixtures.webhouse import DEMO, KEY, WebHouse
from web.assets import STATIC_FOLDER

PEOPLE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "demo"),
        ("/chat", "demo"),
        ("/docs", "swagger-ui"),
        ("/login", "<form"),
        ("/keys", "default"),
        ("/usage", "Budgets"),
        ("/requests", "Served"),
        ("/requests/in-flight", "No request is on its way"),
    ],
)
async def test_pages_are_rendered_on_the_server(web_house: WebHouse, path: str, words: str) -> None:
    await web_house.serve({"demo": DEMO})
    await web_house.reach("demo", State.READY)
    async with web_house.http.get(path, headers=PEOPLE) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        text = await answer.text()
    assert words in text
    # The content security policy would refuse them (data blocks are no scripts).
    assert not re.search(
        r"<script(?![^>]*\b(?:src=|type=.application/json))[^>]*>\s*[^<\s]|\son\w+=|<style|\sstyle=", text
    )
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)


async def test_without_instances_the_pages_still_open(web_house: WebHouse) -> None:
    await web_house.serve({})
    for path in ("/", "/chat"):
        async with web_house.http.get(path, headers=PEOPLE) as answer:
            assert answer.status == 200


async def test_pages_say_that_the_books_cannot_be_read(web_house: WebHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.storage.database.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("supervisor.storage.writer.RETRY_SECONDS", 0.05)
    await web_house.serve()
    locker = sqlite3.connect(web_house.data_folder / "llamavisor.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    served = record(1, 1_000)
    assert served.settlement is not None
    web_house.supervisor.office.books.accept(served.request)
    web_house.supervisor.office.books.settle(served.settlement)
    monkeypatch.setattr("supervisor.storage.books.FLUSH_SECONDS", 0.2)
    for path in ("/keys", "/usage", "/requests", "/requests/any"):
        async with web_house.http.get(path, headers=PEOPLE) as answer:
            assert (answer.status, answer.content_type) == (503, "text/html"), path
            assert "The database does not answer." in await answer.text()
    async with web_house.http.get("/requests/in-flight", headers=PEOPLE) as answer:
        assert answer.status == 200
    locker.execute("ROLLBACK")
    locker.close()
    monkeypatch.setattr("supervisor.storage.books.FLUSH_SECONDS", GENEROUS_SECONDS)
    async with web_house.http.get("/requests", headers=PEOPLE) as answer:
        assert answer.status == 200
        assert served.request.id in await answer.text()
    async with web_house.http.get("/requests/any", headers=PEOPLE) as answer:
        assert answer.status == 404


async def test_what_has_no_price_is_not_told_as_free(web_house: WebHouse) -> None:
    await web_house.serve()
    bookkeeper = web_house.supervisor.office.bookkeeper
    for _ in range(2):
        bookkeeper.open(ANYONE, "demo", "chat").settle(Outcome.OK, TokenUsage(100, 50, 0, TokenSource.ENGINE))
    told = {each["name"]: each["month"] for each in (await web_house.json("/admin/projects"))["projects"]}
    assert told["default"]["unpriced_requests"] == 2
    assert (await web_house.json("/v1/usage"))["unpriced_requests"] == 2
    for path in ("/keys", "/usage"):
        async with web_house.http.get(path, headers=PEOPLE) as answer:
            text = await answer.text()
        assert '<span title="2 requests have no price">–</span>' in text, path
    keep(web_house.data_folder, [record(3, bookkeeper.now_ms())])
    async with web_house.http.get("/usage", headers=PEOPLE) as answer:
        assert "USD + ?" in await answer.text()


async def test_who_is_not_logged_in_is_led_to_the_login_and_back(web_house: WebHouse) -> None:
    await web_house.serve(server={"api_key": KEY})
    async with web_house.http.get("/chat?a=b", headers=PEOPLE, allow_redirects=False) as answer:
        assert answer.status == 303
        login = answer.headers["Location"]
        assert login == "/login?next=/chat?a%3Db"
    async with web_house.http.get(login, headers=PEOPLE) as answer:
        assert answer.status == 200
        assert KEY not in await answer.text()
    form = {"key": KEY, "next": "/chat?a=b"}
    async with web_house.http.post("/login", data=form, headers=PEOPLE, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/chat?a=b")
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert KEY not in cookie
    session = {"Cookie": cookie.partition(";")[0]}
    async with web_house.http.get("/chat", headers={**PEOPLE, **session}) as answer:
        assert answer.status == 200
    async with web_house.http.post("/admin/reload", headers=session) as answer:
        assert answer.status == 200
    async with web_house.http.post("/logout", headers=session, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/login")
        assert 'llamavisor_session=""' in answer.headers["Set-Cookie"]


async def test_a_wrong_key_is_told_on_the_login_page(web_house: WebHouse) -> None:
    await web_house.serve(server={"api_key": KEY})
    async with web_house.http.post("/login", data={"key": "wrong"}, headers=PEOPLE) as answer:
        assert (answer.status, answer.content_type) == (401, "text/html")
        assert "Set-Cookie" not in answer.headers
        assert "Invalid or revoked API key." in await answer.text()


async def test_a_session_of_another_key_is_none(web_house: WebHouse) -> None:
    await web_house.serve(server={"api_key": KEY})
    async with web_house.http.get("/admin/instances", headers={"Cookie": "llamavisor_session=" + "0" * 64}) as answer:
        assert answer.status == 401


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb", ""]
)
async def test_the_login_leads_nowhere_else(web_house: WebHouse, target: str) -> None:
    await web_house.serve(server={"api_key": KEY})
    async with web_house.http.post("/login", data={"key": KEY, "next": target}, allow_redirects=False) as answer:
        assert answer.headers["Location"] == "/"


@pytest.mark.skipif(not (STATIC_FOLDER / "base.css").is_file(), reason="the browser code is not built")
async def test_assets_are_cached_by_their_content(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.http.get("/chat", headers=PEOPLE) as answer:
        addresses = re.findall(r'"(/static/[^"#]+)', await answer.text())
    assert addresses
    for address in addresses:
        async with web_house.http.get(address) as answer:
            assert answer.status == 200, address
            assert "immutable" in answer.headers["Cache-Control"], address
    async with web_house.http.get("/static/base.css") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        validator = {"If-Modified-Since": answer.headers["Last-Modified"]}
    async with web_house.http.get("/static/base.css", headers=validator) as answer:
        assert answer.status == 304
    async with web_house.http.get("/static/base.css?v=000000000000") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
    async with web_house.http.get("/favicon.ico") as answer:
        assert (answer.status, answer.content_type) == (200, "image/svg+xml")
