"""Waiting at the door, with real engines: in turn, bounded, told of it, and never in vain without a word."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from pydantic import AnyHttpUrl

from supervisor.config.engine_settings import LlamaServerEngine
from supervisor.config.gateway_settings import GatewaySettings
from supervisor.config.settings import InstanceSettings
from supervisor.errors import LlamavisorError, NotAvailableError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Place, QueueDeadlineError, QueueFullError, Waiting
from supervisor.gateway.admission.estimates import FIRST_SERVICE_SECONDS
from supervisor.gateway.admission.places import UNKNOWN_LIMIT
from supervisor.gateway.calls import CHAT, Call
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.passage import Passage, ask
from supervisor.process.states import State
from tests.fixtures.door import HELLO, STREAM, Door, events
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until

pytestmark = pytest.mark.faults
GENEROUS_SECONDS = 30.0
TRIES = 100_000
SLOW = {"token_interval_seconds": 0.02, "token_count": 10}
ENDLESS = {"token_interval_seconds": 0.05, "token_count": 100_000}


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_with(
    door: Door, knobs: dict[str, Any], *, supervision: dict[str, Any] | None = None, **gateway: Any
) -> Gateway:
    """One engine with one place."""
    instance = {**misbehaving(door.house.model, knobs=knobs, supervision=supervision or {}), "max_in_flight": 1}
    await door.open({"one": instance}, gateway={"queue_seconds": GENEROUS_SECONDS, **gateway})
    return door.house.supervisor.gateway


def call(**fields: Any) -> Call:
    """A request."""
    document = {**HELLO, **fields}
    return Call(CHAT, json.dumps(document).encode(), document, {"Content-Type": "application/json"})


async def hold(gateway: Gateway, begun: asyncio.Event) -> None:
    """Take the place, and keep it until cancelled."""
    async with Passage(gateway, call()):
        begun.set()
        await asyncio.Event().wait()


async def taken(gateway: Gateway) -> asyncio.Task[None]:
    """Somebody who has the one place."""
    begun = asyncio.Event()
    task = asyncio.create_task(hold(gateway, begun))
    await asyncio.wait_for(begun.wait(), GENEROUS_SECONDS)
    return task


async def let_go(task: asyncio.Task[Any]) -> None:
    """End it."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def waiting(gateway: Gateway, count: int) -> None:
    """Wait until so many wait."""
    await until(lambda: gateway.admission.waiting == count, f"{count} to wait")


async def test_no_more_than_the_places_are_at_the_engine_and_all_are_served(door: Door) -> None:
    gateway = await open_with(door, SLOW)
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append((await door.at_engine("one", "/_control"))["processing"])

    looking = asyncio.create_task(look())
    answers = await asyncio.gather(*(ask(gateway, call()) for _ in range(12)))
    await let_go(looking)
    assert [answer.status for answer in answers] == [200] * 12
    assert max(seen) == 1
    assert door.outcomes("one") == {"ok": 12}


async def test_projects_take_turns_at_a_busy_engine(door: Door) -> None:
    gateway = await open_with(door, SLOW)
    holder = await taken(gateway)
    served: list[str] = []

    async def ask(project: str) -> None:
        async with Passage(gateway, call(), Caller(project)):
            served.append(project)

    flood = [asyncio.create_task(ask("flood")) for _ in range(6)]
    await waiting(gateway, 6)
    small = [asyncio.create_task(ask("small")) for _ in range(2)]
    await waiting(gateway, 8)
    await let_go(holder)
    await asyncio.gather(*flood, *small)
    assert served[:4] == ["flood", "small", "flood", "small"]


async def test_one_that_waits_is_told_its_position_and_when_it_changes(door: Door) -> None:
    gateway = await open_with(door, SLOW, comment_seconds=0.05)
    holder = await taken(gateway)
    told: list[Waiting] = []

    async def ask(on_wait: Any = None) -> None:
        async with Passage(gateway, call(), on_wait=on_wait):
            pass

    first = asyncio.create_task(ask())
    await waiting(gateway, 1)
    second = asyncio.create_task(ask(told.append))
    await until(lambda: len(told) > 1, "to be told again")
    assert {one.position for one in told} == {2}
    assert told[0].state is State.READY
    assert told[0].estimate_seconds
    await let_go(first)
    await until(lambda: told[-1].position == 1, "to have moved up")
    await let_go(holder)
    await second


