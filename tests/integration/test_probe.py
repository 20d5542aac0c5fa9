"""The prober against real servers: good ones, and all that a bad one can do to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from supervisor.launch import Address, Canary, CounterSpec, ProbeSpec, Signature
from supervisor.process.liveness import Counters
from supervisor.process.probe import BODY_LIMIT_BYTES, SILENT, Health, Prober, read_samples

PATIENCE_SECONDS = 20.0
SHORT_SECONDS = 0.2
PAGE = """\
# HELP engine:tokens_total Tokens.
# TYPE engine:tokens_total counter
engine:tokens_total{model="a b{c}",le="+Inf"} 40
engine:tokens_total{model="other"} 2.0 1763650000000
engine:tokens_total_created 1.7e9
engine:prompts_total NaN
engine:running 1
engine:waiting 2
"""
SPEC = ProbeSpec(
    signature=Signature("/props", ("default_generation_settings",)),
    counters=CounterSpec(
        "/metrics", ("engine:tokens_total", "engine:prompts_total"), ("engine:running", "engine:waiting")
    ),
    canary=Canary("/v1/completions", '{"max_tokens": 1}'),
    slots_path="/slots",
)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(folder: Path, routes: dict[str, Handler]) -> AsyncIterator[Address]:
    """An aiohttp server on a Unix socket."""
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0)
    await runner.setup()
    socket_path = folder / "server.sock"
    await web.UnixSite(runner, str(socket_path)).start()
    try:
        yield Address(socket_path=socket_path)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[Address]:
    """A TCP server that says what `talk` says, HTTP or not."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Address(port=server.sockets[0].getsockname()[1])
    finally:
        server.close()


@asynccontextmanager
async def probing(address: Address, spec: ProbeSpec = SPEC) -> AsyncIterator[Prober]:
    prober = Prober(address, spec)
    try:
        yield prober
    finally:
        await prober.close()


async def health_of(talk: Talk, deadline_seconds: float = PATIENCE_SECONDS) -> Health:
    async with talking(talk) as address, probing(address) as prober:
        return await prober.health(deadline_seconds)


def answer(status: int = 200, body: str = "{}") -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="application/json")

    return handle


async def test_a_server_that_answers_is_ok(tmp_path: Path) -> None:
    async with serving(tmp_path, {"/health": answer()}) as address, probing(address) as prober:
        assert await prober.health(PATIENCE_SECONDS) == Health(ok=True, loading=False, detail="answers")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, '{"error":{"message":"Loading model","code":503}}', Health(False, True, "answers 503: Loading model")),
        (503, '{"status":"loading model"}', Health(False, True, "answers 503: loading model")),
        (503, "", Health(False, False, "answers 503")),
        (500, '{"error":"dead\\u0007\\n"}', Health(False, False, "answers 500: dead")),
        (404, "[]", Health(False, False, "answers 404")),
        (404, "[" * 100_000, Health(False, False, "answers 404")),
        (302, "", Health(False, False, "answers 302")),
        (204, "", Health(True, False, "answers")),
    ],
    ids=["loading", "loading, old", "plain", "control characters", "no object", "nested", "redirect", "no content"],
)
async def test_what_it_says_of_itself_is_told(tmp_path: Path, status: int, body: str, expected: Health) -> None:
    async with serving(tmp_path, {"/health": answer(status, body)}) as address, probing(address) as prober:
        assert await prober.health(PATIENCE_SECONDS) == expected


async def test_a_redirect_is_not_followed() -> None:
    asked: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    assert not (await health_of(redirect)).ok
    assert len(asked) == 1


async def test_nobody_there_is_told_in_words(tmp_path: Path) -> None:
    async with probing(Address(socket_path=tmp_path / "none.sock")) as prober:
        assert await prober.health(PATIENCE_SECONDS) == Health(
            False, False, "cannot connect: No such file or directory"
        )
        assert await prober.counters(PATIENCE_SECONDS) is None
        assert not await prober.canary(PATIENCE_SECONDS)


async def test_a_server_that_hangs_costs_its_deadline_and_no_more() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    assert await health_of(hang, SHORT_SECONDS) == Health(False, False, "no answer within 0.2 s")


async def test_a_server_that_trickles_a_byte_at_a_time_costs_its_deadline_and_no_more() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(SHORT_SECONDS / 20)

    assert await health_of(trickle, SHORT_SECONDS) == Health(False, False, "no answer within 0.2 s")


async def test_a_server_that_is_slow_within_its_deadline_is_ok() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        await reader.read()

    assert (await health_of(slow)).ok


