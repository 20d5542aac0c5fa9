"""Fault row 53, the other half: what a reload says is in force, is."""

from __future__ import annotations

import pytest

from supervisor.launch import Address
from supervisor.process import posix
from supervisor.process.states import State
from tests.faults.test_rows_identity import foreign_server, free_port
from tests.fixtures.gguf_files import write_tiny_llama
from tests.fixtures.house import House, misbehaving
from tests.fixtures.nursery import until

pytestmark = pytest.mark.faults


async def test_row_53_log_limits_take_effect_without_a_restart(house: House) -> None:
    knobs = {"stderr_text": "\n".join(map(str, range(100)))}
    await house.open({"one": misbehaving(house.model, knobs=knobs)})
    before = await house.reach("one", State.READY)
    output = house["one"].output
    assert len(output.tail(1_000)) > 100
    house.configure({"one": misbehaving(house.model, knobs=knobs, log_ring_lines=20)})
    report = await house.supervisor.reload()
    assert report.retuned == ("one",)
    assert house["one"].snapshot().pid == before.pid
    await house["one"].restart()
    await house.reach("one", State.STARTING)
    await house.reach("one", State.READY)
    assert house["one"].output is output
    assert len(output.tail(1_000)) <= 20


async def test_row_53_that_nothing_is_to_be_adopted_any_more_takes_effect(house: House) -> None:
    port = free_port()
    server = await foreign_server(port)
    await until(lambda: posix.listening_pids(Address(port=port)), "the foreign server to listen")
    await house.open({"one": misbehaving(house.model, port=port)})
    await house.reach("one", State.READY)
    house.configure({"one": misbehaving(house.model, port=port, adopt=False)})
    await house.supervisor.reload()
    await house.supervisor.fleet.stop_and_wait("one")
    await house["one"].start()
    snapshot = await house.reach("one", State.ERROR, State.READY)
    server.kill()
    await server.wait()
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "port_in_use"


async def test_row_53_model_folders_take_effect(house: House) -> None:
    folder = house.folder / "models"
    folder.mkdir()
    write_tiny_llama(folder / "tiny.gguf")
    one = {**misbehaving(house.model), "model": "tiny"}
    await house.open({"one": one})
    await house.reach("one", State.ERROR)
    house.configure({"one": one}, models={"folders": [str(folder)]})
    await house.supervisor.reload()
    await house["one"].start()
    await house.reach("one", State.READY)


async def test_row_53_an_instance_in_error_starts_when_its_settings_are_mended(house: House) -> None:
    wrong = misbehaving(house.model, engine={"kind": "llama-server", "binary": "/no/such/llama-server"})
    await house.open({"one": wrong})
    await house.reach("one", State.ERROR)
    house.configure({"one": misbehaving(house.model)})
    await house.supervisor.reload()
    await house.reach("one", State.READY)


async def test_row_53_twin_a_stopped_instance_stays_stopped(house: House) -> None:
    await house.open({"one": misbehaving(house.model)})
    await house.supervisor.fleet.stop_and_wait("one")
    house.configure({"one": misbehaving(house.model, knobs={"parallel": 3})})
    await house.supervisor.reload()
    assert house["one"].state is State.INITIAL