async def test_the_estimate_rests_on_what_was_learned_and_grows_with_those_who_are_served(door: Door) -> None:
    gateway = await open_with(door, SLOW, comment_seconds=0.05)
    async with Passage(gateway, call()):
        pass
    holder = await taken(gateway)
    told: list[Waiting] = []

    async def ask() -> None:
        async with Passage(gateway, call(), on_wait=told.append):
            pass

    waiter = asyncio.create_task(ask())
    await until(lambda: len(told) > 3, "to be told again")
    estimates = [one.estimate_seconds or 0.0 for one in told]
    assert 0 < estimates[0] < FIRST_SERVICE_SECONDS
    assert estimates == sorted(set(estimates))
    await let_go(holder)
    await waiter


async def test_nobody_knows_how_long_a_load_takes_that_shows_nothing_of_itself(door: Door) -> None:
    one = misbehaving(door.house.model, knobs={"load_seconds": 1})
    await door.open({"one": one}, ready=False, gateway={"queue_seconds": GENEROUS_SECONDS})
    told: list[Waiting] = []
    async with Passage(door.house.supervisor.gateway, call(), on_wait=told.append):
        pass
    assert told[0].state is State.STARTING
    assert (told[0].estimate_seconds is None) is (told[0].progress in (None, 0, 1))


async def test_the_line_is_bounded_and_the_greedy_leave_it_for_others(door: Door) -> None:
    gateway = await open_with(door, SLOW, queue_limit=4)
    holder = await taken(gateway)
    greedy = [asyncio.create_task(ask(gateway, call(), Caller("greedy"))) for _ in range(4)]
    await waiting(gateway, 4)
    with pytest.raises(QueueFullError) as refusal:
        await ask(gateway, call(), Caller("greedy"))
    assert refusal.value.retry_after_seconds is not None
    other = asyncio.create_task(ask(gateway, call(), Caller("other")))
    with pytest.raises(QueueFullError):
        await asyncio.wait_for(greedy.pop(), GENEROUS_SECONDS)
    await waiting(gateway, 4)
    await let_go(holder)
    assert [answer.status for answer in await asyncio.gather(*greedy, other)] == [200] * 4


async def test_a_replica_that_cannot_be_loaded_leaves_its_clients_to_the_other(door: Door) -> None:
    broken = {"engine": {"kind": "llama-server", "binary": "/nowhere/llama-server"}, "model": str(door.house.model)}
    idle = {"autostart": False, "endpoint": "both"}
    instances = {
        "broken": {**broken, **idle},
        "sound": {**misbehaving(door.house.model, knobs=SLOW), **idle},
    }
    await door.open(instances, ready=False, gateway={"queue_seconds": GENEROUS_SECONDS})
    answer = await ask(door.house.supervisor.gateway, call(model="both"))
    assert answer.status == 200
    assert door.house["broken"].state is State.ERROR
    assert door.outcomes("sound") == {"ok": 1}


async def test_an_adopted_engine_is_asked_for_its_slots(door: Door) -> None:
    await door.open({"one": misbehaving(door.house.model, knobs=SLOW)}, gateway={"queue_seconds": GENEROUS_SECONDS})
    admission, one = door.house.supervisor.gateway.admission, door.house["one"]
    settings = InstanceSettings(url=AnyHttpUrl("http://127.0.0.1:1"), engine=LlamaServerEngine(kind="llama-server"))
    places = admission.places_of(one, settings)
    assert places.limit == UNKNOWN_LIMIT
    await until(lambda: places.limit == 4, "its two slots to be known")
    assert admission.places_of(one, settings) is places


async def test_waiting_has_a_deadline(door: Door) -> None:
    gateway = await open_with(door, SLOW, queue_seconds=0.1)
    holder = await taken(gateway)
    with pytest.raises(QueueDeadlineError):
        await ask(gateway, call())
    assert gateway.admission.waiting == 0
    await let_go(holder)


async def test_row_41_who_leaves_the_line_leaves_no_trace(door: Door) -> None:
    gateway = await open_with(door, SLOW)
    holder = await taken(gateway)
    tasks = [asyncio.create_task(ask(gateway, call())) for _ in range(5)]
    await waiting(gateway, 5)
    for task in tasks[:4]:
        await let_go(task)
    assert gateway.admission.waiting == 1
    await let_go(holder)
    assert (await tasks[4]).status == 200
    assert (await ask(gateway, call())).status == 200


