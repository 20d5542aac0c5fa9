"""What the machine has left: the kernel's count, the limits of our control group, and NVIDIA's GPUs where there are any."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from supervisor.fleet.placement.memory import Gpu, MachineMemory
from supervisor.process import procfs

logger = logging.getLogger(__name__)

CGROUPS = Path("/sys/fs/cgroup")
# Limit, use, and what of the use the kernel can take back at once: the files of both versions.
_VERSION_2 = ("memory.max", "memory.current", ("active_file", "inactive_file"))
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))

GpuReader = Callable[[], Mapping[int, Gpu]]


def read_machine(gpus: GpuReader | None = None) -> MachineMemory:
    """The reading now. It takes a fraction of a millisecond; `gpus` (default: NVML, if it is there) some more."""
    available = psutil.virtual_memory().available
    limit = cgroup_available()
    return MachineMemory(available if limit is None else min(available, limit), (gpus or nvml_reader())())


def cgroup_available(root: Path = CGROUPS, membership: str | None = None) -> int | None:
    """Bytes that our control group and those above it allow us still, in either version of control groups; None without a limit.

    `membership` is the text of `/proc/self/cgroup`.
    """
    text = os.fsdecode(procfs.read_bytes("/proc/self/cgroup") or b"") if membership is None else membership
    rooms = [left for folder, files in _folders(root, text) if (left := _left(folder, *files)) is not None]
    return min(rooms, default=None)


def _folders(root: Path, membership: str) -> Iterator[tuple[Path, tuple[str, str, tuple[str, str]]]]:
    """Our groups that account for memory, and every group above; within a container the names may be those of the host, and only the top is there."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, files = (root / "memory", _VERSION_1) if controllers else (root, _VERSION_2)
        folder = top / path.lstrip("/")
        for level in (folder, *folder.parents):
            if level.is_relative_to(top):
                yield level, files


def _left(folder: Path, limit_file: str, use_file: str, reclaimable: tuple[str, str]) -> int | None:
    try:
        limit, use = (folder / limit_file).read_text().strip(), int((folder / use_file).read_text())
        figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Version 1 writes "no limit" as the largest multiple of a page.
    if limit == "max" or int(limit) >= 2**62:
        return None
    return max(0, int(limit) - use + sum(int(figures.get(name, 0)) for name in reclaimable))


@cache
def nvml_reader() -> GpuReader:
    """A reader of NVIDIA's GPUs; of none where the library (extra `gpu`) or the driver is missing. Decided once: neither comes while we run."""
    try:
        import pynvml
    except ImportError:
        return dict
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.info("GPUs are not looked at: %s", error)
        return dict
    return lambda: read_gpus(pynvml)


def read_gpus(nvml: Any) -> Mapping[int, Gpu]:
    """Every GPU that NVML can read, by its index; `nvml` is the module `pynvml`, initialised."""
    gpus: dict[int, Gpu] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            logger.warning("GPU %d cannot be read: %s", index, error)
            continue
        gpus[index] = Gpu(int(memory.total), int(memory.free), _used_by(nvml, handle))
    return gpus


def _used_by(nvml: Any, handle: Any) -> dict[int, int]:
    """What each process has of a GPU; nothing where the driver does not tell, as in most containers."""
    try:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return {}
    return {process.pid: int(process.usedGpuMemory) for process in processes if process.usedGpuMemory}
