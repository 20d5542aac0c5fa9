"""`GET /events` and followed logs: replay, gaps, snapshots, shutdown."""

from __future__ import annotations

import pytest

from supervisor.process.states import State
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import until
from tests.fixtures.webhouse import EventReader, WebHouse


async def beginning(stream: EventReader) -> list[str]:
    """The names of the first two events."""
    return [(await stream.next())["event"] for _ in range(2)]


async def test_a_new_reader_gets_a_snapshot_and_then_changes(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.events() as stream:
        assert stream.response.content_type == "text/event-stream"
        snapshot, status = await stream.next(), await stream.next()
        assert snapshot["retry"] == "1000"
        assert snapshot["data"]["data"] == {"instances": ["one"], "default": "one"}
        assert status["event"] == "llama_status"
        assert status["id"] == f"{web_house.supervisor.events.epoch}:{web_house.supervisor.events.seq}"
        assert status["data"]["data"]["status"] == "initial"
        await web_house.supervisor.fleet.start("one")
        assert (await stream.next())["data"]["data"]["status"] == "starting"


async def test_a_reader_that_comes_back_gets_exactly_what_it_missed(web_house: WebHouse) -> None:
    await web_house.serve()
    log = web_house.supervisor.events
    for number in range(5):
        log.publish("configuration_refused", {"number": number})
    async with web_house.events(**{"Last-Event-ID": f"{log.epoch}:{log.seq - 2}"}) as stream:
        assert [(await stream.next())["data"]["data"]["number"] for _ in range(2)] == [3, 4]
        log.publish("configuration_refused", {"number": 5})
        assert (await stream.next())["data"]["data"]["number"] == 5


async def test_a_reader_that_is_up_to_date_gets_nothing_twice(web_house: WebHouse) -> None:
    await web_house.serve()
    log = web_house.supervisor.events
    async with web_house.events(**{"Last-Event-ID": f"{log.epoch}:{log.seq}"}) as stream:
        log.publish("configuration_refused", {"number": 1})
        assert (await stream.next())["data"]["data"] == {"number": 1}


@pytest.mark.parametrize(
    "last", ["", "nonsense", "other:3", "{epoch}:", "{epoch}:-1", "{epoch}:999999", "{epoch}:1e3", "{epoch}:٣"]
)
async def test_what_cannot_be_replayed_begins_with_a_snapshot(web_house: WebHouse, last: str) -> None:
    await web_house.serve()
    header = last.format(epoch=web_house.supervisor.events.epoch)
    async with web_house.events(**{"Last-Event-ID": header}) as stream:
        assert await beginning(stream) == ["snapshot", "llama_status"]


async def test_a_gap_larger_than_the_log_begins_with_a_snapshot(web_house: WebHouse) -> None:
    await web_house.serve()
    log = web_house.supervisor.events
    for number in range(2_500):
        log.publish("configuration_refused", {"number": number})
    log.publish("llama_status", web_house["one"].snapshot().to_wire(), instance="one")
    async with web_house.events(**{"Last-Event-ID": f"{log.epoch}:1"}) as stream:
        assert await beginning(stream) == ["snapshot", "llama_status"]


async def test_one_instance_only(web_house: WebHouse) -> None:
    idle = misbehaving(web_house.model, autostart=False)
    await web_house.serve({"one": idle, "two": idle})
    async with web_house.events("/events?instance=two") as stream:
        assert (await stream.next())["event"] == "snapshot"
        assert (await stream.next())["data"]["data"]["instance"] == "two"
        await web_house.supervisor.fleet.start("one")
        await web_house.supervisor.fleet.start("two")
        assert (await stream.next())["data"]["data"]["instance"] == "two"


async def test_a_reader_that_leaves_is_forgotten(web_house: WebHouse) -> None:
    await web_house.serve()
    before = web_house.supervisor.events.subscriber_count
    async with web_house.events() as stream:
        await stream.next()
        assert web_house.supervisor.events.subscriber_count == before + 1
    await until(lambda: web_house.supervisor.events.subscriber_count == before, "the subscription to end")


async def test_streams_end_when_the_server_stops(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.events() as stream:
        await beginning(stream)
        await web_house.web.stop()
        with pytest.raises(EOFError):
            await stream.next()


async def test_logs_tail_and_follow(web_house: WebHouse) -> None:
    await web_house.serve({"one": misbehaving(web_house.model)})
    await web_house.reach("one", State.READY)
    await until(lambda: len(web_house["one"].output.tail(10)) > 1, "some output")
    whole = await web_house.json("/admin/instances/one/logs")
    assert whole["instance"] == "one"
    assert (await web_house.json("/admin/instances/one/logs?tail=1"))["logs"] == whole["logs"][-1:]
    assert (await web_house.json("/admin/instances/one/logs?tail=0"))["logs"] == []
    async with web_house.events("/admin/instances/one/logs?tail=1&follow=1") as stream:
        first = await stream.next()
        assert first["event"] == "log"
        assert first["data"] == whole["logs"][-1]
        await web_house.supervisor.fleet.restart("one")
        newer = await stream.next()
        assert newer["data"]["id"] == first["data"]["id"] + 1