async def test_an_answer_without_end_is_cut_off() -> None:
    sent_bytes = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent_bytes += 65_536

    health = await health_of(flood)
    assert health == Health(False, False, "its answer is larger than 4 MiB")
    assert sent_bytes < 8 * BODY_LIMIT_BYTES


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, b"\x16\x03\x01"])
async def test_what_is_no_http_is_not_ok(said: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    health = await health_of(speak)
    assert not health.ok
    assert health.detail


async def test_a_connection_that_the_server_dropped_between_two_probes_is_no_miss() -> None:
    connections = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
        # llama.cpp closes after the hundredth request, or after idling, just as the next probe may be on its way.
        await reader.readuntil(b"\r\n\r\n")

    async with talking(once) as address, probing(address) as prober:
        assert all([(await prober.health(PATIENCE_SECONDS)).ok for _ in range(6)])
    assert connections == 6


async def test_no_connection_is_kept_between_probes() -> None:
    """An engine may have a thread wait on each open connection, and llama.cpp's polls."""
    asked_to_close: list[bool] = []
    rest: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked_to_close.append(b"connection: close" in head.lower())
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
        rest.put_nowait(await reader.read())

    async with talking(keep) as address, probing(address) as prober:
        assert all([(await prober.health(PATIENCE_SECONDS)).ok for _ in range(5)])
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [await rest.get() for _ in range(5)] == [b""] * 5
    assert asked_to_close == [True] * 5


async def test_counters_are_summed_over_their_labels(tmp_path: Path) -> None:
    slots = answer(body='[{"is_processing": false}, {"is_processing": true}, {}, 7]')
    routes = {"/metrics": answer(body=PAGE), "/slots": slots}
    async with serving(tmp_path, routes) as address, probing(address) as prober:
        assert await prober.counters(PATIENCE_SECONDS) == Counters(advancing=42.0, busy=3.0, free_slots=1)


async def test_free_slots_are_unknown_where_they_are_not_served(tmp_path: Path) -> None:
    routes = {"/metrics": answer(body=PAGE), "/slots": answer(501, '{"error":{}}')}
    async with serving(tmp_path, routes) as address, probing(address) as prober:
        assert await prober.counters(PATIENCE_SECONDS) == Counters(advancing=42.0, busy=3.0, free_slots=None)


@pytest.mark.parametrize(
    ("status", "body"), [(501, PAGE), (401, ""), (200, "something else"), (200, "engine:running 1\n")]
)
async def test_a_server_without_the_counters_has_none(tmp_path: Path, status: int, body: str) -> None:
    async with serving(tmp_path, {"/metrics": answer(status, body)}) as address, probing(address) as prober:
        assert await prober.counters(PATIENCE_SECONDS) is None


async def test_a_page_of_counters_that_does_not_come_is_told_from_none() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(hang) as address, probing(address) as prober:
        assert await prober.counters(SHORT_SECONDS) == SILENT


@pytest.mark.parametrize(("status", "decodes"), [(200, True), (429, True), (401, True), (500, False), (503, False)])
async def test_a_canary_counts_unless_the_server_fails(tmp_path: Path, status: int, decodes: bool) -> None:
    bodies: list[str] = []

    async def complete(request: web.Request) -> web.Response:
        bodies.append(await request.text())
        return web.Response(status=status)

    async with serving(tmp_path, {"/v1/completions": complete}) as address, probing(address) as prober:
        assert await prober.canary(PATIENCE_SECONDS) is decodes
    assert bodies == ['{"max_tokens": 1}']


async def test_a_canary_that_does_not_come_back_convicts() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(hang) as address, probing(address) as prober:
        assert not await prober.canary(SHORT_SECONDS)


async def test_without_a_canary_nothing_convicts() -> None:
    async with probing(Address(port=1), ProbeSpec()) as prober:
        assert await prober.canary(SHORT_SECONDS)
        assert await prober.counters(SHORT_SECONDS) is None


@pytest.mark.parametrize(
    ("status", "body", "matches"),
    [
        (200, '{"default_generation_settings": {}, "more": 1}', True),
        (200, '{"version": "1"}', False),
        (200, '["default_generation_settings"]', False),
        (200, "<html>", False),
        (401, '{"default_generation_settings": {}}', False),
    ],
)
async def test_only_a_server_of_the_engine_bears_its_signature(
    tmp_path: Path, status: int, body: str, matches: bool
) -> None:
    async with serving(tmp_path, {"/props": answer(status, body)}) as address, probing(address) as prober:
        assert await prober.matches_signature(PATIENCE_SECONDS) is matches


async def test_without_a_signature_health_decides(tmp_path: Path) -> None:
    spec = replace(SPEC, signature=None)
    async with serving(tmp_path, {"/health": answer()}) as address, probing(address, spec) as prober:
        assert await prober.matches_signature(PATIENCE_SECONDS)


async def test_headers_and_prefix_are_sent_and_the_environments_proxy_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    asked: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}")
        asked.append(await reader.readuntil(b"\r\n\r\n"))

    async with talking(note) as address:
        spec = replace(SPEC, headers={"Authorization": "Bearer k"})
        async with probing(replace(address, prefix="/base"), spec) as prober:
            assert (await prober.health(PATIENCE_SECONDS)).ok
            await prober.health(PATIENCE_SECONDS)
    assert asked[0].startswith(b"GET /base/health HTTP/1.1\r\n")
    assert b"Authorization: Bearer k\r\n" in asked[0]
    assert b"Cookie" not in asked[1]


async def test_closing_is_idempotent_and_a_later_question_opens_anew(tmp_path: Path) -> None:
    async with serving(tmp_path, {"/health": answer()}) as address, probing(address) as prober:
        assert (await prober.health(PATIENCE_SECONDS)).ok
        await prober.close()
        await prober.close()
        assert (await prober.health(PATIENCE_SECONDS)).ok


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b"", {}),
        (b"a 1\na 2", {"a": 3.0}),
        (b'a{x="}"} 5', {"a": 5.0}),
        (b"a\na \na x\na +Inf", {}),
        (b"ab 1\n#a 1\n \xff", {}),
    ],
)
def test_pages_of_counters_that_are_odd(page: bytes, expected: dict[str, float]) -> None:
    assert read_samples(page, ["a"]) == expected
