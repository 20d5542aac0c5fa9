"""One endpoint by all its names: who serves it, what stands in for it, what it costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.config.accounting_settings import AccountingSettings
from supervisor.process.states import State
from supervisor.storage.accounts import Budget, BudgetUnit, Period
from supervisor.storage.records import Price, UsageRecord
from tests.fixtures.door import HELLO, Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.raw_engine import door_before

ENDPOINT: tuple[Mapping[str, Any], ...] = (*({"model": name} for name in ("chat", "gpt", "auto", "small")), {})
"""What the model of a request may be for it to mean the endpoint."""
PRICES = {"chat": {"input": "3", "output": "5"}, "model": {"input": "7", "output": "9"}}
"""Of the endpoint, and of the file that all instances serve."""


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """The endpoint `chat`, which has two replicas and is the default, and `solo` behind it."""
    door = Door(tmp_path)
    replica = misbehaving(door.house.model, endpoint="chat")
    solo = misbehaving(door.house.model)
    await door.open(
        {"c1": {**replica, "aliases": ["gpt"]}, "c2": replica, "solo": {**solo, "aliases": ["large"]}},
        gateway={"queue_seconds": 0, "fallbacks": {"chat": ["solo"]}},
        sections={"accounting": {"prices": PRICES}},
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


async def test_an_alias_that_is_called_like_a_tier_is_what_is_meant(door: Door) -> None:
    assert (await door.ask({**HELLO, "model": "large"}))[0] == 200
    assert door.outcomes("solo") == {"ok": 1}


async def test_every_name_of_an_endpoint_costs_the_same_and_is_one_in_the_books(door: Door) -> None:
    records: list[UsageRecord] = []
    door.house.supervisor.office.bookkeeper.on_settled.append(records.append)
    for body in (*ENDPOINT, {"model": "c1"}, {"model": "c2"}, {"model": "model"}, {"model": "solo"}):
        assert (await door.ask({**HELLO, **body}))[0] == 200
    await until(lambda: len(records) == len(ENDPOINT) + 4, "the records")
    *of_endpoint, of_model, of_solo = (record.request for record in records)
    assert {(request.endpoint, request.price) for request in of_endpoint} == {("chat", Price(3_000_000, 5_000_000))}
    # It is what the endpoint serves first.
    assert (of_model.endpoint, of_model.price) == ("model", Price(3_000_000, 5_000_000))
    assert (of_solo.endpoint, of_solo.price) == ("solo", Price(7_000_000, 9_000_000))
    assert {record.settlement.model for record in records if record.settlement} == {"model"}


async def two_models(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A connection to a server with two models."""
    said = json.dumps({"data": [{"id": "a"}, {"id": "b"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    while line := await reader.readline():
        length = 0
        while line != b"\r\n":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
            line = await reader.readline()
        await reader.readexactly(length)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n{said}".encode())
        break
    await writer.drain()
    writer.close()


async def test_of_a_server_with_several_models_each_has_its_price(tmp_path: Path) -> None:
    async with door_before(tmp_path, two_models) as door:
        books = door.house.supervisor.office.bookkeeper
        books.retune(AccountingSettings.model_validate({"prices": {"a": PRICES["chat"], "b": PRICES["model"]}}))
        records: list[UsageRecord] = []
        books.on_settled.append(records.append)
        for body in ({}, {"model": "one"}, {"model": "a"}, {"model": "b"}):
            assert (await door.ask({**HELLO, **body}))[0] == 200
        await until(lambda: len(records) == 4, "the records")
    priced = [(record.request.endpoint, record.request.price) for record in records]
    a, b = Price(3_000_000, 5_000_000), Price(7_000_000, 9_000_000)
    assert priced == [("one", a), ("one", a), ("a", a), ("b", b)]


@pytest_asyncio.fixture
async def broke(tmp_path: Path) -> AsyncIterator[Door]:
    """The demo model, without a price, for a project that may use nothing."""
    door = Door(tmp_path)
    await door.open({"demo": {"engine": {"kind": "embedded"}, "model": "demo"}})
    for unit in BudgetUnit:
        await door.house.supervisor.office.set_budget(Budget("default", Period.DAY, unit, 0))
    yield door
    await door.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/tokenize", {"text": "hello"}), ("/v1/chat_template", HELLO), ("/v1/messages/count_tokens", HELLO)],
)
async def test_what_uses_no_tokens_passes_where_no_money_and_no_price_is(broke: Door, path: str, body: Any) -> None:
    assert (await broke.ask(body, path))[0] == 200
    assert (await broke.ask(HELLO))[0] in (403, 429)
