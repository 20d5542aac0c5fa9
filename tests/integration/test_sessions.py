"""Browsers that are logged in with the keys of projects: what they are shown, what they may do, and that their sessions end with the keys."""

from __future__ import annotations

import re
from contextlib import suppress

import aiohttp
import pytest
import socketio

from supervisor.gateway.accounting.keys import IssuedKey
from supervisor.storage.records import Scope
from tests.fixtures.nursery import until
from tests.fixtures.webhouse import KEY, EventReader, WebHouse

LOCKED = {"api_key": KEY}
PEOPLE = {"Accept": "text/html"}
CHANGES = ("data-action", 'data-open="key"', "data-revoke", "data-dialog", "data-limits", "strip-start")


@pytest.fixture
async def house(web_house: WebHouse) -> WebHouse:
    """A server that asks for a key."""
    await web_house.serve(server=LOCKED)
    return web_house


async def page(house: WebHouse, path: str, session: dict[str, str]) -> str:
    """What a person sees there."""
    async with house.http.get(path, headers={**PEOPLE, **session}, allow_redirects=False) as answer:
        assert answer.status == 200
        return await answer.text()


async def refused(house: WebHouse, key: str) -> tuple[int, str]:
    """The status and the words with which the login refuses a key."""
    async with house.http.post("/login", data={"key": key}, headers=PEOPLE, allow_redirects=False) as answer:
        assert "Set-Cookie" not in answer.headers
        told = re.search(r'id="login-problem" role="alert">(.*?)</p>', await answer.text())
        return answer.status, "" if told is None else told[1]


async def revoke(house: WebHouse, key: IssuedKey) -> None:
    """As an administrator does."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with house.http.delete(f"/admin/keys/{key.record.id}", headers=headers) as answer:
        assert answer.status == 200


async def third(reader: EventReader) -> dict[str, object]:
    """The event after the two that `/events` begins with."""
    for _ in range(2):
        await reader.next()
    return await reader.next()


async def test_who_may_read_sees_everything_and_is_offered_nothing_else(house: WebHouse) -> None:
    session = await house.log_in((await house.key(Scope.READ, label="<b>wall</b>")).text)
    for path in ("/", "/usage", "/requests", "/requests/in-flight", "/keys", "/docs"):
        text = await page(house, path, session)
        assert not [word for word in CHANGES if word in text], path
        if path != "/requests/in-flight":
            assert "&lt;b&gt;wall&lt;/b&gt;" in text, path
            assert "Log out" in text, path
    text = await page(house, "/chat", session)
    assert "lacks the scope <code>inference</code>" in text
    assert 'data-part="composer"' not in text
    assert "chat.js" not in text
    async with house.http.post("/admin/instances/one/start", json={}, headers=session) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (403, "missing_scope")


async def test_who_may_call_too_chats_and_changes_nothing(house: WebHouse) -> None:
    key = await house.key(Scope.READ, Scope.INFERENCE)
    text = await page(house, "/chat", await house.log_in(key.text))
    assert 'data-part="composer"' in text
    assert "strip-start" not in text
    assert f"key {key.record.id}" in text


async def test_an_administrator_is_offered_everything(house: WebHouse) -> None:
    session = await house.log_in((await house.key(Scope.ADMIN)).text)
    offered = "".join([await page(house, path, session) for path in ("/", "/chat", "/keys")])
    assert not [word for word in CHANGES if word not in offered]
    async with house.http.post("/admin/reload", json={}, headers=session) as answer:
        assert answer.status == 200
    assert "server key" in await page(house, "/", await house.log_in(KEY))


async def test_the_login_says_what_a_key_lacks_and_not_what_is_wrong_with_it(house: WebHouse) -> None:
    status, words = await refused(house, (await house.key(Scope.INFERENCE)).text)
    assert (status, words) == (403, "This key may not do that: it lacks the scope <code>read</code>.")
    ended = await house.key(Scope.ADMIN)
    await revoke(house, ended)
    for key in (ended.text, f"{ended.text}x", "wrong", KEY[:-1]):
        assert await refused(house, key) == (401, "Invalid or revoked API key.")
    assert await refused(house, "") == (401, "A key is needed.")


async def test_a_session_ends_with_its_key(house: WebHouse) -> None:
    key = await house.key(Scope.ADMIN)
    session = await house.log_in(key.text)
    await revoke(house, key)
    async with house.http.get("/admin/instances", headers=session) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (401, "invalid_api_key")
    async with house.http.get("/keys", headers={**PEOPLE, **session}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/login?next=/keys")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_connection_of_a_revoked_key_hears_nothing_more(house: WebHouse, transport: str) -> None:
    key, other = await house.key(Scope.READ), await house.key(Scope.READ)
    sessions = [await house.log_in(each.text) for each in (key, other)]
    ended, stays = [await house.dashboard(headers=session, transports=[transport]) for session in sessions]
    for each in (ended, stays):
        await each.hear("llamaStatus")
    await revoke(house, key)
    await house.supervisor.fleet.start("one")
    await until(lambda: "ready" in stays.statuses(), "the change to be told")
    await until(lambda: not ended.client.connected, "the end of the connection")
    assert ended.statuses() == ["initial"]
    assert len(house.live.fanout) == 1
    with pytest.raises(socketio.exceptions.ConnectionError):
        await house.dashboard(headers=sessions[0])


async def test_a_connection_of_a_revoked_key_asks_for_nothing_more(house: WebHouse) -> None:
    key = await house.key(Scope.ADMIN)
    dashboard = await house.dashboard(headers=await house.log_in(key.text))
    await revoke(house, key)
    with suppress(socketio.exceptions.SocketIOError):
        await dashboard.client.emit("startModel", {"modelId": "one"})
    await until(lambda: not dashboard.client.connected, "the end of the connection")
    assert house["one"].state.value == "initial"


@pytest.mark.parametrize("path", ["/events", "/admin/instances/one/logs?follow=1"])
async def test_a_stream_of_a_revoked_key_ends_before_the_next_event(house: WebHouse, path: str) -> None:
    key = await house.key(Scope.READ)
    async with house.http.get(path, headers=await house.log_in(key.text)) as response:
        assert response.status == 200
        await revoke(house, key)
        await house.supervisor.fleet.start("one")
        with pytest.raises(aiohttp.ClientPayloadError):
            await third(EventReader(response))
