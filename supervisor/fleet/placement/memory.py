"""How much memory a model takes, estimated from its header, and how much there is for it. Pure.

The estimate follows what llama.cpp allocates: the weights, the whole key-value cache at once (it is cleared, and so resident, at load), a compute
buffer for one physical batch, and the process itself. It is an upper bound where layers differ. What was measured takes its place (`measured.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.config.engine_settings import EmbeddedEngine, LlamaFlags, VllmEngine
from supervisor.config.placement_settings import MemorySettings
from supervisor.config.settings import InstanceSettings
from supervisor.fleet.placement.eviction import Tenant
from supervisor.fleet.placement.resources import HOST, Amounts, gpu, group, total
from supervisor.models.gguf import GgufHeader
from supervisor.models.gguf_types import TENSOR_TYPES

MEBIBYTE = 1024**2
# Measured: Python with the native library and an empty context, 36 MiB; see docs/howto/load-models-on-demand.md.
PROCESS_BYTES = 40 * MEBIBYTE
GPU_PROCESS_BYTES = 400 * MEBIBYTE
DEFAULT_CONTEXT_TOKENS = 4_096
CONTEXT_STEP_TOKENS = 256
DEFAULT_UBATCH_TOKENS = 512
DEFAULT_CACHE_TYPE = "f16"
DEFAULT_VLLM_SHARE = 0.9
FLOAT_BYTES = 4
# Activations of one layer that exist at a time, in widths of the model: llama.cpp's graph keeps about so many.
ACTIVATION_WIDTHS = 8
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"

_TYPES_BY_NAME = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory of one GPU in bytes; `used_by` is what each process has of it."""

    total_bytes: int
    free_bytes: int
    used_by: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """What the machine has left now: `available_bytes` as the kernel counts it (within our control group), and its GPUs by index."""

    available_bytes: int
    gpus: Mapping[int, Gpu] = field(default_factory=dict)


def estimate(settings: InstanceSettings, header: GgufHeader | None, gpus: Mapping[int, Gpu]) -> dict[str, int]:
    """What an instance takes by its settings and its model's header; nothing is named of which nothing is known."""
    engine = settings.engine
    if settings.url is not None:
        return {}
    visible = {index: gpus[index] for index in _visible(settings.env.get(VISIBLE_DEVICES), gpus)}
    if isinstance(engine, VllmEngine):
        return _vllm(engine, visible)
    if header is None or not isinstance(engine, LlamaFlags):
        return {}
    return _llama(engine, header, visible)


def cache_bytes(header: GgufHeader, engine: LlamaFlags) -> int:
    """The key-value cache: for each layer, token and head a key and a value, in blocks of their number formats."""
    heads = header.head_count_kv or header.head_count or 0
    width = (header.embedding_length or 0) // (header.head_count or 1)
    keys = _row_bytes(engine.cache_type_k, heads * (header.key_length or width))
    values = _row_bytes(engine.cache_type_v, heads * (header.value_length or width))
    return (header.block_count or 0) * context_tokens(header, engine) * (keys + values)


def context_tokens(header: GgufHeader, engine: LlamaFlags) -> int:
    """The tokens that the cache has room for; all slots share them."""
    tokens = engine.ctx_size or header.context_length or DEFAULT_CONTEXT_TOKENS
    return -(-tokens // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS


def compute_bytes(header: GgufHeader, engine: LlamaFlags) -> int:
    """The buffer for one physical batch: its logits and its activations."""
    width = (header.vocabulary_size or 0) + ACTIVATION_WIDTHS * (header.embedding_length or 0)
    return (engine.ubatch_size or DEFAULT_UBATCH_TOKENS) * width * FLOAT_BYTES


def room(
    machine: MachineMemory, tenants: Sequence[Tenant], memory: MemorySettings, limits: Mapping[str, int]
) -> dict[str, int]:
    """How much of each resource a newcomer may take now; below zero where more is promised than there is. `limits`: places by group."""
    held, reserved = total(tenant.holds for tenant in tenants), total(tenant.reserved for tenant in tenants)
    host = machine.available_bytes - memory.reserve_bytes - reserved.get(HOST, 0)
    if memory.limit_bytes is not None:
        host = min(host, memory.limit_bytes - held.get(HOST, 0))
    gpus = {gpu(index): one.free_bytes - reserved.get(gpu(index), 0) for index, one in machine.gpus.items()}
    groups = {group(name): limit - held.get(group(name), 0) for name, limit in limits.items()}
    return {HOST: host, **gpus, **groups}


def reservation(needs: Amounts, taken: Amounts, mapped_bytes: int) -> dict[str, int]:
    """What the machine counts as free although a tenant needs it: what it has yet to take, and files that it has mapped."""
    waiting = {resource: max(0, need - taken.get(resource, 0)) for resource, need in needs.items()}
    return {**waiting, HOST: waiting.get(HOST, 0) + mapped_bytes}


def at_least(needs: Amounts, taken: Amounts) -> dict[str, int]:
    """The larger of both, resource by resource: what comes back when a tenant is gone."""
    return {name: max(needs.get(name, 0), taken.get(name, 0)) for name in {**needs, **taken}}


def _llama(engine: LlamaFlags, header: GgufHeader, gpus: Mapping[int, Gpu]) -> dict[str, int]:
    share = _share_on_gpu(engine, header) if gpus else 0.0
    model = header.tensor_bytes + cache_bytes(header, engine)
    compute = compute_bytes(header, engine)
    host = {HOST: PROCESS_BYTES + round(model * (1 - share)) + compute}
    if not share:
        return host
    each = GPU_PROCESS_BYTES + (round(model * share) + compute) // len(gpus)
    return host | {gpu(index): each for index in gpus}


def _share_on_gpu(engine: LlamaFlags, header: GgufHeader) -> float:
    """How much of the model lies on GPUs. Left to the engine: all of it, except for the embedded one, whose wheel computes on the CPU."""
    if engine.gpu_layers is None:
        return 0.0 if isinstance(engine, EmbeddedEngine) else 1.0
    layers = (header.block_count or 0) + 1
    return min(1.0, engine.gpu_layers / layers)


def _vllm(engine: VllmEngine, gpus: Mapping[int, Gpu]) -> dict[str, int]:
    share = engine.gpu_memory_utilization or DEFAULT_VLLM_SHARE
    used = list(gpus.items())[: engine.tensor_parallel_size or 1]
    return {gpu(index): round(one.total_bytes * share) for index, one in used}


def _visible(listed: str | None, gpus: Mapping[int, Gpu]) -> list[int]:
    """The GPUs that a process sees: all, or those whose numbers its environment lists."""
    if listed is None:
        return list(gpus)
    numbers = [int(part) for part in listed.split(",") if part.strip().isdecimal()]
    return [number for number in numbers if number in gpus]


def _row_bytes(cache_type: str | None, elements: int) -> int:
    kind = _TYPES_BY_NAME[cache_type or DEFAULT_CACHE_TYPE]
    return -(-elements // kind.block_elements) * kind.block_bytes
