"""Fault rows 1-3, 7, 15, 16, 19-21: what can go wrong while a server starts, with real processes."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from pathlib import Path

import pytest

from supervisor.fleet.addresses import FIRST_PORT, LAST_PORT
from supervisor.process.states import State
from tests.fixtures.house import House, misbehaving
from tests.fixtures.nursery import MISBEHAVING, until

pytestmark = pytest.mark.faults


async def test_row_01_a_missing_binary_is_an_error_at_once(house: House) -> None:
    broken = misbehaving(house.model, engine={"kind": "llama-server", "binary": "/no/such/llama-server"})
    await house.open({"one": broken})
    snapshot = await house.reach("one", State.ERROR)
    assert house.states_told("one") == ["starting", "error"]
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "missing_binary"
    assert "/no/such/llama-server" in snapshot.cause.message
    assert snapshot.retries == 0


async def test_row_01_a_binary_that_is_not_executable_is_an_error_at_once(house: House, tmp_path: Path) -> None:
    shutil.copy(MISBEHAVING, tmp_path / "server.py")
    (tmp_path / "server.py").chmod(0o644)
    broken = misbehaving(house.model, engine={"kind": "llama-server", "binary": str(tmp_path / "server.py")})
    await house.open({"one": broken})
    snapshot = await house.reach("one", State.ERROR)
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "not_executable"
    assert snapshot.cause.remedy


async def test_row_02_death_before_the_bind_shows_the_last_words(house: House) -> None:
    knobs = {"exit_at_once": True, "exit_code": 7, "stderr_text": "the dog ate the tensors"}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"max_retries": 1})})
    snapshot = await house.reach("one", State.ERROR)
    assert house.states_told("one") == ["starting", "crashed", "starting", "crashed", "error"]
    wire = snapshot.to_wire()
    assert (wire["exitCode"], wire["reason"]) == (7, "exit_code")
    assert any("the dog ate the tensors" in line for line in wire["stderrTail"])


async def test_row_03_death_while_loading_wakes_every_waiter_once(house: House) -> None:
    knobs = {"load_seconds": 60, "exit_after_seconds": 0.3, "exit_code": 1}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"retry_base_seconds": 20})})
    woken = [await house["one"].wait_for({State.CRASHED}, 20) for _ in range(3)]
    assert woken == [State.CRASHED] * 3
    assert house.states_told("one").count("crashed") == 1


async def test_row_07_a_crash_loop_is_bounded_even_when_it_reaches_ready(house: House) -> None:
    knobs = {"exit_after_ready_seconds": 0.05, "exit_code": 3}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"max_retries": 2})})
    snapshot = await house.reach("one", State.ERROR)
    told = house.states_told("one")
    assert told.count("starting") == 3
    assert told.count("crashed") == 3
    assert snapshot.retries == 2


async def test_row_07_stop_works_during_the_backoff(house: House) -> None:
    knobs = {"exit_at_once": True, "exit_code": 3}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"retry_base_seconds": 30})})
    await house.reach("one", State.CRASHED)
    assert await house.supervisor.fleet.stop_and_wait("one") is State.INITIAL
    assert house.states_told("one")[-2:] == ["stopping", "initial"]


async def test_row_15_a_long_load_with_progress_is_never_killed_early(house: House) -> None:
    # Three times the deadline, with a line of progress now and then.
    knobs = {"load_seconds": 3.0, "load_progress": True}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"start_deadline_seconds": 1})})
    await house.reach("one", State.READY, State.CRASHED)
    assert house.states_told("one") == ["starting", "ready"]


async def test_row_15_reading_the_model_file_counts_as_progress(house: House) -> None:
    knobs = {"load_seconds": 3.0, "load_by_reading": True}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"start_deadline_seconds": 1})})
    await until(lambda: (house["one"].snapshot().progress or 0) > 0.2, "a progress to be told")
    await house.reach("one", State.READY, State.CRASHED)
    assert house.states_told("one") == ["starting", "ready"]


async def test_row_16_a_load_without_any_progress_ends_at_the_deadline(house: House) -> None:
    figures = {"start_deadline_seconds": 0.8, "max_retries": 1}
    await house.open({"one": misbehaving(house.model, knobs={"load_seconds": 600}, supervision=figures)})
    snapshot = await house.reach("one", State.ERROR)
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "start_timeout"
    assert house.states_told("one") == ["starting", "crashed", "starting", "crashed", "error"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000 MiB: cudaMalloc failed: out of memory", "oom"),
        ("CUDA error: device is lost / GPU has fallen off the bus", "gpu_lost"),
    ],
)
async def test_row_19_the_cause_of_a_death_for_want_of_memory_is_kept(house: House, words: str, reason: str) -> None:
    knobs = {"exit_at_once": True, "exit_code": 1, "stderr_text": words}
    await house.open({"one": misbehaving(house.model, knobs=knobs, supervision={"retry_base_seconds": 20})})
    snapshot = await house.reach("one", State.CRASHED, State.ERROR)
    assert snapshot.cause is not None
    assert snapshot.cause.reason == reason
    assert snapshot.retries <= 1


async def test_row_19_a_kill_by_signal_nine_is_backed_off_too(house: House) -> None:
    await house.open({"one": misbehaving(house.model, knobs={"exit_at_once": True, "signal": 9})})
    snapshot = await house.reach("one", State.CRASHED)
    assert snapshot.cause is not None
    assert snapshot.cause.reason in ("signal", "oom")
    assert snapshot.next_retry_at_ms is not None


async def test_row_20_a_configured_port_that_is_taken_is_an_error_naming_the_holder(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        await house.open({"one": misbehaving(house.model, port=port)})
        snapshot = await house.reach("one", State.ERROR, State.CRASHED)
    assert house.states_told("one") == ["starting", "error"]
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "port_in_use"
    assert "pid" in snapshot.cause.message
    assert str(port) in snapshot.cause.message


def takes(holder: socket.socket, port: int) -> bool:
    """Whether it could be bound; a test beside this one may have the port for a moment."""
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


async def test_row_20_a_port_of_our_choice_that_is_taken_is_passed_over(house: House) -> None:
    argv = [str(MISBEHAVING), "--host", "${HOST}", "--port", "${PORT}"]
    one = misbehaving(house.model, engine={"kind": "command", "argv": argv})
    with socket.socket() as holder:
        # Bound and not listening: it answers nobody, and the kernel gives the port to nobody else. Those below it are held by other tests.
        port = next(port for port in range(FIRST_PORT, LAST_PORT) if takes(holder, port))
        await house.open({"one": one})
        snapshot = await house.reach("one", State.READY)
    assert snapshot.address is not None
    assert not snapshot.address.endswith(f":{port}")


async def test_row_21_a_stranger_on_our_port_is_never_ready(house: House, tmp_path: Path) -> None:
    """The child never binds; somebody else answers on its port, as healthily as can be."""
    port_file = tmp_path / "port"
    sleeper = f"import pathlib, sys, time; pathlib.Path({str(port_file)!r}).write_text(sys.argv[1]); time.sleep(600)"
    one = misbehaving(
        house.model,
        engine={"kind": "command", "argv": [sys.executable, "-c", sleeper, "${PORT}"]},
        supervision={"retry_base_seconds": 30},
    )
    await house.open({"one": one})
    await until(lambda: port_file.exists() and port_file.read_text(), "the child to be told its port")
    stranger = await asyncio.create_subprocess_exec(str(MISBEHAVING), "--port", port_file.read_text())
    snapshot = await house.reach("one", State.CRASHED, State.ERROR, State.READY)
    stranger.kill()
    await stranger.wait()
    # The port was of our choice: the next try gets another.
    assert house.states_told("one") == ["starting", "crashed"]
    assert snapshot.cause is not None
    assert snapshot.cause.reason == "stranger"
    assert str(stranger.pid) in snapshot.cause.message
