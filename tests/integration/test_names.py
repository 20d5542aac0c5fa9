"""One endpoint by all its names: who serves it, what stands in for it, what it costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest_asyncio

from supervisor.process.states import State
from tests.fixtures.door import HELLO, Door
from tests.fixtures.house import misbehaving

ENDPOINT: tuple[Mapping[str, Any], ...] = (*({"model": name} for name in ("chat", "gpt", "auto", "small")), {})
"""What the model of a request may be for it to mean the endpoint."""


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """The endpoint `chat`, which has two replicas and is the default, and `solo` behind it."""
    door = Door(tmp_path)
    replica = misbehaving(door.house.model, endpoint="chat")
    solo = misbehaving(door.house.model)
    await door.open(
        {"c1": {**replica, "aliases": ["gpt"]}, "c2": replica, "solo": solo},
        gateway={"queue_seconds": 0, "fallbacks": {"chat": ["solo"]}},
    )
    yield door
    await door.close()


async def who(door: Door, body: Mapping[str, Any]) -> tuple[int, str | None]:
    """The status, and the fallback that answered."""
    status, _, headers = await door.ask({**HELLO, **body})
    return status, headers.get("x-llamavisor-fallback", "").partition(";")[0]


async def stop(door: Door, name: str) -> None:
    """Stop an instance."""
    await door.house[name].stop()
    await door.house.reach(name, State.INITIAL)


async def test_every_name_of_an_endpoint_means_its_replicas_and_its_fallbacks(door: Door) -> None:
    await stop(door, "c1")
    assert {str(body): await who(door, body) for body in ENDPOINT} == {str(body): (200, "") for body in ENDPOINT}
    assert await who(door, {"model": "c1"}) == (503, "")
    assert door.outcomes("c2") == {"ok": len(ENDPOINT)}
    await stop(door, "c2")
    assert {str(body): await who(door, body) for body in ENDPOINT} == {str(body): (200, "solo") for body in ENDPOINT}
    assert await who(door, {"model": "c2"}) == (503, "")
