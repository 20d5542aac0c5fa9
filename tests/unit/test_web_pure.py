"""The pure parts of the web server: origins, negotiation, bodies, limits, frames, assets, state times."""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import (
    BudgetExceededError,
    ForbiddenError,
    MalformedRequestError,
    NotFoundError,
    RateLimitedError,
)
from supervisor.events import Event
from supervisor.gateway.openai_errors import error_body, error_type
from web.assets import IMMUTABLE, REVALIDATE, Assets
from web.bodies import parse_json_object
from web.errors import error_headers
from web.live.limits import LiveLimits, TokenBucket
from web.live.wire import StrictJson, event_frame, websocket_frame
from web.negotiation import prefers_html
from web.origins import FetchMetadata, OriginRules, client_address, is_same_origin
from web.routes.pages import local_path
from web.state_times import StateTimes
from web.views import history

RULES = OriginRules(frozenset({"localhost", "127.0.0.1", "[::1]"}), frozenset({"https://friend.example"}))


@pytest.mark.parametrize(
    ("hosts", "own", "known"),
    [
        (["localhost"], None, True),
        (["LocalHost:3000"], None, True),
        (["[::1]:80"], None, True),
        (["192.168.1.5:3000"], "192.168.1.5", True),
        (["[fe80::1]"], "fe80::1%eth0", True),
        (["192.168.1.6"], "192.168.1.5", False),
        (["evil.example"], "192.168.1.5", False),
        (["localhost."], None, False),
        (["localhost:99999999"], None, False),
        (["localhost@evil.example"], None, False),
        ([], None, False),
        (["localhost", "localhost"], None, False),
    ],
)
def test_known_hosts(hosts: list[str], own: str | None, known: bool) -> None:
    if known:
        assert RULES.check_host(hosts, own) == hosts[0].lower()
    else:
        with pytest.raises((ForbiddenError, MalformedRequestError)):
            RULES.check_host(hosts, own)


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:3000", "localhost:3000", True),
        ("https://name", "name", True),
        ("https://name", "name:443", True),
        ("http://name:80", "name", True),
        ("http://localhost:3001", "localhost:3000", False),
        ("http://localhost", "localhost:3000", False),
        ("null", "localhost", False),
        ("file://localhost", "localhost", False),
        ("http://localhost:x", "localhost", False),
        ("http://[::1]:3000", "[::1]:3000", True),
    ],
)
def test_same_origin(origin: str, host: str, same: bool) -> None:
    assert is_same_origin(origin, host) is same


def test_origins_that_are_let_in() -> None:
    RULES.check_origin("localhost", FetchMetadata("https://friend.example", "cross-site", False))
    RULES.check_origin("localhost", FetchMetadata(None, None, False))
    RULES.check_origin("localhost", FetchMetadata(None, "none", True))
    RULES.check_origin("localhost", FetchMetadata(None, "cross-site", True))
    for site in ("cross-site", "same-site", "anything-new"):
        with pytest.raises(ForbiddenError):
            RULES.check_origin("localhost", FetchMetadata(None, site, False))


def test_the_client_behind_proxies() -> None:
    trusted = [ipaddress.ip_network("10.0.0.0/8")]
    assert client_address("10.0.0.1", ["6.6.6.6, 203.0.113.7, 10.0.0.2"], trusted) == "203.0.113.7"
    assert client_address("10.0.0.1", [], trusted) == "10.0.0.1"
    assert client_address("203.0.113.9", ["1.2.3.4"], trusted) == "203.0.113.9"
    assert client_address("10.0.0.1", ["1.2.3.4"], []) == "10.0.0.1"
    assert client_address(None, [], trusted) == "unknown"


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("TEXT/HTML", True),
    ],
)
def test_who_wants_html(accept: str, html: bool) -> None:
    assert prefers_html(accept) is html


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_every_json_object_is_read(value: dict[str, Any]) -> None:
    assert parse_json_object(json.dumps(value).encode()) == value


@given(st.binary(max_size=64))
def test_any_other_body_is_refused_and_nothing_else_happens(body: bytes) -> None:
    with suppress(MalformedRequestError):
        assert isinstance(parse_json_object(body), dict)


def test_error_types_and_headers() -> None:
    assert [error_type(status) for status in (400, 401, 403, 404, 409, 422, 429, 500, 503)] == [
        "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "invalid_request_error",
        "invalid_request_error", "rate_limit_error", "server_error", "server_error",
    ]  # fmt: skip
    error = ForbiddenError("no", retry_after_seconds=1.2)
    assert error_headers(error).items() >= {"Retry-After": "2", "retry-after-ms": "1200"}.items()


def test_a_used_up_budget_is_not_to_be_tried_again_and_says_so_where_either_dialect_looks() -> None:
    error = BudgetExceededError("Budget exceeded: all of it.", details={"detail": "Budget exceeded"})
    assert error_headers(error) == {"x-should-retry": "false"}
    body = error_body(error)
    assert body["detail"] == body["error"]["message"] == "Budget exceeded: all of it."
    assert (body["error"]["code"], error.status) == ("insufficient_quota", 429)
    limited = RateLimitedError("Rate limit exceeded.", retry_after_seconds=2)
    assert error_headers(limited)["x-should-retry"] == "true"
    assert set(error_body(limited)) == {"error"}


