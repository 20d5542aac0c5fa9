"""Live status over Socket.IO: shapes, acknowledgements, changes, subscriptions."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema
import pytest
import socketio.exceptions

from supervisor.process.states import State
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.webhouse import DEMO, KEY, WebHouse
from web.schemas import COMPONENTS

INSTANCE = {"components": {"schemas": COMPONENTS}, "$ref": "#/components/schemas/Instance"}
UNIX_MS = 1_000_000_000_000


def assert_status(message: dict[str, Any]) -> None:
    """`llamaStatus`, as the contract has it."""
    assert set(message) == {"type", "data", "timestamp", "epoch", "seq"}
    assert message["type"] == "llama_status"
    assert message["timestamp"] > UNIX_MS
    jsonschema.validate(message["data"], INSTANCE)


def assert_success(ack: dict[str, Any]) -> Any:
    """The data of an acknowledgement of success."""
    assert set(ack) == {"success", "data", "timestamp"}, ack
    assert ack["success"] is True
    assert ack["timestamp"] > UNIX_MS
    return ack["data"]


@pytest.mark.parametrize("path", ["socket.io", "llamaproxws"])
@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="+".join)
async def test_the_status_comes_on_connect(web_house: WebHouse, path: str, transports: list[str]) -> None:
    await web_house.serve()
    dashboard = await web_house.dashboard(socketio_path=path, transports=transports)
    message = await dashboard.hear("llamaStatus")
    assert_status(message)
    assert message["data"]["instance"] == "one"
    assert message["data"]["status"] == "initial"


async def test_every_change_is_told_to_every_transport_in_order(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model, autostart=False)})
    watching = [
        await web_house.dashboard(transports=kind) for kind in (["websocket"], ["polling"], ["polling", "websocket"])
    ]
    await web_house.supervisor.fleet.start("one")
    await web_house.reach("one", State.READY)
    await web_house.supervisor.fleet.stop_and_wait("one")
    for dashboard in watching:
        await until(lambda: all(each.statuses()[-1] == "initial" for each in watching), "the end")
        assert len(dashboard.statuses()) > 1
        numbers = [message["seq"] for message in dashboard.named("llamaStatus")]
        assert numbers == sorted(numbers)


async def test_the_status_on_request_is_also_the_acknowledgement(web_house: WebHouse) -> None:
    await web_house.serve()
    dashboard = await web_house.dashboard()
    await dashboard.hear("llamaStatus")
    ack = await dashboard.ask("requestLlamaStatus")
    assert_status(ack)
    assert await dashboard.hear("llamaStatus", 2) == ack


async def test_models_metrics_and_logs_of_a_real_engine(web_house: WebHouse) -> None:
    await web_house.serve({"demo": DEMO})
    await web_house.reach("demo", State.READY)
    dashboard = await web_house.dashboard()
    (model,) = assert_success(await dashboard.ask("requestModels"))
    assert set(model) >= {"id", "name", "type", "status", "size", "createdAt", "updatedAt"}
    assert (model["id"], model["status"]) == ("demo", "ready")
    assert model["size"] > 1_000_000
    assert (await dashboard.hear("models"))["data"] == [model]
    metrics = assert_success(await dashboard.ask("requestMetrics"))
    assert set(metrics) >= {
        "activeModels", "totalRequests", "avgResponseTime", "memoryUsage", "cpuUsage", "uptime", "lastUpdated",
        "tokensPerSecond", "requestsActive", "requestsQueued",
    }  # fmt: skip
    assert metrics["activeModels"] == 1
    assert metrics["memoryUsage"] > 1_000_000
    assert (await dashboard.hear("metrics"))["data"] == metrics
    logs = assert_success(await dashboard.ask("requestLogs"))
    assert set(logs[0]) >= {"id", "level", "message", "timestamp", "context"}
    assert logs[0]["context"]["source"] == "demo:stderr"
    assert (await dashboard.hear("logs"))["type"] == "logs"


async def test_start_stop_restart_from_the_dashboard(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model, autostart=False)})
    dashboard = await web_house.dashboard()
    assert assert_success(await dashboard.ask("startLlamaServer"))["status"] == "starting"
    await web_house.reach("one", State.READY)
    assert assert_success(await dashboard.ask("restartServer"))["status"] == "stopping"
    await until(lambda: web_house.states_told("one").count("ready") == 2, "the second ready")
    assert assert_success(await dashboard.ask("stopModel", {"modelId": "one"}))["status"] == "stopping"
    await web_house.reach("one", State.INITIAL)
    assert assert_success(await dashboard.ask("startModel", {"modelId": "one"}))["status"] == "starting"
    await web_house.reach("one", State.READY)


@pytest.mark.parametrize(
    ("event", "payload", "code", "words"),
    [
        ("startModel", {"modelId": "onn"}, "model_not_found", "`one`"),
        ("startModel", {}, "invalid_request", "`modelId`"),
        ("startModel", {"modelId": 7}, "invalid_request", "`modelId`"),
        ("stopModel", "one", "invalid_request", "one object"),
        ("restartServer", {"instance": "two"}, "instance_not_found", "two"),
        ("requestLogs", {"instance": ["one"]}, "invalid_request", "`instance`"),
        ("subscribe", {"instance": "two"}, "instance_not_found", "two"),
        ("subscribe", None, "invalid_request", "`instance`"),
        ("dropTables", None, "unknown_event", "dropTables"),
        ("requestLlamaStatus", {"instance": "two"}, "instance_not_found", "two"),
    ],
)
async def test_bad_events_are_answered_with_what_is_wrong(
    web_house: WebHouse, event: str, payload: Any, code: str, words: str
) -> None:
    await web_house.serve()
    ack = await (await web_house.dashboard()).ask(event, payload)
    assert set(ack) == {"success", "error", "code", "timestamp"}
    assert ack["success"] is False
    assert ack["code"] == code
    assert words in ack["error"]


async def test_a_refused_transition_is_told(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model)})
    await web_house.reach("one", State.READY)
    ack = await (await web_house.dashboard()).ask("startLlamaServer")
    assert ack["success"] is False
    assert ack["code"] == "state_conflict"


async def test_rooms_the_default_one_or_all(web_house: WebHouse) -> None:
    idle = misbehaving(web_house.model, autostart=False)
    await web_house.serve({"one": idle, "two": idle})
    plain, second, everything = [await web_house.dashboard() for _ in range(3)]
    assert assert_success(await second.ask("subscribe", {"instance": "two"})) == {"instances": ["two"]}
    assert assert_success(await everything.ask("subscribe", {"instance": "*"})) == {"instances": ["one", "two"]}
    await web_house.supervisor.fleet.start("one")
    await web_house.supervisor.fleet.start("two")
    await web_house.reach("two", State.READY)
    await web_house.reach("one", State.READY)
    await until(lambda: "ready" in everything.statuses("one") and "ready" in everything.statuses("two"), "both")
    await until(lambda: "ready" in plain.statuses("one") and "ready" in second.statuses("two"), "each its own")
    assert plain.statuses("two") == []
    assert second.statuses("one") == ["initial"]


async def test_a_reload_is_told_to_who_hears_everything(web_house: WebHouse) -> None:
    idle = misbehaving(web_house.model, autostart=False)
    await web_house.serve({"one": idle, "two": idle})
    dashboard = await web_house.dashboard()
    await dashboard.ask("subscribe", {"instance": "*"})
    web_house.configure({"one": idle}, server={"port": 0})
    await web_house.supervisor.reload()
    assert (await dashboard.hear("instanceRemoved"))["data"]["instance"] == "two"
    assert (await dashboard.hear("configurationReloaded"))["data"]["removed"] == ["two"]


async def test_a_hundred_dashboards_all_hear_a_change(web_house: WebHouse) -> None:
    await web_house.serve()
    dashboards = [await web_house.dashboard() for _ in range(100)]
    await asyncio.gather(*(dashboard.hear("llamaStatus") for dashboard in dashboards))
    await web_house.supervisor.fleet.start("one")
    await web_house.reach("one", State.READY)
    await until(lambda: all(each.statuses()[-1] == "ready" for each in dashboards), "everyone to hear it")
    assert len(web_house.live.fanout) == 100


async def test_who_comes_back_learns_the_end_that_it_missed(web_house: WebHouse) -> None:
    await web_house.serve()
    dashboard = await web_house.dashboard()
    await dashboard.hear("llamaStatus")
    await dashboard.client.disconnect()
    await until(lambda: len(web_house.live.fanout) == 0, "the client to be forgotten")
    await web_house.supervisor.fleet.start("one")
    await web_house.reach("one", State.READY)
    again = await web_house.dashboard()
    message = await again.hear("llamaStatus")
    assert message["data"]["status"] == "ready"
    assert message["epoch"] == dashboard.named("llamaStatus")[0]["epoch"]
    assert message["seq"] > dashboard.named("llamaStatus")[0]["seq"]


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids="+".join)
@pytest.mark.parametrize(
    "way", [{"auth": {"token": KEY}}, {"headers": {"Authorization": f"Bearer {KEY}"}}], ids=["auth", "header"]
)
async def test_the_key_lets_a_client_in(web_house: WebHouse, transports: list[str], way: dict[str, Any]) -> None:
    await web_house.serve(server={"api_key": KEY})
    dashboard = await web_house.dashboard(transports=transports, **way)
    await dashboard.hear("llamaStatus")


@pytest.mark.parametrize(
    "way", [{}, {"auth": {"token": "wrong"}}, {"auth": "x"}, {"headers": {"Authorization": "Bearer x"}}]
)
async def test_without_the_key_the_namespace_refuses(web_house: WebHouse, way: dict[str, Any]) -> None:
    await web_house.serve(server={"api_key": KEY})
    with pytest.raises(socketio.exceptions.ConnectionError):
        await web_house.dashboard(**way)
    assert len(web_house.live.fanout) == 0


async def test_the_session_cookie_lets_a_browser_in(web_house: WebHouse) -> None:
    await web_house.serve(server={"api_key": KEY})
    async with web_house.http.post("/login", data={"key": KEY}, allow_redirects=False) as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    dashboard = await web_house.dashboard(headers={"Cookie": cookie})
    await dashboard.hear("llamaStatus")
