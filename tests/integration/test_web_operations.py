"""Health, the instances, reload, shutdown, metrics, OpenAPI: the answers hold what they promise."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisor.process.states import State
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.webhouse import DEMO, WebHouse
from web.schemas import COMPONENTS, ref


def check(value: Any, component: str) -> None:
    """Hold an answer against the schema that documents it."""
    jsonschema.validate(value, {"components": {"schemas": COMPONENTS}, **ref(component)})


async def test_health_from_down_to_ok_and_readiness(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model, autostart=False, required=True)})
    async with web_house.http.get("/health") as answer:
        body = await answer.json()
        assert (answer.status, body["status"]) == (503, "down")
        check(body, "Health")
    async with web_house.http.get("/readyz") as answer:
        body = await answer.json()
        assert answer.status == 503
        assert body["waiting"] == [{"instance": "one", "status": "initial", "reason": None}]
        check(body, "Readiness")
    await web_house.supervisor.fleet.start("one")
    await web_house.reach("one", State.READY)
    assert (await web_house.json("/health"))["status"] == "ok"
    assert await web_house.json("/readyz") == {"ready": True, "waiting": []}
    async with web_house.http.get("/livez") as answer:
        assert (answer.status, answer.content_type, await answer.text()) == (200, "text/plain", "ok\n")


async def test_instances_by_rest_are_those_of_the_dashboard(web_house: WebHouse) -> None:
    await web_house.serve({"demo": DEMO})
    await web_house.reach("demo", State.READY)
    picture = await web_house.json("/admin/instances")
    check(picture, "Picture")
    assert picture["default"] == "demo"
    assert picture["seq"] == web_house.supervisor.events.seq
    detail = await web_house.json("/admin/instances/demo")
    check(detail, "InstanceDetail")
    assert [entry["status"] for entry in detail["history"]] == ["initial", "starting", "ready"]
    live = await (await web_house.dashboard()).ask("requestLlamaStatus")
    for changing in ("uptime", "history"):
        detail.pop(changing)
        live["data"].pop(changing, None)
    assert live["data"] == detail
    assert await web_house.json("/", headers={"Accept": "application/json"}) == {
        **picture,
        "timestamp": pytest.approx(picture["timestamp"], abs=60_000),
        "instances": [{**picture["instances"][0], "uptime": pytest.approx(picture["instances"][0]["uptime"], abs=60)}],
    }


async def test_the_history_counts_on_when_a_reload_makes_the_instance_anew(web_house: WebHouse) -> None:
    """Nobody who counts its changes may take two of them for one, or hear of one that nobody can find."""
    await web_house.serve({"one": misbehaving(web_house.model)})
    await web_house.reach("one", State.READY)
    web_house.configure({"one": misbehaving(web_house.model, knobs={"stdout_text": "changed"})}, server={"port": 0})
    async with web_house.http.post("/admin/reload") as answer:
        assert (await answer.json())["changed"] == ["one"]
    await web_house.reach("one", State.READY)
    detail = await web_house.json("/admin/instances/one")
    story = ["initial", "starting", "ready", "stopping", "initial", "starting", "ready"]
    assert [entry["status"] for entry in detail["history"]] == story
    assert [entry["stateSeq"] for entry in detail["history"]] == list(range(len(story)))
    assert detail["stateSeq"] == len(story) - 1


async def test_start_stop_restart(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model, autostart=False)})
    for action, taken, reached in [
        ("start", "starting", State.READY),
        ("stop", "stopping", State.INITIAL),
        ("start", "starting", State.READY),
    ]:
        async with web_house.http.post(f"/admin/instances/one/{action}") as answer:
            body = await answer.json()
            assert (answer.status, body["status"]) == (202, taken)
            check(body, "Instance")
        await web_house.reach("one", reached)
    async with web_house.http.post("/admin/instances/one/restart", json={}) as answer:
        assert answer.status == 202
    await until(lambda: web_house.states_told("one").count("ready") == 3, "ready again")


async def test_reload_by_difference(web_house: WebHouse) -> None:
    idle = misbehaving(web_house.model, autostart=False)
    await web_house.serve({"one": idle, "two": idle})
    web_house.configure({"one": idle, "three": idle}, server={"port": 0})
    async with web_house.http.post("/admin/reload") as answer:
        body = await answer.json()
        assert (answer.status, body["status"], body["message"]) == (200, "ok", "Reload complete")
        check(body, "Reload")
    assert (body["added"], body["removed"], body["unchanged"]) == (["three"], ["two"], ["one"])


async def test_shutdown_is_answered_and_asked_for(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.http.post("/admin/shutdown") as answer:
        assert await answer.json() == {"status": "ok", "message": "Shutdown initiated"}
    await until(web_house.supervisor.shutdown_requested.is_set, "the request")


async def test_metrics_parse_and_count(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model)})
    await web_house.reach("one", State.READY)
    pid = web_house["one"].snapshot().pid
    assert pid is not None
    (child,) = web_house["one"].pids()[:1]
    assert child == pid
    await (await web_house.dashboard()).hear("llamaStatus")
    samples = await scrape(web_house)
    assert samples["llamavisor_instance_state", ("one", "ready")] == 1
    assert samples["llamavisor_instance_state", ("one", "starting")] == 0
    assert samples["llamavisor_instance_state_seconds_total", ("one", "starting")] > 0
    assert samples["llamavisor_instance_state_seconds_total", ("one", "ready")] > 0
    assert samples["llamavisor_instance_memory_bytes", ("one",)] > 1_000_000
    assert samples["llamavisor_live_clients", ()] == 1
    assert samples["llamavisor_requests_active", ("one",)] == 0
    assert ("llamavisor_requests_total", ("one", "ok")) in samples
    assert all(name.startswith("llamavisor_") for name, _ in samples)


async def test_metrics_count_restarts_by_reason(web_house: WebHouse) -> None:
    await web_house.serve(
        {"one": misbehaving(web_house.model, knobs={"exit_after_ready_seconds": 0.2, "exit_code": 3})}
    )
    await until(lambda: web_house.states_told("one").count("starting") >= 2, "a restart")
    restarts = (await scrape(web_house))["llamavisor_instance_restarts_total", ("one", "exit_code")]
    assert restarts >= 1
    await web_house.supervisor.fleet.stop_and_wait("one")


async def scrape(house: WebHouse) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels."""
    async with house.http.get("/metrics") as answer:
        families = list(text_string_to_metric_families(await answer.text()))
    return {
        (sample.name, tuple(sample.labels[key] for key in sample.labels if key != "version")): sample.value
        for family in families
        for sample in family.samples
    }


async def test_openmetrics_where_it_is_asked_for(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.http.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    ) as answer:
        assert answer.content_type == "application/openmetrics-text"
        assert (await answer.text()).endswith("# EOF\n")


async def test_openapi_covers_every_route(web_house: WebHouse) -> None:
    await web_house.serve()
    document = await web_house.json("/openapi.json")
    assert document["openapi"] == "3.1.0"
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    live = {
        (route.method, getattr(route.resource, "canonical", ""))
        for route in web_house.web.app.router.routes()
        if route.method != "HEAD"
    }
    assert documented == live
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for one in operations:
        assert one["responses"]
        assert all(reply["description"] for reply in one["responses"].values())
        assert one["summary"]
        assert all(parameter["schema"] for parameter in one["parameters"])


async def test_openapi_schemas_are_schemas_and_every_reference_leads_somewhere(web_house: WebHouse) -> None:
    await web_house.serve()
    document = await web_house.json("/openapi.json")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def references(value: Any) -> list[str]:
    """Every `$ref` within."""
    if isinstance(value, list):
        return [found for one in value for found in references(one)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if "$ref" in value else []
    return own + [found for one in value.values() for found in references(one)]
