"""Reading the head of a request, if it is a plain one.

A plain request is a POST to an inference route as a program sends it: HTTP/1.1, one Host, a Content-Length, nothing of a browser's and nothing that
asks for more than an answer. Whatever is not certainly plain is left to aiohttp, so that this module need not be right about anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httptools

HEAD_END = b"\r\n\r\n"
# aiohttp's own limits: a head that breaks them is refused by it.
HEAD_LIMIT_BYTES = 8_190
JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
# Each of these asks for something that only the long way does, or says something about the framing that a Content-Length alone does not.
_NOT_PLAIN = frozenset(
    {
        b"content-encoding",
        b"cookie",
        b"expect",
        b"idempotency-key",
        b"origin",
        b"sec-fetch-site",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
    }
)
_OWN_PREFIX = b"x-llamavisor-"
_CONNECTIONS = {b"keep-alive": True, b"close": False}


@dataclass(slots=True)
class PlainHead:
    """The head of a plain request. `raw` are its bytes; `headers` by lower-case name, each given once; `length` that of the body, bytes."""

    raw: bytes
    path: str
    headers: dict[bytes, bytes]
    length: int
    keeps_alive: bool

    def get(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class _Reader:
    """What llhttp calls while it reads a head."""

    __slots__ = ("headers", "is_plain")

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.is_plain = True

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in self.headers or key in _NOT_PLAIN or key.startswith(_OWN_PREFIX):
            self.is_plain = False
        self.headers[key] = value


def plain_lines(paths: Iterable[str]) -> dict[bytes, str]:
    """The request lines of plain requests to `paths`, with the path of each."""
    return {f"POST {path} HTTP/1.1".encode("ascii"): path for path in paths}


def read_plain(head: bytes, lines: Mapping[bytes, str]) -> PlainHead | None:
    """The head (with its empty line) of a plain request with one of `lines`; None when it is anything else."""
    path = lines.get(head[: head.find(b"\r\n")])
    if path is None or not head.isascii():
        return None
    reader = _Reader()
    try:
        httptools.HttpRequestParser(reader).feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    headers = reader.headers
    length = headers.get(b"content-length", b"")
    keeps_alive = _CONNECTIONS.get(headers.get(b"connection", b"keep-alive").lower())
    has_what_it_needs = (
        length.isdigit() and b"host" in headers and headers.get(b"content-type", b"").lower() in JSON_TYPES
    )
    if not reader.is_plain or keeps_alive is None or not has_what_it_needs:
        return None
    return PlainHead(head, path, headers, int(length), keeps_alive)