async def test_who_leaves_in_the_moment_of_its_turn_gives_the_place_to_the_next(door: Door) -> None:
    gateway = await open_with(door, SLOW)
    holder = await taken(gateway)
    first, second = (asyncio.create_task(ask(gateway, call())) for _ in range(2))
    await waiting(gateway, 2)
    holder.cancel()
    for _ in range(TRIES):
        # Given a place, but not awake yet: out of the line, and still counted as waiting.
        if gateway.admission.waiting_for("one") == 1:
            break
        await asyncio.sleep(0)
    assert gateway.admission.waiting == 2
    await let_go(first)
    assert (await asyncio.wait_for(second, GENEROUS_SECONDS)).status == 200


async def test_a_crash_does_not_send_those_away_who_wait(door: Door) -> None:
    gateway = await open_with(door, ENDLESS, supervision={"retry_base_seconds": 0.05})
    holder = await taken(gateway)
    states: list[State] = []

    async def ask() -> None:
        async with Passage(gateway, call(), on_wait=lambda told: states.append(told.state)):
            pass

    tasks = [asyncio.create_task(ask()) for _ in range(20)]
    await waiting(gateway, 20)
    pid = door.house["one"].snapshot().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await door.house.reach("one", State.CRASHED)
    await let_go(holder)
    await asyncio.gather(*tasks)
    assert gateway.admission.waiting == 0


async def test_row_55_a_stop_tells_all_who_wait(door: Door) -> None:
    gateway = await open_with(door, ENDLESS)
    holder = await taken(gateway)
    tasks = [asyncio.create_task(ask(gateway, call())) for _ in range(5)]
    await waiting(gateway, 5)
    await door.house["one"].stop()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), GENEROUS_SECONDS)
    assert all(isinstance(outcome, NotAvailableError) for outcome in outcomes)
    await let_go(holder)


async def test_the_end_of_the_server_tells_all_who_wait(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await open_with(door, ENDLESS)
    tasks = [asyncio.create_task(ask(gateway, call())) for _ in range(3)]
    await waiting(gateway, 2)
    await asyncio.wait_for(door.house.supervisor.close(), GENEROUS_SECONDS)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, NotAvailableError) and outcome.code for outcome in outcomes] == ["shutting_down"] * 3
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_row_03_a_load_that_fails_for_good_is_told_to_each_who_waits_once(door: Door) -> None:
    gateway = await open_with(door, SLOW)
    await door.house["one"].stop()
    await door.house.reach("one", State.INITIAL)
    (door.house.data_folder / "gone").touch()
    door.house.model.rename(door.house.model.with_suffix(".away"))
    tasks = [asyncio.create_task(ask(gateway, call())) for _ in range(3)]
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), GENEROUS_SECONDS)
    assert all(isinstance(outcome, LlamavisorError) for outcome in outcomes)
    assert gateway.admission.waiting == 0


