"""Import of the flat settings of an earlier system."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.config import ConfigError, EmbeddedEngine, LlamaServerEngine, import_legacy, validate_tree
from supervisor.config.legacy import FLAG_KEYS, LEGACY_KEYS

WHOLE: dict[str, Any] = {
    "llama_server_host": "127.0.0.1",
    "llama_server_port": 8134,
    "llama_server_path": "/opt/llama/llama-server",
    "llama_model_path": "/srv/models/chat.gguf",
    "basePath": "/srv/models",
    "ctx_size": 4096,
    "batch_size": 2048,
    "ubatch_size": 512,
    "threads": -1,
    "threads_batch": -1,
    "gpu_layers": -1,
    "main_gpu": 0,
    "flash_attn": "on",
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.9,
    "repeat_penalty": 1.1,
    "n_predict": -1,
    "seed": -1,
    "verbose": 0,
    "embedding": False,
    "cache_type_k": "f16",
    "cache_type_v": "",
}


def test_the_list_of_keys_is_that_of_the_contract() -> None:
    assert set(WHOLE) == set(LEGACY_KEYS)


def test_whole_file() -> None:
    imported = import_legacy(WHOLE)
    assert imported.warnings == ()
    settings = validate_tree(imported.config)
    main = settings.instances["main"]
    assert (main.port, main.model, [str(folder) for folder in settings.models.folders]) == (
        8134,
        "/srv/models/chat.gguf",
        ["/srv/models"],
    )
    assert main.engine == LlamaServerEngine(
        kind="llama-server",
        binary="/opt/llama/llama-server",
        ctx_size=4096,
        batch_size=2048,
        ubatch_size=512,
        main_gpu=0,
        flash_attn=True,
        temperature=0.7,
        top_k=40,
        top_p=0.9,
        repeat_penalty=1.1,
        verbose=False,
        embedding=False,
        cache_type_k="f16",
    )


@pytest.mark.parametrize("key", FLAG_KEYS)
@pytest.mark.parametrize("left_out", [-1, "-1", -1.0, None, ""])
def test_minus_one_leaves_it_to_the_engine(key: str, left_out: object) -> None:
    imported = import_legacy({key: left_out})
    assert validate_tree(imported.config).instances["main"].engine == EmbeddedEngine()


@pytest.mark.parametrize("key", LEGACY_KEYS)
def test_minus_one_is_no_error_anywhere(key: str) -> None:
    validate_tree(import_legacy({key: -1}).config)


def test_what_is_guessed_is_told() -> None:
    imported = import_legacy({})
    assert imported.config == {"instances": {"main": {"engine": {"kind": "embedded"}, "model": "demo"}}}
    assert [warning.split(" ")[0] for warning in imported.warnings] == ["`llama_server_path`", "`llama_model_path`"]


@pytest.mark.parametrize("extra", [{}, {"llama_server_port": 8134}])
def test_address_that_others_reach_is_not_kept(extra: dict[str, object]) -> None:
    imported = import_legacy({**WHOLE, "llama_server_host": "0.0.0.0", **extra})
    assert "host" not in imported.config["instances"]["main"]
    assert "`llama_server_host` is not kept" in imported.warnings[0]


def test_host_without_a_port_is_not_kept() -> None:
    imported = import_legacy({**WHOLE, "llama_server_host": "localhost", "llama_server_port": -1})
    assert {"host", "port"}.isdisjoint(imported.config["instances"]["main"])
    assert "without a port" in imported.warnings[0]
    kept = import_legacy({**WHOLE, "llama_server_host": "localhost"})
    assert kept.config["instances"]["main"]["host"] == "localhost"


def test_numbers_and_switches_stored_as_text_are_read() -> None:
    flat = {
        "ctx_size": "4096",
        "temperature": "0.5",
        "flash_attn": "auto",
        "verbose": "true",
        "llama_server_port": "8134",
    }
    main = validate_tree(import_legacy(flat).config).instances["main"]
    assert main.engine == EmbeddedEngine(ctx_size=4096, temperature=0.5, flash_attn="auto", verbose=True)
    assert main.port == 8134


@pytest.mark.parametrize(
    ("flat", "key", "text"),
    [
        ({"ctx_sise": 1}, "ctx_sise", "unknown key `ctx_sise`; did you mean `ctx_size`?"),
        ({"llama_modelpath": "x"}, "llama_modelpath", "did you mean `llama_model_path`?"),
        ({"zzz": 1}, "zzz", "known here: `llama_server_host`"),
        ({"top_p": 2}, "top_p", "`top_p` must be at most 1, not 2"),
        ({"ctx_size": "many"}, "ctx_size", "`ctx_size` must be a whole number, not text"),
        ({"llama_server_port": 99999}, "llama_server_port", "`llama_server_port` must be at most 65535"),
        ({"basePath": 5}, "basePath", "must be a path"),
        ({"llama_model_path": 5}, "llama_model_path", "must be text, not a number"),
        ({"llama_server_path": ["x"]}, "llama_server_path", "must be text, not a list"),
    ],
)
def test_mistakes_are_told_under_the_flat_key(flat: dict[str, object], key: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_legacy(flat)
    assert caught.value.problems[0].key == key
    assert text in str(caught.value)
