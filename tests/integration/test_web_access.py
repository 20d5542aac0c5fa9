"""Every route and method of the live router × credential × Host and Origin, and every Socket.IO event × credential: one table says what is let in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import socketio
from aiohttp import web

from supervisor.storage.records import Scope
from tests.fixtures.webhouse import KEY, WebHouse
from web.openapi import template_path
from web.registry import FORM, PLAIN, REGISTRY, Policy, Route

LOCKED = {"api_key": KEY}
EVERYTHING = frozenset(Policy)
OPEN_ONLY = frozenset({Policy.OPEN})
# What they do is not for trying where they let one in.
NOT_FOR_TRYING = {"/admin/shutdown", "/events", "/login"}
NO_KEY, NO_SCOPE = (401, "invalid_api_key"), (403, "missing_scope")
READING = frozenset({Policy.OPEN, Policy.ANY, Policy.READ})
CALLING = frozenset({Policy.OPEN, Policy.ANY, Policy.INFERENCE})


@dataclass(frozen=True)
class Credential:
    """What a client shows: the policies of the routes that it opens, and how the others refuse it.

    `scopes`: those of a project's key, which it shows in a header, or has logged in with (`is_session`); `is_revoked`: that key has ended since.
    """

    name: str
    headers: Mapping[str, str] = field(default_factory=dict)
    opens: frozenset[Policy] = OPEN_ONLY
    refusal: tuple[int, str] = NO_KEY
    scopes: tuple[Scope, ...] = ()
    is_session: bool = False
    is_revoked: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Way:
    """How a request comes in: its Host, Origin and what a browser adds; None: no route minds."""

    headers: Mapping[str, str] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None


CREDENTIALS = (
    Credential("none"),
    Credential("wrong", {"Authorization": "Bearer wrong"}),
    Credential("longer", {"Authorization": f"Bearer {KEY}x"}),
    Credential("empty", {"Authorization": "Bearer"}),
    Credential("basic", {"Authorization": f"Basic {KEY}"}),
    Credential("cookie", {"Cookie": "llamavisor_session=made-up"}),
    Credential("key", {"Authorization": f"Bearer {KEY}"}, EVERYTHING),
    Credential("session", opens=EVERYTHING, is_session=True),
    Credential("inference-key", opens=CALLING, refusal=NO_SCOPE, scopes=(Scope.INFERENCE,)),
    Credential("read-key", opens=READING, refusal=NO_SCOPE, scopes=(Scope.READ,)),
    Credential("read-session", opens=READING, refusal=NO_SCOPE, scopes=(Scope.READ,), is_session=True),
    Credential("admin-session", opens=EVERYTHING, scopes=(Scope.ADMIN,), is_session=True),
    Credential("revoked-session", scopes=(Scope.ADMIN,), is_session=True, is_revoked=True),
)
FOREIGN_HOST, FOREIGN_ORIGIN = (403, "foreign_host"), (403, "foreign_origin")
WAYS = (
    Way(),
    Way({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}),
    Way({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}),
    Way({"Host": "evil.example"}, FOREIGN_HOST),
    Way({"Host": "localhost.evil.example"}, FOREIGN_HOST),
    Way({"Host": "10.1.2.3:3000"}, FOREIGN_HOST),
    Way({"Host": "a b"}, (400, "invalid_host")),
    Way({"Origin": "http://evil.example"}, FOREIGN_ORIGIN),
    Way({"Origin": "null"}, FOREIGN_ORIGIN),
    Way({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, FOREIGN_ORIGIN),
    Way({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, FOREIGN_ORIGIN),
)
# What a client may send over Socket.IO, and the policy of the route that does the same.
EVENTS = {
    "requestLlamaStatus": Policy.READ,
    "requestModels": Policy.READ,
    "requestMetrics": Policy.READ,
    "requestLogs": Policy.READ,
    "subscribe": Policy.READ,
    "startModel": Policy.ADMIN,
    "stopModel": Policy.ADMIN,
    "restartServer": Policy.ADMIN,
    "startLlamaServer": Policy.ADMIN,
}


def live_routes(app: web.Application) -> list[tuple[str, Route]]:
    """Method and route of everything in the live router, HEAD too; what came past the registry has no policy, which is a failure."""
    found = []
    for resource in app.router.routes():
        route = app[REGISTRY].get(resource)
        assert route is not None, f"{resource} has no policy"
        found.append((resource.method, route))
    return found


def expected(route: Route, credential: Credential, way: Way) -> tuple[int, str] | None:
    """How the guard refuses; None when it lets the request in. Strangers learn nothing about keys: the way is judged first."""
    if way.refusal is not None:
        return way.refusal
    return None if route.policy in credential.opens else credential.refusal


async def shown(house: WebHouse, credential: Credential) -> dict[str, str]:
    """The headers of a client with that credential."""
    if not credential.scopes:
        return await house.log_in(KEY) if credential.is_session else dict(credential.headers)
    key = await house.key(*credential.scopes)
    headers = await house.log_in(key.text) if credential.is_session else {"Authorization": f"Bearer {key.text}"}
    if credential.is_revoked:
        await house.supervisor.office.revoke_key(key.record.id)
    return headers


async def call(house: WebHouse, method: str, route: Route, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and error code of one call, with a body of the right type and nothing sensible in it. HEAD has no body that tells the code."""
    given = dict(headers)
    options: dict[str, Any] = {}
    if method not in {"GET", "HEAD"}:
        kind = route.body.content_type if route.body is not None else "application/json"
        options = {"data": {FORM: "next=/", PLAIN: "9"}.get(kind, "{}")}
        given["Content-Type"] = kind
    path = re.sub(r"\{\w+\}", "nobody", template_path(route.path))
    async with house.http.request(method, path, headers=given, allow_redirects=False, **options) as answer:
        if method == "HEAD" or answer.status < 400 or answer.content_type != "application/json":
            return answer.status, ""
        return answer.status, (await answer.json())["error"]["code"]


