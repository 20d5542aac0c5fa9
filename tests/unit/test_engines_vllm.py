"""The command line and probes of the engine `vllm`, as tables."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.settings import InstanceSettings
from supervisor.engines.registry import ENGINES
from supervisor.engines.vllm import LOAD_PROGRESS
from supervisor.errors import InvalidConfigurationError
from supervisor.launch import Address, LaunchSpec

TCP = Address(host="127.0.0.1", port=8134)
HUB_NAME = "Qwen/Qwen3-0.6B"
VLLM = ENGINES["vllm"]


def settings_of(engine: dict[str, Any] | None = None, **more: Any) -> InstanceSettings:
    return InstanceSettings.model_validate({"engine": {"kind": "vllm", **(engine or {})}, "model": HUB_NAME, **more})


def spec_of(settings: InstanceSettings, address: Address = TCP) -> LaunchSpec:
    return VLLM.launch_spec("main", settings, address, settings.model)


def test_a_model_is_served_under_its_own_name() -> None:
    settings = settings_of()
    spec = spec_of(settings)
    assert not VLLM.uses_unix_socket(settings)
    listen = ("--host", "127.0.0.1", "--port", "8134", "--served-model-name", HUB_NAME)
    assert spec.argv == ("vllm", "serve", HUB_NAME, *listen)
    assert (spec.model_id, spec.model_file) == (HUB_NAME, None)


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"max_model_len": 4096}, ("--max-model-len", "4096")),
        ({"tensor_parallel_size": 2}, ("--tensor-parallel-size", "2")),
        ({"gpu_memory_utilization": 0.9}, ("--gpu-memory-utilization", "0.9")),
        ({"dtype": "bfloat16"}, ("--dtype", "bfloat16")),
        ({"extra_args": ["--enforce-eager"], "max_model_len": 8}, ("--max-model-len", "8", "--enforce-eager")),
    ],
)
def test_settings_become_flags(engine: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert spec_of(settings_of(engine)).argv[-len(expected) :] == expected


def test_binary_and_name_are_the_users_choice() -> None:
    spec = spec_of(settings_of({"binary": "/opt/vllm/bin/vllm", "served_model_name": "small"}))
    assert spec.argv[0] == "/opt/vllm/bin/vllm"
    assert spec.model_id == "small"
    canary = spec.probe.canary
    assert canary is not None
    assert json.loads(canary.body)["model"] == "small"


def test_the_key_is_sent_by_the_probes() -> None:
    assert spec_of(settings_of(env={"VLLM_API_KEY": "k"})).probe.headers == {"Authorization": "Bearer k"}


@pytest.mark.parametrize("argument", ["--api-key", "--port", "--served-model-name=x"])
def test_extra_arguments_that_we_must_set_ourselves_are_refused(argument: str) -> None:
    with pytest.raises(InvalidConfigurationError, match=r"set by Llamavisor|every user"):
        spec_of(settings_of({"extra_args": [argument]}))


def test_a_unix_socket_is_refused() -> None:
    with pytest.raises(InvalidConfigurationError) as refusal:
        spec_of(settings_of(), Address(socket_path=Path("/run/a.sock")))
    assert refusal.value.param == "instances.main.socket"


def test_a_server_without_a_known_model_gets_no_canary() -> None:
    settings = InstanceSettings.model_validate({"engine": {"kind": "vllm"}, "url": "http://127.0.0.1:8000"})
    spec = VLLM.watch_spec("main", settings, TCP)
    assert spec.argv == ()
    assert spec.probe.canary is None
    assert spec.probe.signature is not None


def test_load_progress_is_read_from_its_bar() -> None:
    line = "Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.52it/s]"
    found = re.search(LOAD_PROGRESS, line)
    assert found is not None
    assert found[1] == "50"
