"""What a model takes, what there is, what was measured: from headers, control groups, an injected NVML, and a file that may be anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.config import InstanceSettings
from supervisor.config.placement_settings import MemorySettings
from supervisor.errors import NotAvailableError
from supervisor.fleet.placement.debts import DEADLINE_SECONDS, Debts
from supervisor.fleet.placement.eviction import Tenant
from supervisor.fleet.placement.machine import cgroup_available, read_gpus, read_machine
from supervisor.fleet.placement.measured import MeasuredBook
from supervisor.fleet.placement.memory import (
    GPU_PROCESS_BYTES,
    PROCESS_BYTES,
    Gpu,
    MachineMemory,
    cache_bytes,
    estimate,
    reservation,
    room,
)
from supervisor.fleet.placement.notes import Notes
from supervisor.fleet.placement.resources import HOST, group
from supervisor.fleet.placement.wishes import Wishes
from supervisor.models.gguf import GgufHeader, read_gguf_header
from supervisor.process.states import State
from tests.fixtures.gguf_files import write_tiny_llama

GIB = 1024**3
MIB = 1024**2


def settings(**engine: Any) -> InstanceSettings:
    return InstanceSettings.model_validate({"model": "m", "engine": engine or "embedded"})


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    """24 layers of 4 heads of 16 numbers, 65,536 tokens: 384 MiB of cache in f16, as llama.cpp reports for it."""
    return read_gguf_header(
        write_tiny_llama(tmp_path_factory.mktemp("m") / "deep.gguf", blocks=24, context_length=65_536)
    )


def test_the_cache_is_that_of_llama_cpp(header: GgufHeader) -> None:
    def cache(**flags: Any) -> int:
        return cache_bytes(header, settings(**flags).engine)  # type: ignore[arg-type]

    assert cache() == 384 * MIB
    assert cache(ctx_size=16_384) == 96 * MIB
    assert cache(ctx_size=1) == cache(ctx_size=256)
    assert cache(cache_type_k="q8_0", cache_type_v="f32") == 384 * MIB * (34 / 32 + 4) / 4


def test_what_is_not_known_is_not_named(header: GgufHeader) -> None:
    assert estimate(settings(kind="command", argv=["x"]), header, {}) == {}
    assert estimate(settings(), None, {}) == {}
    assert estimate(InstanceSettings.model_validate({"url": "http://127.0.0.1:1"}), header, {}) == {}


def test_layers_on_a_gpu_take_its_memory_and_not_the_machine_s(header: GgufHeader) -> None:
    gpus = {0: Gpu(80 * GIB, 70 * GIB), 1: Gpu(80 * GIB, 80 * GIB)}
    embedded = estimate(settings(), header, gpus)
    assert list(embedded) == [HOST]
    all_of_it = estimate(settings(kind="llama-server"), header, gpus)
    assert all_of_it["gpu0"] == all_of_it["gpu1"] > GPU_PROCESS_BYTES + 384 * MIB // 2
    assert all_of_it[HOST] < embedded[HOST] - 384 * MIB
    half = estimate(settings(kind="llama-server", gpu_layers=12), header, gpus)
    assert all_of_it[HOST] < half[HOST] < embedded[HOST]
    assert estimate(settings(kind="llama-server", gpu_layers=0), header, gpus) == embedded
    assert estimate(settings(kind="llama-server"), header, {}) == embedded


def test_vllm_takes_its_share_of_the_gpus_that_it_sees() -> None:
    gpus = {0: Gpu(80 * GIB, 70 * GIB), 1: Gpu(40 * GIB, 40 * GIB)}
    assert estimate(settings(kind="vllm"), None, gpus) == {"gpu0": round(72 * GIB)}
    two = {"kind": "vllm", "tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}
    assert estimate(settings(**two), None, gpus) == {"gpu0": 40 * GIB, "gpu1": 20 * GIB}
    own = InstanceSettings.model_validate({"model": "m", "engine": "vllm", "env": {"CUDA_VISIBLE_DEVICES": "1,7"}})
    assert estimate(own, None, gpus) == {"gpu1": 36 * GIB}


def test_room_counts_what_is_promised_and_what_the_kernel_gives_away_twice() -> None:
    needs, taken = {HOST: 5 * GIB, group("g"): 1}, {HOST: 3 * GIB}
    reserved = reservation(needs, taken, mapped_bytes=2 * GIB)
    assert reserved[HOST] == 4 * GIB
    tenant = Tenant("a", needs, reserved=reserved)
    machine = MachineMemory(10 * GIB, {0: Gpu(GIB, GIB // 2)})
    free = room(machine, [tenant], MemorySettings(reserve_bytes=GIB), {"g": 1})
    assert free == {HOST: 5 * GIB, "gpu0": GIB // 2, group("g"): 0}
    limited = room(machine, [tenant], MemorySettings(limit_bytes=6 * GIB, reserve_bytes=GIB), {})
    assert limited[HOST] == GIB


def test_the_limits_of_control_groups_of_both_versions(tmp_path: Path) -> None:
    assert cgroup_available(tmp_path, "0::/a/b\n") is None
    write(tmp_path / "a/b", {"memory.max": "max", "memory.current": "5", "memory.stat": ""})
    assert cgroup_available(tmp_path, "0::/a/b\n") is None
    stat = "anon 60\nactive_file 10\ninactive_file 20\n"
    write(tmp_path / "a", {"memory.max": "100", "memory.current": "90", "memory.stat": stat})
    assert cgroup_available(tmp_path, "0::/a/b\n") == 40
    version_1 = {"memory.limit_in_bytes": "50", "memory.usage_in_bytes": "45", "memory.stat": "total_active_file 1\n"}
    write(tmp_path / "memory", version_1)
    assert cgroup_available(tmp_path, "4:cpu,memory:/of/the/host\n1:name=systemd:/\n") == 6
    write(tmp_path / "memory", version_1 | {"memory.limit_in_bytes": "9223372036854771712"})
    assert cgroup_available(tmp_path, "4:memory:/\n") is None


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_this_machine_has_memory() -> None:
    assert read_machine(dict).available_bytes > 0
    assert read_machine(lambda: {0: Gpu(2, 1)}).gpus == {0: Gpu(2, 1)}


class FakeNvml:
    """NVML with a healthy GPU, one that keeps its processes to itself, and one that is lost."""

    class NVMLError(Exception):
        """Any failure."""

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=80, free=50)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        if handle == 1:
            raise self.NVMLError("Not Supported")
        return [SimpleNamespace(pid=7, usedGpuMemory=20), SimpleNamespace(pid=8, usedGpuMemory=None)]


def test_gpus_are_read_through_nvml_as_far_as_it_tells() -> None:
    assert read_gpus(FakeNvml()) == {0: Gpu(80, 50, {7: 20}), 1: Gpu(80, 50)}


async def test_measurements_are_kept_and_forgotten_by_and_by(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    book = MeasuredBook(path)
    book.note("a", "d1", {HOST: 1_000}, load_seconds=2.0)
    book.note("a", "d1", {HOST: 100})
    await book.save()
    kept = MeasuredBook(path).of("a", "d1")
    assert kept is not None
    assert (kept.peak, kept.load_seconds) == ({HOST: 900}, 2.0)
    assert MeasuredBook(path).of("a", "another model") is None
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1, "instances": {"a": 7}}', '{"format": 2}', "\x00"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "placement.json"
    path.write_text(text)
    assert MeasuredBook(path).of("a", "") is None


async def test_a_disk_that_takes_nothing_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = MeasuredBook(tmp_path / "no such folder" / "placement.json")
    book.note("a", "d", {HOST: 1})
    await book.save()
    assert "could not be noted" in caplog.text


def test_memory_is_owed_until_the_machine_shows_it_or_it_is_too_late(caplog: pytest.LogCaptureFixture) -> None:
    debts, machine = Debts(), MachineMemory(GIB)
    debts.incur(machine, [Tenant("a", {}, gives_back={HOST: GIB}), Tenant("small", {}, gives_back={"gpu0": 5})])
    assert not debts.outstanding(machine, 0.0, anyone_leaving=True)
    assert debts.outstanding(machine, 5.0, anyone_leaving=False) == {HOST}
    assert not debts.outstanding(MachineMemory(2 * GIB), 6.0, anyone_leaving=False)
    debts.incur(machine, [Tenant("a", {}, gives_back={HOST: GIB})])
    assert debts.outstanding(machine, 10.0, anyone_leaving=False)
    assert not debts.outstanding(machine, 10.0 + DEADLINE_SECONDS, anyone_leaving=False)
    assert "were to be free" in caplog.text


def test_wishes_are_told_once_and_a_fault_of_one_is_not_the_others(caplog: pytest.LogCaptureFixture) -> None:
    wishes, told = Wishes(), list[str]()
    error = NotAvailableError("no")

    def faulty(_error: object) -> None:
        raise RuntimeError("a fault of somebody else's")

    wishes.add("b", 1.0, faulty)
    first = wishes.add("a", 2.0, lambda _error: told.append("first"))
    wishes.add("b", 3.0, lambda _error: told.append("second"))
    assert (wishes.names(), wishes.since("b"), wishes.since("c")) == (["b", "a"], 1.0, None)
    wishes.fail("b", error)
    assert told == ["second"]
    assert wishes.withdraw(first)
    assert not wishes.withdraw(first)
    wishes.fail_all(error)
    assert (told, wishes.names()) == (["second"], [])
    assert "a fault of somebody else's" in caplog.text


def test_a_stop_by_hand_is_told_from_our_own() -> None:
    notes = Notes()
    notes.begin(1.0, is_demanded=True)
    notes.enter(State.STARTING, 1.0, 1)
    assert notes.enter(State.READY, 4.0, 1) == 3.0
    assert notes.enter(State.READY, 9.0, 1) is None
    assert (notes.ready_since, notes.used_at) == (4.0, 4.0)
    notes.enter(State.STOPPING, 10.0, 7)
    notes.enter(State.INITIAL, 10.0, 8)
    assert notes.stopped_number == 7
    notes.enter(State.STARTING, 11.0, 8)
    assert notes.stopped_number is None
    notes.is_leaving = True
    notes.enter(State.STOPPING, 12.0, 9)
    assert notes.stopped_number is None


def test_a_failure_that_is_told_twice_is_one() -> None:
    notes = Notes()
    notes.enter(State.ERROR, 1.0, 3)
    notes.enter(State.ERROR, 2.0, 4)
    assert (notes.failed_number, notes.failed_at) == (3, 1.0)
    notes.enter(State.STARTING, 3.0, 5)
    notes.enter(State.ERROR, 4.0, 6)
    assert (notes.failed_number, notes.failed_at) == (6, 4.0)


def test_the_process_itself_is_counted(header: GgufHeader) -> None:
    assert estimate(settings(ctx_size=256), header, {})[HOST] > PROCESS_BYTES
