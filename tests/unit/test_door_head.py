"""What the door takes for a plain request, aiohttp's parser must read the same: the same path, the same body, the same end (row 50)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from web.door.head import HEAD_END, PlainHead, plain_lines, read_plain

PATH = "/v1/chat/completions"
LINES = plain_lines([PATH, "/v1/embeddings"])
NEXT = b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n"
PLAIN = {"Host": "127.0.0.1:3000", "Content-Type": "application/json", "Content-Length": "2"}


def head(headers: dict[str, str] | None = None, *, line: str = f"POST {PATH} HTTP/1.1", more: str = "") -> bytes:
    """A head, with lines as given at its end."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (PLAIN if headers is None else headers).items())
    return f"{line}\r\n{lines}{more}\r\n".encode("latin-1")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is never run: aiohttp's parser wants one."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def by_aiohttp(data: bytes, loop: asyncio.AbstractEventLoop) -> list[tuple[Any, bytes]]:
    """The requests that aiohttp's server would see, with their bodies. HttpProcessingError for what it refuses."""
    parser = HttpRequestParser(
        BaseProtocol(loop),
        loop,
        2**16,
        max_line_size=8190,
        max_field_size=8190,
        payload_exception=web.RequestPayloadError,
    )
    messages, _, _ = parser.feed_data(data)
    return [(message, _body(payload)) for message, payload in messages]


def _body(payload: Any) -> bytes:
    return bytes(payload.read_nowait(-1)) if hasattr(payload, "read_nowait") else b""


def check_agrees(data: bytes, loop: asyncio.AbstractEventLoop) -> PlainHead | None:
    """If `data` is plain, aiohttp must read the same request and find the next one where we do."""
    end = data.find(HEAD_END) + len(HEAD_END)
    plain = read_plain(data[:end], LINES)
    if plain is None:
        return None
    body = b"x" * plain.length
    # After `Connection: close` aiohttp refuses more, and we close.
    (first, got), *rest = by_aiohttp(data[:end] + body + (NEXT if plain.keeps_alive else b""), loop)
    assert first.method == "POST"
    assert first.path == plain.path
    assert got == body
    assert first.should_close is not plain.keeps_alive
    assert {name.decode().lower(): value.decode("latin-1") for name, value in plain.headers.items()} == {
        name.lower(): value for name, value in first.headers.items()
    }
    assert [message.path for message, _ in rest] == (["/next"] if plain.keeps_alive else [])
    return plain


def test_a_plain_request_is_one(loop: asyncio.AbstractEventLoop) -> None:
    plain = check_agrees(head({**PLAIN, "Authorization": "Bearer k", "X-Stainless-Lang": "python"}), loop)
    assert plain is not None
    assert (plain.path, plain.length, plain.keeps_alive) == (PATH, 2, True)
    assert plain.get(b"authorization") == "Bearer k"


def test_a_client_may_close(loop: asyncio.AbstractEventLoop) -> None:
    plain = check_agrees(head({**PLAIN, "Connection": "Close"}), loop)
    assert plain is not None
    assert not plain.keeps_alive


@pytest.mark.parametrize(
    "more",
    [
        "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Transfer-Encoding : chunked\r\n", "Content-Length: 2\r\n",
        "Content-Length: 3\r\n", "Host: other\r\n", "Expect: 100-continue\r\n", "Upgrade: h2c\r\n", "Connection: upgrade\r\n",
        "Content-Encoding: gzip\r\n", "Origin: http://elsewhere\r\n", "Cookie: a=b\r\n", "Sec-Fetch-Site: cross-site\r\n",
        "Idempotency-Key: a\r\n", "X-Llamavisor-Resume: 10\r\n", " folded: line\r\n", "no colon\r\n", "na me: x\r\n", "x: a\x00b\r\n",
        "x: a\rb\r\n", "x: a\n\r\n", ": empty\r\n", "Content-Length: +2\r\n", "Content_Length: 3\r\nx: y\rTransfer-Encoding: chunked\r\n",
    ],
)  # fmt: skip
def test_what_is_not_certainly_plain_is_left_to_aiohttp(more: str) -> None:
    assert read_plain(head(more=more), LINES) is None


@pytest.mark.parametrize(
    "line",
    [
        f"GET {PATH} HTTP/1.1", f"POST {PATH} HTTP/1.0", f"POST {PATH}?a=b HTTP/1.1", f"POST {PATH}# HTTP/1.1", f"post {PATH} HTTP/1.1",
        f"POST http://a{PATH} HTTP/1.1", f"POST  {PATH} HTTP/1.1", f"POST {PATH}  HTTP/1.1", f"POST {PATH} HTTP/2.0", f"POST {PATH}",
        "POST /v1/models HTTP/1.1", f"POST {PATH}/ HTTP/1.1", f" POST {PATH} HTTP/1.1", f"\r\nPOST {PATH} HTTP/1.1",
    ],
)  # fmt: skip
def test_other_request_lines_are_left_to_aiohttp(line: str) -> None:
    assert read_plain(head(line=line), LINES) is None


@pytest.mark.parametrize("name", list(PLAIN))
def test_nothing_that_is_needed_may_be_missing(name: str) -> None:
    assert read_plain(head({key: value for key, value in PLAIN.items() if key != name}), LINES) is None


@pytest.mark.parametrize("length", ["", "-1", "0x2", "2 ", "1e1", "²", "2,2", "99999999999999999999999"])
def test_lengths_that_are_none(length: str, loop: asyncio.AbstractEventLoop) -> None:
    data = head({**PLAIN, "Content-Length": length})
    plain = read_plain(data, LINES)
    if plain is not None:
        assert length.strip() == "2"
        check_agrees(data, loop)


names = st.sampled_from(
    ["Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Accept", "X-A", "Expect", "content-length", "Te", "Trailer"]
)  # fmt: skip
values = st.one_of(
    st.sampled_from(
        [
            "2",
            "chunked",
            "close",
            "keep-alive",
            "application/json",
            "127.0.0.1",
            "100-continue",
            "identity, chunked",
            "",
            "\t2",
        ]
    ),
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=8),
)
separators = st.sampled_from([": ", ":", " : ", ":\t", ":  "])
line_ends = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n "])
extra_lines = st.lists(st.tuples(names, separators, values, line_ends).map("".join), max_size=4)


@given(extra_lines, st.permutations(list(PLAIN)))
def test_heads_of_every_kind_are_read_as_aiohttp_reads_them(more: list[str], order: list[str]) -> None:
    loop = asyncio.new_event_loop()
    try:
        check_agrees(head({name: PLAIN[name] for name in order}, more="".join(more)), loop)
    finally:
        loop.close()


@given(st.binary(max_size=60), st.integers(min_value=0, max_value=200))
def test_bytes_put_in_anywhere_change_nothing_unseen(noise: bytes, place: int) -> None:
    data = head()
    loop = asyncio.new_event_loop()
    try:
        check_agrees(data[: place % len(data)] + noise + data[place % len(data) :], loop)
    finally:
        loop.close()


def test_the_differential_check_can_fail(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(HttpProcessingError):
        by_aiohttp(head(more="Content-Length: 3\r\n"), loop)