@pytest.mark.parametrize("credential", CREDENTIALS, ids=str)
async def test_routes(web_house: WebHouse, credential: Credential) -> None:
    await web_house.serve(server=LOCKED)
    headers = await shown(web_house, credential)
    routes = live_routes(web_house.web.app)
    assert {method for method, _ in routes} >= {"GET", "HEAD", "POST"}
    for method, route in routes:
        for way in WAYS:
            refusal = expected(route, credential, way)
            if refusal is None and route.path in NOT_FOR_TRYING:
                continue
            status, code = await call(web_house, method, route, {**headers, **way.headers})
            case = (method, route.path, way.headers, status, code)
            if refusal is None:
                assert status not in {401, 403, 500}, case
            else:
                assert (status, code or refusal[1]) == refusal, case


async def test_routes_on_loopback_without_a_key(web_house: WebHouse) -> None:
    await web_house.serve()
    for method, route in live_routes(web_house.web.app):
        if route.path not in NOT_FOR_TRYING:
            status, _ = await call(web_house, method, route, {})
            assert status not in {401, 403, 500}, (method, route.path, status)


async def test_every_route_has_a_policy_and_documented_answers(web_house: WebHouse) -> None:
    await web_house.serve()
    routes = live_routes(web_house.web.app)
    assert len(routes) > 40
    for _, route in routes:
        assert route.policy in Policy
        assert route.responses, route.path
        assert route.summary, route.path
        assert route.description, route.path


def test_every_policy_is_in_the_table() -> None:
    assert frozenset().union(*(credential.opens for credential in CREDENTIALS)) == EVERYTHING


async def test_every_event_is_in_the_table(web_house: WebHouse) -> None:
    await web_house.serve()
    assert EVENTS.keys() == set(web_house.live.namespace.events)


@pytest.mark.parametrize("credential", CREDENTIALS, ids=str)
async def test_events(web_house: WebHouse, credential: Credential) -> None:
    await web_house.serve(server=LOCKED)
    headers = await shown(web_house, credential)
    if Policy.READ not in credential.opens:
        with pytest.raises(socketio.exceptions.ConnectionError):
            await web_house.dashboard(headers=headers)
        return
    dashboard = await web_house.dashboard(headers=headers)
    for event, policy in EVENTS.items():
        answer = await dashboard.ask(event, {"modelId": "nobody", "instance": "nobody"})
        assert (answer.get("code") == NO_SCOPE[1]) is (policy not in credential.opens), (event, answer)
        assert answer.get("code") != "internal_error", (event, answer)


@pytest.mark.parametrize("event", EVENTS)
async def test_events_before_the_namespace_is_joined_are_not_heard(web_house: WebHouse, event: str) -> None:
    await web_house.serve(server=LOCKED)
    raw = web_house.raw()
    await raw.open()
    await raw.receive()
    raw.send(f'421["{event}",{{"modelId":"one"}}]'.encode())
    # What comes back for it is nothing: the next that is heard is the refusal of the namespace.
    raw.send(b"40")
    assert (await raw.receive()).startswith(b"44")
    assert web_house["one"].state.value == "initial"
