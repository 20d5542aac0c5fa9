"""The engine `vllm`: the user's own vLLM."""

from __future__ import annotations

import json

from supervisor.config.engine_settings import VllmEngine
from supervisor.config.settings import InstanceSettings
from supervisor.engines.base import check_extra_args, is_address_ours, require_model, require_tcp
from supervisor.engines.llama_flags import format_value
from supervisor.launch import Address, Canary, CounterSpec, FailurePattern, LaunchSpec, ProbeSpec, Signature

API_KEY_VARIABLE = "VLLM_API_KEY"
VALUE_FLAGS = {
    "max_model_len": "--max-model-len",
    "tensor_parallel_size": "--tensor-parallel-size",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "dtype": "--dtype",
}
OWN_FLAGS = {"--host": "host", "--port": "port", "--model": "model", "--served-model-name": "engine.served_model_name"}

SIGNATURE = Signature(path="/version", keys=("version",))
COUNTERS = CounterSpec(
    path="/metrics",
    advancing=("vllm:generation_tokens_total", "vllm:prompt_tokens_total"),
    busy=("vllm:num_requests_running", "vllm:num_requests_waiting"),
)
LOAD_PROGRESS = r"Loading .*checkpoint shards:\s+(\d+(?:\.\d+)?)% Completed"

FAILURES = (
    FailurePattern(
        r"out of memory|OutOfMemoryError|No available memory for the cache blocks|"
        r"less than desired GPU memory utilization|larger than the available KV cache memory|"
        r"larger than the maximum number of tokens that can be stored in KV cache",
        "oom",
        remedy="Lower `max_model_len`, choose a smaller model, or change `gpu_memory_utilization` to what the GPU has free.",
    ),
    FailurePattern(
        r"No CUDA GPUs are available|Failed to infer device type|CUDA error: |NVML.*(?:lost|fail)",
        "gpu_lost",
        remedy="vLLM finds no GPU that works: look at `nvidia-smi` and at the driver's messages.",
    ),
    FailurePattern(r"[Aa]ddress already in use", "port_in_use"),
    FailurePattern(
        r"vllm(?: serve)?: error: |error: unrecognized arguments|error: argument ",
        "bad_flags",
        permanent=True,
        remedy="Check the engine's settings and `extra_args` against `vllm serve --help`.",
    ),
    FailurePattern(
        r"is not a local folder and is not a valid model identifier|Repository Not Found|RepositoryNotFoundError|"
        r"Invalid repository ID or local directory|GatedRepoError|Model architectures .* (?:not supported|failed)|"
        r"Cannot find any model weights|does not appear to have a file named|not recognized as a supported model",
        "bad_model",
        permanent=True,
        remedy="Check that `model` is a folder with weights, or a hub name that this machine may read.",
    ),
)


class Vllm:
    """See the module. It listens on a loopback port."""

    kind = "vllm"

    def uses_unix_socket(self, settings: InstanceSettings) -> bool:
        """Never."""
        return False

    def launch_spec(
        self, name: str, settings: InstanceSettings, address: Address, model_path: str | None
    ) -> LaunchSpec:
        """See `Engine.launch_spec`."""
        model = require_model(name, model_path)
        require_tcp(name, address, self.kind)
        engine = _engine(settings)
        check_extra_args(name, engine.extra_args, OWN_FLAGS, API_KEY_VARIABLE)
        model_id = engine.served_model_name or settings.model or model
        listen = ("--host", address.host, "--port", str(address.port), "--served-model-name", model_id)
        return LaunchSpec(
            engine=self.kind,
            address=address,
            argv=(engine.binary, "serve", model, *listen, *_flags(engine), *engine.extra_args),
            env=dict(settings.env),
            model_id=model_id,
            address_is_ours=is_address_ours(settings),
            probe=_probe_spec(settings, model_id),
            failures=FAILURES,
            load_progress=LOAD_PROGRESS,
        )

    def watch_spec(self, name: str, settings: InstanceSettings, address: Address) -> LaunchSpec:
        """See `Engine.watch_spec`. Without a name of the model there is no canary: vLLM answers no request that names none."""
        model_id = _engine(settings).served_model_name or settings.model
        probe = _probe_spec(settings, model_id)
        return LaunchSpec(engine=self.kind, address=address, model_id=model_id, address_is_ours=False, probe=probe)


def _engine(settings: InstanceSettings) -> VllmEngine:
    assert isinstance(settings.engine, VllmEngine)
    return settings.engine


def _flags(engine: VllmEngine) -> list[str]:
    given = ((flag, getattr(engine, setting)) for setting, flag in VALUE_FLAGS.items())
    return [word for flag, value in given if value is not None for word in (flag, format_value(value))]


def _probe_spec(settings: InstanceSettings, model_id: str | None) -> ProbeSpec:
    key = settings.env.get(API_KEY_VARIABLE, "")
    body = {"model": model_id, "prompt": "a", "max_tokens": 1, "temperature": 0}
    return ProbeSpec(
        signature=SIGNATURE,
        counters=COUNTERS,
        canary=Canary("/v1/completions", json.dumps(body)) if model_id else None,
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )
