"""The listening sockets by themselves."""

from __future__ import annotations

import asyncio
import ssl

from tests.fixtures.nursery import GENEROUS_SECONDS
from web.listener import Listener


async def test_row_51_a_handshake_that_never_ends_has_a_deadline() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = Listener(asyncio.Protocol, tls=tls, handshake_seconds=lambda: 0.2)
    await listener.start("127.0.0.1", 0, 1)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    # The beginning of a ClientHello.
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    async with asyncio.timeout(GENEROUS_SECONDS):
        assert await reader.read() == b""
    writer.close()
    listener.close()
