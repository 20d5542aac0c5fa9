"""Traces by the real SDK, at a real receiver."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from supervisor.config import Settings
from supervisor.errors import InvalidConfigurationError
from supervisor.gateway.observing.tracing import open_tracing
from tests.fixtures.door import HELLO, STREAM, Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.otlp_receiver import OtlpReceiver, attributes

DEMO = {"engine": {"kind": "embedded", "parallel": 1, "threads": 1}, "model": "demo"}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    """Listens."""
    receiver = OtlpReceiver()
    yield receiver
    await receiver.close()


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_with(door: Door, instance: dict[str, Any], **telemetry: Any) -> None:
    sections = {"telemetry": {"service_name": "house", **telemetry}}
    await door.open({"one": instance}, gateway={"queue_seconds": 30.0}, sections=sections)


async def spans_of(receiver: OtlpReceiver, name: str, count: int = 1) -> list[Span]:
    await until(lambda: len(receiver.spans.get(name, ())) >= count, f"{count} × {name}: {sorted(receiver.spans)}")
    return receiver.spans[name]


def nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1_000_000)


async def test_a_stream_of_a_real_engine_as_spans(receiver: OtlpReceiver, door: Door) -> None:
    await open_with(door, DEMO, endpoint=await receiver.start())
    body = {**STREAM, "max_tokens": 5, "ignore_eos": True}
    async with door.session.post(f"{door.url}/v1/chat/completions", json=body, headers=PARENT) as response:
        await response.read()
        identity = response.headers["x-llamavisor-request-id"]
    (whole,) = await spans_of(receiver, "chat one")
    (upstream,) = await spans_of(receiver, "upstream")
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, SPAN)
    assert (upstream.trace_id.hex(), upstream.parent_span_id) == (TRACE, whole.span_id)
    assert (whole.kind, upstream.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    async with door.session.get(f"{door.url}/v1/requests/{identity}") as response:
        receipt = await response.json()
    told = attributes(whole)
    assert told["gen_ai.response.time_to_first_chunk"] == receipt["timings"]["first_byte_ms"] / 1_000
    assert told["server.address"] == "127.0.0.1"
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llamavisor",
        "gen_ai.request.model": "one",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": receipt["model"],
        "gen_ai.usage.input_tokens": receipt["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": 5,
        "llamavisor.request.id": identity,
        "llamavisor.outcome": "ok",
    }
    assert told.items() >= expected.items()
    assert "error.type" not in told
    assert whole.end_time_unix_nano - whole.start_time_unix_nano == nanoseconds(receipt["timings"]["total_ms"])
    assert upstream.end_time_unix_nano == whole.end_time_unix_nano
    (first,) = upstream.events
    assert first.time_unix_nano - whole.start_time_unix_nano == nanoseconds(receipt["timings"]["first_byte_ms"])
    assert receiver.resource.items() >= {"service.name": "house"}.items()
    assert set(receiver.paths) == {"/v1/traces"}


async def test_the_engine_is_told_which_span_it_works_for(receiver: OtlpReceiver, door: Door) -> None:
    await open_with(door, misbehaving(door.house.model), endpoint=await receiver.start())
    async with door.session.post(f"{door.url}/v1/chat/completions", json=HELLO, headers=PARENT) as response:
        assert response.status == 200
    headers = (await door.at_engine("one", "/_control"))["last_request"]["headers"]
    (upstream,) = await spans_of(receiver, "upstream")
    assert headers["traceparent"] == f"00-{TRACE}-{upstream.span_id.hex()}-01"
    assert headers["tracestate"] == "vendor=1"


async def test_what_goes_wrong_is_an_error_and_a_trace_may_begin_here(receiver: OtlpReceiver, door: Door) -> None:
    await open_with(door, misbehaving(door.house.model, knobs={"chat_status": 500}), endpoint=await receiver.start())
    assert (await door.ask(HELLO))[0] == 500
    (whole,) = await spans_of(receiver, "chat one")
    assert not whole.parent_span_id
    assert any(whole.trace_id)
    assert whole.status.code == Status.STATUS_CODE_ERROR
    assert attributes(whole)["error.type"] == "server_error"


async def test_who_waits_has_a_span_for_it(receiver: OtlpReceiver, door: Door) -> None:
    endless = {"token_interval_seconds": 0.01, "token_count": 10**6}
    await open_with(
        door, misbehaving(door.house.model, knobs=endless, max_in_flight=1), endpoint=await receiver.start()
    )
    first = await door.post(STREAM)
    second = asyncio.ensure_future(door.post(STREAM))
    await until(lambda: door.house.supervisor.gateway.admission.waiting, "one that waits")
    first.close()
    (await second).close()
    (queue,) = await spans_of(receiver, "queue")
    requests = await spans_of(receiver, "chat one", 2)
    (waited,) = [span for span in requests if span.span_id == queue.parent_span_id]
    assert waited.start_time_unix_nano == queue.start_time_unix_nano < queue.end_time_unix_nano
    assert {attributes(span)["llamavisor.outcome"] for span in requests} == {"client_gone"}
    assert all(span.status.code == Status.STATUS_CODE_UNSET for span in requests)


async def test_a_receiver_that_fails_is_nobodys_trouble(receiver: OtlpReceiver, door: Door) -> None:
    receiver.status = 400
    await open_with(door, misbehaving(door.house.model), endpoint=f"{await receiver.start()}/elsewhere", queue_spans=4)
    for _ in range(10):
        assert (await door.ask(HELLO))[0] == 200
    await until(lambda: receiver.paths, "a try")
    assert set(receiver.paths) == {"/elsewhere"}


async def test_without_an_endpoint_nothing_is_traced_and_the_clients_parent_passes(door: Door) -> None:
    await open_with(door, misbehaving(door.house.model))
    assert door.house.supervisor.gateway.tracing is None
    for headers in (PARENT, {**PARENT, "Cookie": "the=long way"}):
        async with door.session.post(f"{door.url}/v1/chat/completions", json=HELLO, headers=headers) as response:
            assert response.status == 200
        seen = (await door.at_engine("one", "/_control"))["last_request"]["headers"]
        assert seen.items() >= PARENT.items()


async def test_without_the_extra_the_configuration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "supervisor.gateway.observing.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InvalidConfigurationError) as caught:
        open_tracing(Settings.model_validate({"telemetry": {"endpoint": "http://127.0.0.1:4318"}}), "0")
    assert caught.value.param == "telemetry.endpoint"
    assert "pip install 'llamavisor[otel]'" in (caught.value.remedy or "")
