"""The flat dialect, tiers, `auto` and the router's route, before real engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.config.accounting_settings import AccountingSettings
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.calls import COMPLETIONS, MESSAGES
from supervisor.gateway.routing import BudgetStatus
from supervisor.storage.records import UsageRecord
from tests.fixtures.door import HELLO, STREAM, Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until

DEMO = {"engine": {"kind": "embedded", "parallel": 2, "threads": 1}, "model": "demo"}
GREEDY = {**HELLO, "temperature": 0, "max_tokens": 8}
ROUTED = "X-Llamavisor-Route"


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def test_a_flat_request_gets_the_flat_answer(door: Door) -> None:
    await door.open({"demo": DEMO})
    _, whole, _ = await door.ask(GREEDY)
    status, answer, headers = await door.ask({**GREEDY, "project_id": "default", "timeout": 30})
    assert status == 200
    assert headers[ROUTED].startswith("medium; ")
    usage = whole["usage"]
    assert answer == {
        "id": answer["id"],
        "model": "demo",
        "content": whole["choices"][0]["message"]["content"],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
        },
        "cost": None,
        "project_id": "default",
    }
    assert answer["id"]


async def test_a_flat_answer_says_what_it_costs(door: Door) -> None:
    prices = {"demo": {"input": "1000", "output": "2000"}}
    await door.open({"demo": DEMO}, sections={"accounting": {"prices": prices}})
    door.session.headers["X-Llamavisor-Dialect"] = "flat"
    status, answer, _ = await door.ask(GREEDY)
    assert (status, answer["project_id"]) == (200, "default")
    usage = answer["usage"]
    assert answer["cost"] == (usage["input_tokens"] + 2 * usage["output_tokens"]) / 1_000


@pytest.mark.parametrize("seconds", [None, 60])
async def test_a_price_that_changes_meanwhile_is_not_this_answers(door: Door, seconds: int | None) -> None:
    prices = {"one": {"input": "1000", "output": "2000"}}
    engine = misbehaving(door.house.model, knobs={"decode": "wedge_busy"})
    await door.open({"one": engine}, sections={"accounting": {"prices": prices}})
    client = asyncio.create_task(door.ask({**GREEDY, "project_id": "default", "timeout": seconds}))
    await door.until_engine("one", "/_control", lambda seen: seen["requests"] == 1, "the request to be there")
    door.house.supervisor.office.bookkeeper.retune(AccountingSettings())
    await door.at_engine("one", "/_control", {"decode": "ok"})
    _, answer, _ = await client
    usage = answer["usage"]
    assert answer["cost"] == (usage["input_tokens"] + 2 * usage["output_tokens"]) / 1_000


async def test_flat_errors_have_a_detail_too(door: Door) -> None:
    await door.open({"demo": DEMO})
    for body, expected, code in (
        ({**GREEDY, "timeout": 0}, 400, "invalid_request"),
        ({**GREEDY, "project_id": "none"}, 404, "project_not_found"),
        ({**GREEDY, "timeout": 5, "model": "none"}, 404, "model_not_found"),
        ({**GREEDY, "timeout": 5, "stream": True}, 400, "invalid_request"),
        ({"messages": [{"role": "user", "content": "word " * 5_000}], "timeout": 5}, 400, "exceed_context_size_error"),
    ):
        status, answer, _ = await door.ask(body)
        assert (status, answer["error"]["code"]) == (expected, code)
        assert answer["detail"]
        assert answer["detail"] in answer["error"]["message"]


async def test_who_runs_out_of_time_is_told_and_the_engine_is_left(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs={"prefill_seconds": 60, "prefill_burns": False})})
    records: list[UsageRecord] = []
    door.house.supervisor.office.bookkeeper.on_settled.append(records.append)
    status, answer, _ = await door.ask({**GREEDY, "timeout": 1})
    assert (status, answer["error"]["code"]) == (504, "answer_deadline")
    assert door.outcomes("one") == {"timeout": 1}
    await door.until_engine("one", "/_control", lambda seen: seen["aborted"] == 1, "the engine to be left")
    await until(lambda: door.house["one"].requests_active == 0, "the request to be over")
    settlement = records[0].settlement
    assert settlement is not None
    assert settlement.usage.prompt_tokens > 0, "a client could have a model at work for nothing"
    assert door.house.supervisor.gateway.admission._places["one"].failures == 0, (
        "a client could have an instance passed over"
    )


async def test_who_runs_out_of_time_in_the_line_is_late_in_the_books_too(door: Door) -> None:
    one = {**misbehaving(door.house.model, knobs={"prefill_seconds": 60, "prefill_burns": False}), "max_in_flight": 1}
    await door.open({"one": one}, gateway={"queue_seconds": 60.0})
    records: list[UsageRecord] = []
    door.house.supervisor.office.bookkeeper.on_settled.append(records.append)
    first = asyncio.create_task(door.ask(GREEDY))
    await until(lambda: door.house["one"].requests_active == 1, "the only place to be taken")
    status, _, _ = await door.ask({**GREEDY, "timeout": 1})
    settlement = records[0].settlement
    assert settlement is not None
    assert (status, settlement.outcome, settlement.error_code) == (504, "timeout", "answer_deadline")
    first.cancel()


async def test_tiers_and_auto_lead_to_their_models(door: Door) -> None:
    tiers = {"small": "tiny", "opus": "big"}
    engines = {name: misbehaving(door.house.model) for name in ("main", "tiny", "big")}
    await door.open(engines, sections={"routing": {"tiers": tiers}})
    for model, messages, expected in (
        ("haiku", "x", "tiny"),
        ("small", "x", "tiny"),
        ("sonnet", "x", "main"),
        ("large", "x", "big"),
        ("auto", "List the files", "tiny"),
        ("auto", "x" * 40_004, "big"),
        ("auto", "Hello", "main"),
    ):
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": messages}]}
        before = door.outcomes(expected).get("ok", 0)
        for body in (asked, {**asked, "stream": True}):
            async with door.post(body) as response:
                assert response.status == 200
                assert ";" in response.headers[ROUTED]
                await response.read()
        assert door.outcomes(expected)["ok"] == before + 2, model
    async with door.post({**HELLO, "model": "tiny"}) as response:
        assert ROUTED not in response.headers
    async with door.post({"prompt": "Show me", "model": "auto"}, COMPLETIONS) as response:
        assert response.headers[ROUTED] == "small; a short prompt that asks for little"


async def test_a_tier_is_a_model_on_other_surfaces_too(door: Door) -> None:
    await door.open({"demo": DEMO})
    status, answer, headers = await door.ask({**GREEDY, "model": "opus"}, MESSAGES)
    assert (status, answer["model"]) == (200, "demo")
    assert headers[ROUTED] == "opus; the tier that was asked for"
    assert (await door.ask({"text": "a", "model": "auto"}, "/v1/tokenize"))[0] == 200


async def test_the_router_tells_what_it_would_do(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model)}, sections={"routing": {"tiers": {"small": "one"}}})
    status, told, _ = await door.ask({"prompt": "Count the files"}, "/v1/route")
    assert status == 200
    assert told == {
        "recommended_model": "small",
        "model": "one",
        "instances": ["one"],
        "reasoning": "a short prompt that asks for little",
        "budget_status": {"total_tokens": 0, "total_cost": 0.0, "limit": None, "remaining": None},
    }
    told = (await door.ask({"prompt": "Count the files", "context_size": 10_001}, "/v1/route"))[1]
    assert (told["recommended_model"], told["model"]) == ("large", "one")
    assert door.outcomes("one") == {}

    def spent(caller: Caller) -> BudgetStatus:
        return BudgetStatus(total_tokens=100, cost_micros=2_500_000, limit=100, remaining=0)

    door.house.supervisor.router.status_of = spent
    told = (await door.ask({"prompt": "Design a bridge"}, "/v1/route"))[1]
    assert told["recommended_model"] == "small"
    assert told["budget_status"] == {"total_tokens": 100, "total_cost": 2.5, "limit": 100, "remaining": 0}
    for body, field in (
        ({}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "a", "context_size": -1}, "context_size"),
        ({"prompt": "a", "messages": HELLO["messages"]}, "prompt"),
        ({"messages": []}, "messages"),
        ({"prompt": "a", "model": 7}, "model"),
    ):
        status, answer, _ = await door.ask(body, "/v1/route")
        assert (status, answer["error"]["param"]) == (400, field)


async def test_the_router_tells_who_would_answer(door: Door) -> None:
    tiers = {"tiers": {"large": "two"}}
    await door.open(
        {"one": misbehaving(door.house.model), "two": {**DEMO, "aliases": ["second"]}}, sections={"routing": tiers}
    )
    for model, expected in (
        ("two", ("two", "two", ["two"], "the model that was asked for")),
        ("second", ("second", "second", ["two"], "the model that was asked for")),
        ("opus", ("opus", "two", ["two"], "the tier that was asked for")),
        ("auto", ("medium", "one", ["one"], "no rule applies")),
        (None, ("medium", "one", ["one"], "no rule applies")),
    ):
        told = (await door.ask({**HELLO, "model": model}, "/v1/route"))[1]
        assert (told["recommended_model"], told["model"], told["instances"], told["reasoning"]) == expected
    status, answer, _ = await door.ask({**HELLO, "model": "tow"}, "/v1/route")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    question = [{"role": "user", "content": "Design a bridge"}, {"role": "assistant", "content": "Why?"}]
    told = (await door.ask({"messages": question, "context_size": 10_001}, "/v1/route"))[1]
    assert told["recommended_model"] == "large"


async def test_a_stream_of_the_router_is_otherwise_the_same(door: Door) -> None:
    await door.open({"demo": DEMO})
    sent = await door.stream({**STREAM, "temperature": 0, "max_tokens": 8, "model": "auto"})
    assert sent.endswith(b"data: [DONE]\n\n")