def test_a_bucket_allows_bursts_and_refills() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.4)
    assert bucket.take(0.9)
    assert [bucket.take(1_000) for _ in range(4)] == [True, True, True, False]


def test_connections_by_address() -> None:
    limits = LiveLimits(connections_per_address=1, connections_from_loopback=2)
    assert [limits.connections_from(one) for one in ("127.0.0.1", "::1", "10.0.0.1", "unknown")] == [2, 2, 1, 1]


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_frames_are_as_the_standard_has_them(length: int) -> None:
    frame = websocket_frame("x" * length)
    assert frame[0] == 0x81
    head = {0: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[length]
    assert len(frame) == head + length
    declared = frame[1] if head == 2 else int.from_bytes(frame[2:head], "big")
    assert declared == length


def test_an_event_is_one_text_for_both_ways() -> None:
    frame = event_frame("llamaStatus", {"a": "é"}, ("llama_status", "one"))
    assert frame.data.endswith(frame.packet.encode().encode())
    assert frame.packet.encode() == '42["llamaStatus",{"a":"\\u00e9"}]'


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", "{", ""])
def test_what_socketio_reads_is_refused_as_it_expects(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        StrictJson.loads(text)


def test_assets_are_found_beneath_the_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "static"
    (folder / "chunks").mkdir(parents=True)
    (folder / "a.css").write_text("a")
    (folder / "chunks" / "b-HASH.js").write_text("b")
    (tmp_path / "secret").write_text("s")
    (folder / "link").symlink_to(tmp_path / "secret")
    assets = Assets(folder)
    assert assets.path("chunks/b-HASH.js").read_text() == "b"
    for name in (
        "../secret",
        "link",
        "",
        "/etc/passwd",
        "chunks",
        ".env",
        "a.css/",
        "a\x00.css",
        "chunks/../../secret",
    ):
        with pytest.raises(NotFoundError):
            assets.path(name)
    address = assets.url("a.css")
    version = address.partition("?v=")[2]
    assert assets.cache_control("a.css", version) == IMMUTABLE
    assert assets.cache_control("a.css", None) == REVALIDATE
    assert assets.cache_control("chunks/b-HASH.js", None) == IMMUTABLE
    assert assets.url("missing.js") == "/static/missing.js"
    (folder / "a.css").write_text("changed")
    assert assets.url("a.css") != address


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/chat?a=b", "/chat?a=b"),
        ("/", "/"),
        (None, "/"),
        ("//e", "/"),
        ("/\\e", "/"),
        ("e", "/"),
        ("/a b", "/"),
        ("/a\r\nX: y", "/"),
    ],
)
def test_local_paths(target: str | None, path: str) -> None:
    assert local_path(target) == path


STATE_SEQS = {"initial": 0, "starting": 1, "ready": 2, "crashed": 3}


def status_event(seq: int, status: str, reason: str | None = None, headline: str = "") -> Event:
    """A change of the instance `one`."""
    data = {"stateSeq": STATE_SEQS[status], "status": status, "reason": reason, "headline": headline or status}
    return Event("epoch", seq, "llama_status", "one", data, seq * 1_000)


def test_state_times_and_restarts() -> None:
    times = StateTimes()
    story = [
        ("initial", 0),
        ("starting", 1),
        ("starting", 2),
        ("ready", 4),
        ("crashed", 10),
        ("starting", 11),
        ("ready", 12),
    ]
    for seq, (status, now) in enumerate(story, start=1):
        times.observe(status_event(seq, status, "oom" if status == "crashed" else None), now)
    seconds = times.seconds(now=20)
    assert {state: value for (_, state), value in seconds.items() if value} == {
        "initial": 1, "starting": 4, "ready": 14, "crashed": 1,
    }  # fmt: skip
    assert dict(times.restarts) == {("one", "oom"): 1}
    assert dict(times.loads) == {"one": 2}
    for seq, kind in enumerate(("evicted", "unloaded", "evicted"), start=len(story) + 1):
        times.observe(Event("epoch", seq, kind, "one", {"reason": "memory"}, 0), 20)
    assert dict(times.unloads) == {("one", "evicted"): 2, ("one", "idle"): 1}
    times.observe(Event("epoch", 11, "instance_removed", "one", {}, 0), 21)
    assert times.seconds(22) == {}


def test_history_has_one_entry_a_state() -> None:
    events = [
        status_event(1, "starting"),
        status_event(2, "starting", headline="starting — loading, 50%"),
        status_event(3, "ready"),
        Event("epoch", 9, "llama_status", "one", {**status_event(9, "ready").data, "stateSeq": 5}, 9_000),
        Event("epoch", 10, "instance_removed", "one", {}, 0),
    ]
    assert history(events) == [
        {
            "stateSeq": 1,
            "status": "starting",
            "reason": None,
            "headline": "starting — loading, 50%",
            "timestamp": 1_000,
        },
        {"stateSeq": 2, "status": "ready", "reason": None, "headline": "ready", "timestamp": 3_000},
        {"stateSeq": 5, "status": "ready", "reason": None, "headline": "ready", "timestamp": 9_000},
    ]
