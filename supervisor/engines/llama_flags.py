"""What llama.cpp's servers have in common, whoever built them: command line, probes, failures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from supervisor.config.engine_settings import LlamaFlags
from supervisor.config.settings import InstanceSettings
from supervisor.engines.base import is_address_ours, refuse
from supervisor.launch import Address, Canary, CounterSpec, FailurePattern, LaunchSpec, ProbeSpec, Signature

API_KEY_VARIABLE = "LLAMA_API_KEY"
SOCKET_SUFFIX = ".sock"

VALUE_FLAGS = {
    "ctx_size": "--ctx-size",
    "batch_size": "--batch-size",
    "ubatch_size": "--ubatch-size",
    "threads": "--threads",
    "threads_batch": "--threads-batch",
    "gpu_layers": "--gpu-layers",
    "main_gpu": "--main-gpu",
    "temperature": "--temp",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "repeat_penalty": "--repeat-penalty",
    "n_predict": "--n-predict",
    "seed": "--seed",
    "cache_type_k": "--cache-type-k",
    "cache_type_v": "--cache-type-v",
    "parallel": "--parallel",
    "pooling": "--pooling",
}
SWITCHES = {"verbose": "--verbose", "embedding": "--embedding"}

SIGNATURE = Signature(path="/props", keys=("default_generation_settings",))
COUNTERS = CounterSpec(
    path="/metrics",
    advancing=("llamacpp:n_decode_total", "llamacpp:tokens_predicted_total", "llamacpp:prompt_tokens_total"),
    busy=("llamacpp:requests_processing", "llamacpp:requests_deferred"),
)
COMPLETION_CANARY = Canary(
    "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 1, "temperature": 0, "cache_prompt": False})
)
# Not the OpenAI route: that one refuses, without decoding, a model that does not say how to pool.
EMBEDDING_CANARY = Canary("/embedding", json.dumps({"content": "a"}))

# In this order: want of memory also ends in "failed to load model", which alone would be taken for a bad file.
FAILURES = (
    FailurePattern(
        r"out of memory|OutOfDeviceMemory|unable to allocate|failed to allocate|insufficient memory|std::bad_alloc",
        "oom",
        remedy="Lower `ctx_size`, `parallel` or `gpu_layers`, choose a smaller `cache_type_k`, or take a smaller model.",
    ),
    FailurePattern(
        r"CUDA error: (?!out of memory)|no CUDA-capable device|DeviceLost|device lost|NVML.*(?:lost|fail)",
        "gpu_lost",
        remedy="Look at the driver's messages (`dmesg`); a reset of the GPU or of the machine may be needed.",
    ),
    FailurePattern(r"couldn't bind|bind\(\) failed|[Aa]ddress already in use", "port_in_use"),
    FailurePattern(
        r"^error: (?:invalid|unknown) argument|^error: argument|error while handling argument|^error: .*required",
        "bad_flags",
        permanent=True,
        remedy="Check the engine's flags and `extra_args` against what this version of it knows (`--help`).",
    ),
    FailurePattern(
        r"requires flash_attn|n_ubatch.*must|failed to create.context with model",
        "bad_flags",
        permanent=True,
        remedy="The model was read, but these settings do not fit it; the lines above say which.",
    ),
    FailurePattern(
        r"unknown model architecture|unknown pre-tokenizer|invalid magic|missing tensor|wrong number of tensors|"
        r"failed to read (?:key-value|tensor)|tensor '.*' data is not within the file bounds",
        "bad_model",
        permanent=True,
        remedy="The file is damaged, no GGUF, or too new for this engine: fetch it again, or update the engine.",
    ),
    FailurePattern(
        r"error loading model|failed to load model|failed to open GGUF file",
        "bad_model",
        permanent=True,
        remedy="Check that `model` names a GGUF file that can be read.",
    ),
)


def launch_spec(
    name: str,
    settings: InstanceSettings,
    engine: LlamaFlags,
    address: Address,
    *,
    command: Sequence[str],
    model: str,
    model_id: str,
    extra_args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> LaunchSpec:
    """How to start a llama.cpp server: `command`, then all flags, then `extra_args`; `env` yields to the settings' own."""
    flags = ("--model", model, *listen_flags(name, address), "--alias", model_id, "--metrics", "--slots")
    return LaunchSpec(
        engine=settings.engine.kind,
        address=address,
        argv=(*command, *flags, *flags_of(engine), *extra_args),
        env={**(env or {}), **settings.env},
        model_id=model_id,
        model_file=Path(model),
        address_is_ours=is_address_ours(settings),
        probe=probe_spec(settings, engine),
        failures=FAILURES,
    )


def watch_spec(settings: InstanceSettings, engine: LlamaFlags, address: Address) -> LaunchSpec:
    """How to watch a llama.cpp server that somebody else runs."""
    probe = probe_spec(settings, engine)
    return LaunchSpec(engine=settings.engine.kind, address=address, address_is_ours=False, probe=probe)


def flags_of(engine: LlamaFlags) -> list[str]:
    """The command line's flags for all settings that are not None, in a fixed order."""
    flags: list[str] = []
    for setting, flag in VALUE_FLAGS.items():
        value = getattr(engine, setting)
        if value is not None:
            flags += [flag, format_value(value)]
    if engine.flash_attn is not None:
        flags += ["--flash-attn", {True: "on", False: "off", "auto": "auto"}[engine.flash_attn]]
    return [*flags, *(flag for setting, flag in SWITCHES.items() if getattr(engine, setting))]


def format_value(value: float | str) -> str:
    """A value as a command line takes it: numbers never in exponent form, which not every parser reads."""
    return f"{value:.10f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def listen_flags(name: str, address: Address) -> list[str]:
    """Where to listen. llama.cpp takes an address that ends in `.sock` for a Unix socket, and any other for a host."""
    path = address.socket_path
    if path is None:
        return ["--host", address.host, "--port", str(address.port)]
    if path.suffix != SOCKET_SUFFIX:
        raise refuse(
            name, "socket", "llama.cpp knows a Unix socket by its suffix.", f"Let the path end in `{SOCKET_SUFFIX}`."
        )
    return ["--host", str(path)]


def probe_spec(settings: InstanceSettings, engine: LlamaFlags) -> ProbeSpec:
    """How to watch a llama.cpp server; with its key where the instance's environment gives it one."""
    return ProbeSpec(
        signature=SIGNATURE,
        counters=COUNTERS,
        canary=EMBEDDING_CANARY if engine.embedding else COMPLETION_CANARY,
        slots_path="/slots",
        headers=authorization(settings.env),
    )


def authorization(env: Mapping[str, str]) -> dict[str, str]:
    """The header that the first key in `LLAMA_API_KEY` asks for; nothing when there is none."""
    key = env.get(API_KEY_VARIABLE, "").partition(",")[0].strip()
    return {"Authorization": f"Bearer {key}"} if key else {}
