"""The command lines and probes of the engines on llama.cpp, as tables."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.engine_settings import LlamaFlags
from supervisor.config.settings import InstanceSettings
from supervisor.engines import embedded_server
from supervisor.engines.embedded import DIE_WITH_PARENT, SERVER_FILE
from supervisor.engines.llama_flags import SWITCHES, VALUE_FLAGS, flags_of, format_value
from supervisor.engines.registry import ENGINES
from supervisor.errors import InvalidConfigurationError
from supervisor.launch import Address, LaunchSpec

SOCKET = Address(socket_path=Path("/run/llamavisor/a.sock"))
TCP = Address(host="127.0.0.1", port=8134)
MODEL = "/models/Tiny Model.gguf"
EVERY_FLAG = {
    "ctx_size": 4096,
    "batch_size": 512,
    "ubatch_size": 256,
    "threads": 4,
    "threads_batch": 8,
    "gpu_layers": 0,
    "main_gpu": 1,
    "flash_attn": "auto",
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 0.95,
    "repeat_penalty": 1.1,
    "n_predict": 64,
    "seed": 4_294_967_295,
    "verbose": True,
    "embedding": True,
    "cache_type_k": "q8_0",
    "cache_type_v": "f16",
    "parallel": 2,
    "pooling": "mean",
}


def settings_of(engine: dict[str, Any], **more: Any) -> InstanceSettings:
    return InstanceSettings.model_validate({"engine": engine, "model": MODEL, **more})


def spec_of(settings: InstanceSettings, address: Address = SOCKET, model: str | None = MODEL) -> LaunchSpec:
    return ENGINES[settings.engine.kind].launch_spec("main", settings, address, model)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"ctx_size": 4096}, ["--ctx-size", "4096"]),
        ({"gpu_layers": 0}, ["--gpu-layers", "0"]),
        ({"temperature": 0.0}, ["--temp", "0"]),
        ({"top_p": 0.95}, ["--top-p", "0.95"]),
        ({"flash_attn": True}, ["--flash-attn", "on"]),
        ({"flash_attn": False}, ["--flash-attn", "off"]),
        ({"flash_attn": "auto"}, ["--flash-attn", "auto"]),
        ({"verbose": True, "embedding": False}, ["--verbose"]),
        ({"parallel": 2, "ctx_size": 1024}, ["--ctx-size", "1024", "--parallel", "2"]),
    ],
)
def test_what_is_set_becomes_a_flag_and_what_is_not_is_left_to_the_engine(
    settings: dict[str, Any], expected: list[str]
) -> None:
    assert flags_of(LlamaFlags.model_validate(settings)) == expected


def test_every_setting_has_a_flag() -> None:
    assert set(LlamaFlags.model_fields) == {*VALUE_FLAGS, *SWITCHES, "flash_attn"} == set(EVERY_FLAG)


@pytest.mark.parametrize(
    ("value", "text"), [(1e-7, "0.0000001"), (1.0, "1"), (0.0, "0"), (100.0, "100"), (7, "7"), ("q8_0", "q8_0")]
)
def test_numbers_are_written_out(value: float | str, text: str) -> None:
    assert format_value(value) == text


def test_the_embedded_server_understands_every_flag_that_we_write() -> None:
    flags = flags_of(LlamaFlags.model_validate(EVERY_FLAG))
    options = embedded_server.build_parser().parse_args(["-m", MODEL, *flags])
    assert (options.ctx_size, options.threads_batch, options.flash_attn) == (4096, 8, "auto")
    assert (options.temp, options.seed, options.predict) == (0.0, 4_294_967_295, 64)
    assert options.verbosity == embedded_server.VERBOSITY_EVERYTHING


def test_embedded_is_run_by_file_on_a_unix_socket_and_dies_with_us() -> None:
    settings = settings_of({"kind": "embedded", "ctx_size": 512})
    spec = spec_of(settings)
    assert ENGINES["embedded"].uses_unix_socket(settings)
    head = (sys.executable, "-P", str(SERVER_FILE), "--model", MODEL, "--host", "/run/llamavisor/a.sock")
    assert spec.argv == (*head, "--alias", "Tiny Model", "--metrics", "--slots", "--ctx-size", "512")
    assert spec.env == {DIE_WITH_PARENT: "1"}
    assert (spec.model_file, spec.model_id, spec.address_is_ours) == (Path(MODEL), "Tiny Model", True)


def test_an_embedded_server_that_may_survive_does_not_die_with_us() -> None:
    spec = spec_of(settings_of({"kind": "embedded"}, survive_supervisor=True, env={"A": "b"}))
    assert spec.env == {"A": "b"}


def test_llama_server_gets_the_same_flags_then_the_extra_ones() -> None:
    engine = {"kind": "llama-server", "binary": "/opt/llama-server", "top_k": 5, "extra_args": ["--lora", "a b.gguf"]}
    spec = spec_of(settings_of(engine, port=9000), TCP)
    listen = ("--host", "127.0.0.1", "--port", "8134", "--alias", "Tiny Model", "--metrics", "--slots")
    assert spec.argv == ("/opt/llama-server", "--model", MODEL, *listen, "--top-k", "5", "--lora", "a b.gguf")
    assert not spec.address_is_ours


@pytest.mark.parametrize("given", [["--alias", "mine,other"], ["-a", "mine"]])
def test_an_alias_among_the_extra_arguments_is_the_name_of_the_model(given: list[str]) -> None:
    assert spec_of(settings_of({"kind": "llama-server", "extra_args": given})).model_id == "mine"


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ("--api-key", "LLAMA_API_KEY"),
        ("--api-key=secret", "LLAMA_API_KEY"),
        ("-m", "`model`"),
        ("--port=1", "`port`"),
        ("--host", "`host`"),
    ],
)
def test_extra_arguments_that_we_must_set_ourselves_are_refused(argument: str, remedy: str) -> None:
    settings = settings_of({"kind": "llama-server", "extra_args": ["--no-warmup", argument, "x"]})
    with pytest.raises(InvalidConfigurationError) as refusal:
        spec_of(settings)
    assert refusal.value.param == "instances.main.engine.extra_args"
    assert remedy in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_socket_that_llama_cpp_would_take_for_a_host_is_refused() -> None:
    settings = settings_of({"kind": "llama-server"}, socket="/run/llama")
    with pytest.raises(InvalidConfigurationError) as refusal:
        spec_of(settings, Address(socket_path=Path("/run/llama")))
    assert refusal.value.param == "instances.main.socket"
    assert ".sock" in str(refusal.value)


def test_without_a_model_there_is_nothing_to_start() -> None:
    with pytest.raises(InvalidConfigurationError) as refusal:
        spec_of(settings_of({"kind": "embedded"}), model=None)
    assert refusal.value.param == "instances.main.model"


@pytest.mark.parametrize(
    ("configured", "path", "model_id"),
    [
        ("demo", "/site/llamavisor-demo.gguf", "demo"),
        ("a/b/Q4.gguf", "/a/b/Q4.gguf", "Q4"),
        ("Q4.gguf", "/a/Q4.gguf", "Q4"),
    ],
)
def test_the_model_is_named_without_its_folder(configured: str, path: str, model_id: str) -> None:
    settings = InstanceSettings.model_validate({"engine": "embedded", "model": configured})
    assert spec_of(settings, model=path).model_id == model_id


def test_a_key_in_the_environment_is_sent_by_the_probes_and_stays_out_of_argv() -> None:
    spec = spec_of(settings_of({"kind": "llama-server"}, env={"LLAMA_API_KEY": "k1,k2"}))
    assert spec.probe.headers == {"Authorization": "Bearer k1"}
    assert "k1" not in " ".join(spec.argv)
    assert not spec_of(settings_of({"kind": "llama-server"})).probe.headers


@pytest.mark.parametrize(("embedding", "path"), [(False, "/v1/completions"), (True, "/embedding")])
def test_the_canary_asks_for_what_the_server_serves(embedding: bool, path: str) -> None:
    canary = spec_of(settings_of({"kind": "embedded", "embedding": embedding})).probe.canary
    assert canary is not None
    assert canary.path == path
    assert json.loads(canary.body)


@pytest.mark.parametrize("kind", ["embedded", "llama-server"])
def test_a_server_that_others_run_is_watched_in_the_same_way(kind: str) -> None:
    settings = InstanceSettings.model_validate({"engine": {"kind": kind}, "url": "http://127.0.0.1:8080"})
    engine = ENGINES[settings.engine.kind]
    spec = engine.watch_spec("main", settings, TCP)
    assert (spec.argv, spec.address, spec.address_is_ours) == ((), TCP, False)
    assert spec.probe == spec_of(settings_of({"kind": kind})).probe
    assert spec.probe.signature is not None
