"""What is seen of requests to a real engine agrees with the books."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from supervisor.storage import usage
from supervisor.storage.records import Settlement, UsageRecord
from supervisor.storage.usage import UsageFilter
from tests.fixtures.door import HELLO, POLL_SECONDS, STREAM, TRIES, Door
from tests.fixtures.nursery import until

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
PRICES = {"accounting": {"prices": {"demo": {"input": "1000", "output": "2000"}}}}
SHORT = {"max_tokens": 6, "ignore_eos": True}
LONG = {"max_tokens": 100_000, "ignore_eos": True}
QUICK_BOOKS = {"storage": {"write_seconds": 0.01}}
Samples = dict[tuple[str, frozenset[str]], float]


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def records(door: Door, count: int) -> list[UsageRecord]:
    """The settled records in the books, once there are `count`."""
    books = door.house.supervisor.office.books
    for _ in range(TRIES):
        found = await books.query(lambda connection: usage.page_forward(connection, UsageFilter(), 1_000))
        settled = [one for one in found if one.settlement is not None]
        if len(settled) >= count:
            return settled
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError(f"waited for {count} settled records: {found}")


async def leave_early(door: Door) -> None:
    """A stream whose client leaves after its first bytes."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{door.url}/v1/chat/completions", json=STREAM | LONG) as response,
    ):
        await response.content.readany()


async def scrape(door: Door) -> Samples:
    """Every sample by its name and the set of the values of its labels."""
    async with door.session.get(f"{door.url}/metrics") as answer:
        families = list(text_string_to_metric_families(await answer.text()))
    return {(one.name, frozenset(one.labels.values())): one.value for each in families for one in each.samples}


async def test_metrics_agree_with_the_records(door: Door) -> None:
    await door.open({"demo": DEMO}, gateway={"queue_seconds": 30.0}, sections={**QUICK_BOOKS, **PRICES})
    for body in (HELLO | SHORT, STREAM | SHORT, STREAM | SHORT):
        async with door.post(body) as response:
            await response.read()
    assert (await door.ask(HELLO | {"response_format": {"type": "no such"}}))[0] == 400
    await leave_early(door)
    kept = await records(door, 5)
    settled = [one.settlement for one in kept if one.settlement is not None]
    samples = await scrape(door)
    (model,) = {one.model for one in settled}
    assert model is not None
    for scope, name in (("model", model), ("project", "default")):
        for outcome, times in (("ok", 3), ("refused", 1), ("client_gone", 1)):
            assert samples[f"llamavisor_{scope}_requests_total", frozenset({name, outcome})] == times
        assert tokens_of(samples, scope, name) == (
            sum(one.usage.prompt_tokens for one in settled),
            sum(one.usage.cached_tokens for one in settled),
            sum(one.usage.completion_tokens for one in settled),
        )
        assert samples[f"llamavisor_{scope}_cost_micros_total", frozenset({name})] == sum(
            one.cost_micros or 0 for one in settled
        )
    streams = [one.settlement for one in kept if one.settlement is not None and one.request.stream]
    assert_times(samples, model, settled, streams)
    assert samples["llamavisor_instance_loads_total", frozenset({"demo"})] == 1
    assert samples["llamavisor_instance_places", frozenset({"demo"})] == 4
    assert samples["llamavisor_requests_queued", frozenset({"demo"})] == 0


def tokens_of(samples: Samples, scope: str, name: str) -> tuple[float, ...]:
    return tuple(
        samples[f"llamavisor_{scope}_tokens_total", frozenset({name, kind})]
        for kind in ("prompt", "cached", "completion")
    )


def assert_times(samples: Samples, model: str, settled: list[Settlement], streams: list[Settlement]) -> None:
    for metric, values in (
        ("request_duration", [one.total_ms for one in settled]),
        ("queue_wait", [one.queued_ms for one in settled]),
        ("time_to_first_token", [one.first_byte_ms for one in streams]),
    ):
        name = f"llamavisor_model_{metric}_seconds"
        assert samples[f"{name}_count", frozenset({model})] == len(values)
        assert (
            samples[f"{name}_sum", frozenset({model})]
            == sum(round((value or 0) * 1_000) for value in values) / 1_000_000
        )
        assert samples[f"{name}_bucket", frozenset({model, "+Inf"})] == len(values)
    between = [one for one in streams if one.usage.completion_tokens > 1]
    assert len(between) >= 2
    assert samples["llamavisor_model_inter_token_latency_seconds_count", frozenset({model})] == len(between)


async def test_receipts_say_what_was_drawn_and_by_which_method(door: Door) -> None:
    energy = {"busy_watts": 50.0, "co2_grams_per_kwh": 400.0}
    await door.open(
        {"demo": DEMO}, gateway={"queue_seconds": 30.0}, sections={**QUICK_BOOKS, **PRICES, "energy": energy}
    )
    answers = await asyncio.gather(*(door.ask(HELLO | SHORT) for _ in range(4)))
    receipts = []
    for _, _, headers in answers:
        async with door.session.get(f"{door.url}/v1/requests/{headers['x-llamavisor-request-id']}") as response:
            receipts.append(await response.json())
    for receipt in receipts:
        told = receipt["energy"]
        assert told["method"] == "modelled:busy_share"
        assert 0 < told["millijoules"] <= 50 * receipt["timings"]["total_ms"] + 1
        assert abs(told["co2_micrograms"] - told["millijoules"] / 3_600 * 400) <= 1
    drawn = (await scrape(door))["llamavisor_instance_energy_joules_total", frozenset({"demo"})]
    assert abs(drawn - sum(receipt["energy"]["millijoules"] for receipt in receipts) / 1_000) <= 0.002 * len(receipts)


async def test_bodies_are_kept_only_where_it_is_asked_for_and_without_secrets(door: Door) -> None:
    canary, secret = "canary-key-of-the-server", "sk-0123456789abcdef"
    sections = {**QUICK_BOOKS, "capture": {"projects": ["default"]}}
    await door.open({"demo": DEMO}, api_key=canary, sections=sections)
    door.session.headers["Authorization"] = f"Bearer {canary}"
    body = {"messages": [{"role": "user", "content": f"Say {secret} or {canary}, ann@example.org"}]} | SHORT
    for each in (body, body | {"stream": True}):
        async with door.post(each) as response:
            assert response.status == 200
            await response.read()
    folder = door.house.supervisor.data_folder / "captures"
    await until(lambda: sum(len(path.read_bytes().splitlines()) for path in folder.glob("*.jsonl")) == 2, "two copies")
    (path,) = folder.iterdir()
    text = path.read_text("utf-8")
    assert not [word for word in (secret, canary, "ann@example.org") if word in text]
    whole, stream = map(json.loads, text.splitlines())
    said = whole["answer"]["choices"][0]["message"]["content"]
    assert said
    assert stream["answer"]["choices.0.delta.content"]
    assert whole["request"]["messages"] == [{"role": "user", "content": "Say [redacted] or [redacted], [redacted]"}]
    assert (await scrape(door))["llamavisor_captures_total", frozenset({"written"})] == 2


async def test_without_the_setting_no_body_touches_the_disk(door: Door) -> None:
    await door.open({"demo": DEMO}, sections=QUICK_BOOKS)
    words = "nobody is to read this"
    body = {"messages": [{"role": "user", "content": words}]} | SHORT
    async with door.post(body) as response:
        assert response.status == 200
    await records(door, 1)
    folder = door.house.supervisor.data_folder
    assert not (folder / "captures").exists()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 2
    assert not [path for path in files if words.encode() in path.read_bytes()]
