"""Fault rows 22, 23, 25, 26: whose process it is, over the lives of the supervisor and of other people's servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from supervisor.core import Supervisor
from supervisor.errors import DataFolderInUseError
from supervisor.fleet.planning import settings_digest
from supervisor.launch import Address
from supervisor.process import posix, spawning
from supervisor.process.states import State
from tests.fixtures.house import House, misbehaving
from tests.fixtures.nursery import GENEROUS_SECONDS, MISBEHAVING, until

pytestmark = pytest.mark.faults


async def foreign_server(port: int) -> asyncio.subprocess.Process:
    """A server that somebody else runs."""
    return await asyncio.create_subprocess_exec(str(MISBEHAVING), "--port", str(port))


def free_port() -> int:
    """A port that nobody listens on just now."""

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_row_22_an_adopted_server_is_watched_and_never_killed(house: House) -> None:
    port = free_port()
    server = await foreign_server(port)
    await until(lambda: posix.listening_pids(Address(port=port)), "the foreign server to listen")
    await house.open({"one": misbehaving(house.model, port=port)})
    snapshot = await house.reach("one", State.READY)
    assert (snapshot.adopted, snapshot.pid) == (True, server.pid)
    assert await house.supervisor.fleet.stop_and_wait("one") is State.INITIAL
    assert server.returncode is None
    assert posix.Identity.of(server.pid) is not None
    server.kill()
    await server.wait()


async def test_row_22_an_adopted_server_is_killed_for_who_asks_for_it_in_so_many_words(house: House) -> None:
    port = free_port()
    server = await foreign_server(port)
    await until(lambda: posix.listening_pids(Address(port=port)), "the foreign server to listen")
    await house.open({"one": misbehaving(house.model, port=port)})
    await house.reach("one", State.READY)
    await house["one"].stop(kill_adopted=True)
    await house.reach("one", State.INITIAL)
    assert await asyncio.wait_for(server.wait(), GENEROUS_SECONDS) in (0, -signal.SIGTERM)


async def test_row_22_an_adopted_server_that_dies_is_replaced_by_a_child_of_ours(house: House) -> None:
    port = free_port()
    server = await foreign_server(port)
    await until(lambda: posix.listening_pids(Address(port=port)), "the foreign server to listen")
    await house.open({"one": misbehaving(house.model, port=port)})
    await house.reach("one", State.READY)
    server.kill()
    await server.wait()
    crashed = await house.reach("one", State.CRASHED)
    assert crashed.cause is not None
    assert crashed.cause.reason == "adopted_exited"
    ready = await house.reach("one", State.READY)
    assert not ready.adopted
    assert ready.pid != server.pid


async def test_row_22_a_url_is_probed_again_and_adopted_again(house: House) -> None:
    port = free_port()
    server = await foreign_server(port)
    await until(lambda: posix.listening_pids(Address(port=port)), "the foreign server to listen")
    figures = {"retry_base_seconds": 0.5, "max_retries": 50, "retry_cap_seconds": 1}
    watched = misbehaving(house.model, supervision=figures, url=f"http://127.0.0.1:{port}")
    await house.open({"one": {**watched, "model": None}})
    await house.reach("one", State.READY)
    server.kill()
    await server.wait()
    await house.reach("one", State.CRASHED)
    again = await foreign_server(port)
    ready = await house.reach("one", State.READY)
    assert (ready.adopted, ready.pid) == (True, again.pid)
    await house.supervisor.fleet.stop_and_wait("one")
    again.kill()
    await again.wait()


async def test_row_23_a_survivor_is_taken_back_by_the_next_supervisor(house: House) -> None:
    await house.open({"one": misbehaving(house.model, survive_supervisor=True)})
    first = (await house.reach("one", State.READY)).pid
    await house.supervisor.close()
    assert [found.identity.pid for found in house.processes()] == [first]
    house.supervisor = await Supervisor.open(house.load(), house.data_folder, load=house.load)
    await house.supervisor.start()
    ready = await house.reach("one", State.READY)
    assert ready.pid == first
    assert not ready.adopted
    assert len(house.processes()) == 1


async def test_row_23_a_survivor_with_other_settings_is_not_taken_back(house: House) -> None:
    await house.open({"one": misbehaving(house.model, survive_supervisor=True)})
    first = (await house.reach("one", State.READY)).pid
    await house.supervisor.close()
    house.configure({"one": misbehaving(house.model, survive_supervisor=True, knobs={"parallel": 3})})
    house.supervisor = await Supervisor.open(house.load(), house.data_folder, load=house.load)
    await house.supervisor.start()
    ready = await house.reach("one", State.READY)
    assert ready.pid != first
    assert len(house.processes()) == 1


async def test_row_23_what_a_survivor_said_last_is_known(house: House) -> None:
    figures = {"retry_base_seconds": 30}
    await house.open({"one": misbehaving(house.model, survive_supervisor=True, supervision=figures)})
    await house.reach("one", State.READY)
    await house.supervisor.close()
    house.supervisor = await Supervisor.open(house.load(), house.data_folder, load=house.load)
    await house.supervisor.start()
    ready = await house.reach("one", State.READY)
    assert ready.pid is not None
    with (house.data_folder / "logs" / "one.log").open("a") as log:
        log.write("the dog ate the tensors\n")
    os.kill(ready.pid, signal.SIGKILL)
    crashed = await house.reach("one", State.CRASHED)
    assert crashed.cause is not None
    assert crashed.cause.output_tail[-1] == "the dog ate the tensors"


async def leftover(house: House, *, survive: bool, leads: bool) -> asyncio.subprocess.Process:
    """A process that carries every mark of the instance `one`, as an earlier supervisor would have left it."""
    settings = {"one": misbehaving(house.model, survive_supervisor=survive)}
    await house.open(settings)
    run_id = house.supervisor.folder.run_id
    await house.reach("one", State.READY)
    house.supervisor.request_shutdown(stop_survivors=True)
    await house.supervisor.close()
    marks = {
        spawning.RUN_ID: run_id,
        spawning.INSTANCE: "one",
        spawning.SPEC: settings_digest(house.load().settings.instances["one"]),
        "PATH": os.environ["PATH"],
    }
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    return await asyncio.create_subprocess_exec(*sleeper, env=marks, start_new_session=leads)


@pytest.mark.parametrize(("survive", "leads"), [(False, True), (True, False)], ids=["not meant to", "a mere child"])
async def test_row_23_what_is_no_survivor_is_ended_whatever_its_marks(house: House, survive: bool, leads: bool) -> None:
    process = await leftover(house, survive=survive, leads=leads)
    house.supervisor = await Supervisor.open(house.load(), house.data_folder, load=house.load)
    await house.supervisor.start()
    assert await asyncio.wait_for(process.wait(), GENEROUS_SECONDS) == -signal.SIGKILL
    await house.reach("one", State.READY)
    assert len(house.processes()) == 1


async def test_row_10_what_no_instance_knows_is_swept_at_the_end(house: House) -> None:
    await house.open({"one": misbehaving(house.model)})
    await house.reach("one", State.READY)
    assert posix.is_subreaper()
    marks = {spawning.RUN_ID: house.supervisor.folder.run_id, spawning.INSTANCE: "none", "PATH": os.environ["PATH"]}
    stray = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)", env=marks)
    await house.supervisor.close()
    assert await asyncio.wait_for(stray.wait(), GENEROUS_SECONDS) == -signal.SIGKILL
    assert not posix.is_subreaper()


async def test_row_25_the_second_supervisor_on_a_data_folder_refuses_and_names_the_first(house: House) -> None:
    await house.open({"one": misbehaving(house.model)})
    with pytest.raises(DataFolderInUseError, match=str(os.getpid())):
        await Supervisor.open(house.load(), house.data_folder)
    await house.reach("one", State.READY)


async def test_row_26_a_child_that_no_record_knows_is_found_at_the_next_boot(house: House) -> None:
    await house.open({"one": misbehaving(house.model, autostart=False)})
    run_id = house.supervisor.folder.run_id
    await house.supervisor.close()
    marks = {spawning.RUN_ID: run_id, spawning.INSTANCE: "one", "PATH": os.environ["PATH"]}
    orphan = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)", env=marks)
    house.supervisor = await Supervisor.open(house.load(), house.data_folder, load=house.load)
    assert await orphan.wait() == -signal.SIGKILL


async def test_row_26_twin_a_process_of_another_run_is_left_alone(house: House, tmp_path: Path) -> None:
    marks = {spawning.RUN_ID: "0" * 32, spawning.INSTANCE: "one", "PATH": os.environ["PATH"]}
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)", env=marks)
    await house.open({"one": misbehaving(house.model)})
    await house.reach("one", State.READY)
    assert other.returncode is None
    other.kill()
    await other.wait()