async def test_two_that_serve_one_model_share_its_requests(door: Door) -> None:
    instances = {name: {**misbehaving(door.house.model, knobs=SLOW), "max_in_flight": 1} for name in ("one", "two")}
    await door.open(instances, gateway={"queue_seconds": GENEROUS_SECONDS})
    gateway = door.house.supervisor.gateway
    model = door.house["one"].models[0]["id"]
    answers = await asyncio.gather(*(ask(gateway, call(model=model)) for _ in range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    counts = {name: door.outcomes(name)["ok"] for name in instances}
    assert min(counts.values()) >= 2
    assert sum(counts.values()) == 8


@pytest.mark.parametrize("status", [500, 503])
async def test_a_replica_that_fails_at_once_does_not_draw_the_traffic(door: Door, status: int) -> None:
    instances = {
        "failing": {**misbehaving(door.house.model, knobs={"chat_status": status}), "max_in_flight": 4, "endpoint": "both"},
        "sound": {**misbehaving(door.house.model, knobs=SLOW), "max_in_flight": 4, "endpoint": "both"},
    }  # fmt: skip
    await door.open(instances, gateway={"queue_seconds": GENEROUS_SECONDS})
    gateway = door.house.supervisor.gateway
    for _ in range(3):
        await asyncio.gather(*(ask(gateway, call(model="both")) for _ in range(4)))
    assert 3 <= door.outcomes("failing")["engine_error"] <= 4
    assert door.outcomes("sound")["ok"] >= 8


async def test_a_place_that_was_not_used_says_nothing_of_its_instance(door: Door) -> None:
    gateway = await open_with(door, SLOW)
    places = gateway.places_for(call(), None)
    for failed in (True, None, True):
        place = gateway.admission.try_place(places)
        assert place is not None
        gateway.admission.leave(place, failed=failed)
    assert (places[0].failures, places[0].service_seconds) == (2, None)


GROUP = {"groups": {"g": {"exclusive": True}}}
MEMORY = {"memory": {"limit_bytes": 10_000_000_000, "reserve_bytes": 1_024, "patience_seconds": 600}}


@pytest.mark.parametrize(
    ("own", "settings", "code", "reason"),
    [
        ({"group": ["g"]}, {**GROUP, "memory": {"patience_seconds": 600}}, "group_full", "no place left, 1 busy"),
        ({"memory_bytes": 6_000_000_000}, MEMORY, "no_memory", "needs 6.0 GB of memory, 4.0 GB free, 1 busy"),
    ],
)
async def test_who_waits_for_room_is_told_so_and_may_come_back(
    door: Door, own: dict[str, Any], settings: dict[str, Any], code: str, reason: str
) -> None:
    instances = {name: misbehaving(door.house.model, autostart=False, **own) for name in ("busy", "wanted")}
    await door.open(
        instances, ready=False, gateway={"queue_seconds": GENEROUS_SECONDS, "comment_seconds": 0.05}, sections=settings
    )
    gateway = door.house.supervisor.gateway
    told: list[Waiting] = []

    async def hold(name: str, begun: asyncio.Event) -> None:
        async with Passage(gateway, call(model=name), on_wait=told.append):
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    holder = asyncio.create_task(hold("busy", begun))
    await asyncio.wait_for(begun.wait(), GENEROUS_SECONDS)
    waiter = asyncio.create_task(hold("wanted", asyncio.Event()))
    await until(lambda: bool(told and reason in (told[-1].reason or "")), "a reason to be told")
    gateway.admission.retune(GatewaySettings(queue_seconds=0))
    status, answer, headers = await door.ask({**HELLO, "model": "wanted"})
    assert (status, answer["error"]["code"], headers["x-should-retry"]) == (503, code, "true")
    assert int(headers["Retry-After"]) > 0
    assert reason in answer["error"]["message"]
    await let_go(waiter)
    await let_go(holder)


# What a waiting stream says


WAITS: dict[str, Any] = {"status_open_seconds": 0.05, "comment_seconds": 0.02}
SHORT_WAY: dict[str, str] = {}
LONG_WAY = {"Idempotency-Key": "once"}
ASKED = {"X-Llamavisor-Progress": "1"}
RESUMED = {"X-Llamavisor-Resume": "30"}


async def received(
    door: Door, headers: dict[str, str], began: asyncio.Event, told: dict[str, str] | None = None
) -> tuple[int, bytes, bool]:
    """A stream, asked for: its status, what came, and whether it ended well. `began` is set by the first byte; its headers go into `told`."""
    got = bytearray()
    async with door.session.post(f"{door.url}{CHAT}", json=STREAM, headers=headers) as response:
        if told is not None:
            told |= {name.lower(): value for name, value in response.headers.items()}
        try:
            async for data in response.content.iter_any():
                got += data
                began.set()
        except aiohttp.ClientPayloadError:
            return response.status, bytes(got), False
        return response.status, bytes(got), True


@pytest.mark.parametrize(
    ("headers", "said"),
    [(SHORT_WAY, b": waiting {"), (LONG_WAY, b": waiting {"), (ASKED, b"event: llamavisor.waiting\ndata: {")],
)
async def test_a_stream_that_waits_says_so_and_is_then_answered(
    door: Door, headers: dict[str, str], said: bytes
) -> None:
    gateway = await open_with(door, SLOW, **WAITS)
    holder, began = await taken(gateway), asyncio.Event()
    asking = asyncio.create_task(received(door, headers, began))
    await asyncio.wait_for(began.wait(), GENEROUS_SECONDS)
    await let_go(holder)
    status, body, ended_well = await asking
    assert (status, ended_well) == (200, True)
    assert body.startswith(said)
    told = json.loads(body.partition(b"\n\n")[0].partition(b"{")[2].join([b"{", b""]))
    assert told["position"] == 1
    assert told["state"] == "ready"
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "headers", [SHORT_WAY, LONG_WAY, ASKED, RESUMED], ids=["short way", "long way", "asked", "resumed"]
)
async def test_a_stream_that_waits_is_told_its_number_in_the_books(door: Door, headers: dict[str, str]) -> None:
    gateway = await open_with(door, SLOW, queue_seconds=0.3, **WAITS)
    holder, told = await taken(gateway), dict[str, str]()
    status, _, ended_well = await received(door, headers, asyncio.Event(), told)
    assert (status, ended_well) == (200, False)
    await let_go(holder)
    assert told["x-llamavisor-request-id"] == told["x-request-id"]
    async with door.session.get(f"{door.url}/v1/requests/{told['x-llamavisor-request-id']}") as response:
        receipt = await response.json()
    assert (receipt["error_code"], receipt["client_request_id"]) == ("queue_deadline", None)


@pytest.mark.parametrize("headers", [SHORT_WAY, LONG_WAY])
async def test_a_refusal_after_the_first_word_is_said_in_the_stream(door: Door, headers: dict[str, str]) -> None:
    gateway = await open_with(door, SLOW, queue_seconds=0.3, **WAITS)
    holder = await taken(gateway)
    status, body, ended_well = await received(door, headers, asyncio.Event())
    assert (status, ended_well) == (200, False)
    assert (
        events(b"\n\n".join(part for part in body.split(b"\n\n") if part.startswith(b"data")))[-1]["error"]["code"]
        == "queue_deadline"
    )
    await let_go(holder)


@pytest.mark.parametrize("headers", [SHORT_WAY, LONG_WAY])
async def test_a_refusal_in_time_has_its_true_status(door: Door, headers: dict[str, str]) -> None:
    gateway = await open_with(door, SLOW, queue_seconds=0.1)
    holder = await taken(gateway)
    status, body, _ = await received(door, headers, asyncio.Event())
    assert status == 503
    assert json.loads(body)["error"]["code"] == "queue_deadline"
    await let_go(holder)


async def test_a_reload_that_replaces_the_engine_serves_those_who_wait_and_those_who_come(door: Door) -> None:
    gateway = await open_with(door, ENDLESS)
    holder, before = await taken(gateway), asyncio.create_task(ask(gateway, call()))
    await waiting(gateway, 1)
    instance = {**misbehaving(door.house.model, knobs=SLOW), "max_in_flight": 1}
    waits = {"queue_seconds": GENEROUS_SECONDS}
    door.house.configure({"one": instance}, gateway=waits, server={"port": 0, "shutdown_grace_seconds": 0})
    reload = asyncio.create_task(door.house.supervisor.reload())
    await until(lambda: door.house["one"].state is not State.READY, "the old one to go")
    after = asyncio.create_task(ask(gateway, call()))
    await let_go(holder)
    await reload
    answers = await asyncio.gather(before, after)
    assert [answer.status for answer in answers] == [200, 200]
    assert gateway.admission.waiting == 0
    assert (await ask(gateway, call())).status == 200


async def test_a_line_that_is_forgotten_takes_no_newer_one_of_its_name_with_it(door: Door) -> None:
    gateway = await open_with(door, SLOW)
    admission, one = gateway.admission, door.house["one"]
    places = admission.places_of(one, door.house.supervisor.fleet.settings_of("one"))
    places.limit = 2

    async def come(turns: int = 0) -> Place:
        for _ in range(turns):
            await asyncio.sleep(0)
        return admission.try_place([places]) or await admission.place([places], Caller())

    # The newcomer comes so many turns of the loop later: in one of them, when the first of two is served and the second does not know that it is.
    for turns in range(5):
        held = [await come(), await come()]
        waiters = [asyncio.create_task(come()) for _ in range(2)]
        await waiting(gateway, 2)
        admission.leave(held[0], failed=False)
        newcomer = asyncio.create_task(come(turns))
        admission.leave(held[1], failed=False)
        for task in waiters:
            admission.leave(await task, failed=False)
        admission.leave(await asyncio.wait_for(newcomer, GENEROUS_SECONDS / 3), failed=False)
        assert (admission.waiting, places.taken) == (0, 0)


async def test_who_comes_in_the_moment_in_which_a_load_fails_is_told_so_too(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"engine": {"kind": "llama-server", "binary": "/nowhere/llama-server"}, "model": str(door.house.model)}
    instances = {"broken": {**broken, "autostart": False}}
    await door.open(instances, ready=False, gateway={"queue_seconds": GENEROUS_SECONDS})
    gateway, late = door.house.supervisor.gateway, list[asyncio.Task[Any]]()
    admission, fail = gateway.admission, gateway.admission._fail

    def fail_and_come(*arguments: Any) -> None:
        fail(*arguments)
        if not late:
            late.append(asyncio.create_task(ask(gateway, call())))

    monkeypatch.setattr(admission, "_fail", fail_and_come)
    with pytest.raises(NotAvailableError):
        await ask(gateway, call())
    with pytest.raises(NotAvailableError):
        await late[0]
