"""Reading the head of a request, if it is a plain one.

A plain request is a POST to an inference route as a program sends it: HTTP/1.1, one Host, a Content-Length, nothing of a browser's and nothing that
asks for more than an answer. Whatever is not certainly plain is left to aiohttp, so that this module need not be right about anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    }
)
_OWN_PREFIX = b"x-llamavisor-"
_CONNECTIONS = {b"keep-alive": True, b"close": False}


@dataclass(slots=True)
class PlainHead:
    """The head of a plain request. `headers` by lower-case name, each given once; `length` that of the body, bytes."""

    path: str
    headers: dict[bytes, bytes]
    length: int
    keeps_alive: bool

    def get(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(slots=True)
class _Collector:
    url: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    has_twins: bool = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        self.has_twins |= key in self.headers
        self.headers[key] = value


def read_plain(head: bytes, paths: frozenset[bytes]) -> PlainHead | None:
    """The head (with its empty line) of a plain request to one of `paths`; None when it is anything else."""
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    headers = collector.headers
    length = headers.get(b"content-length", b"")
    connection = _CONNECTIONS.get(headers.get(b"connection", b"keep-alive").lower())
    is_plain = (
        collector.url in paths
        and parser.get_method() == b"POST"
        and parser.get_http_version() == "1.1"
        and not collector.has_twins
        and connection is not None
        and length.isdigit()
        and b"host" in headers
        and headers.get(b"content-type", b"").lower() in JSON_TYPES
        and _NOT_PLAIN.isdisjoint(headers)
        and not any(name.startswith(_OWN_PREFIX) for name in headers)
    )
    if not is_plain:
        return None
    return PlainHead(collector.url.decode("ascii"), headers, int(length), bool(connection))
