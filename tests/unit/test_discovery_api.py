"""Models as servers list them: every dialect, and what is not a list of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.models.catalog import (
    MODEL_LIST_PATHS,
    FetchJson,
    Model,
    ModelListError,
    ModelMetadata,
    discover_models,
    model_from_file,
    parse_model_list,
)
from supervisor.models.discovery import read_model_file
from tests.fixtures.gguf_files import write_tiny_llama

LEGACY_ENTRY = {"id": "m1", "name": "Model one", "size": 7, "type": "chat", "modified_at": 1_700_000_000}
LEGACY = Model(id="m1", name="Model one", type="chat", size=7, modified_at=1_700_000_000)

LLAMA_CPP = {
    "object": "list",
    "models": [
        {
            "name": "/models/tiny.gguf",
            "model": "/models/tiny.gguf",
            "modified_at": "",
            "size": "",
            "type": "model",
            "details": {"format": "gguf", "family": "", "quantization_level": ""},
        }
    ],
    "data": [
        {
            "id": "/models/tiny.gguf",
            "object": "model",
            "created": 1_795_219_691,
            "meta": {
                "n_vocab": 260,
                "n_ctx_train": 2048,
                "n_embd": 64,
                "n_params": 115_520,
                "size": 231_680,
                "ftype": "F16",
            },
        }
    ],
}


def answering(answers: Mapping[str, object]) -> tuple[FetchJson, list[str]]:
    asked: list[str] = []

    async def fetch_json(path: str) -> object | None:
        asked.append(path)
        return answers.get(path)

    return fetch_json, asked


@pytest.mark.parametrize("payload", [[LEGACY_ENTRY], {"data": [LEGACY_ENTRY]}, {"models": [LEGACY_ENTRY]}])
def test_legacy_shapes(payload: object) -> None:
    assert parse_model_list(payload, "/api/models") == [LEGACY]


def test_ollama_shape() -> None:
    payload = {
        "models": [
            {
                "name": "llama3:8b",
                "model": "llama3:8b",
                "size": 4_661_224_676,
                "modified_at": "2026-01-02T03:04:05.123456789Z",
                "details": {"format": "gguf", "family": "llama", "quantization_level": "Q4_0"},
            }
        ]
    }
    [model] = parse_model_list(payload, "/api/models")
    assert (model.id, model.name, model.type, model.size) == ("llama3:8b", "llama3:8b", "gguf", 4_661_224_676)
    assert model.modified_at == 1_767_323_045
    assert model.metadata == ModelMetadata(architecture="llama", quantisation="Q4_0")


def test_openai_shape() -> None:
    payload = {"object": "list", "data": [{"id": "gpt", "object": "model", "created": 5, "owned_by": "someone"}]}
    assert parse_model_list(payload, "/v1/models") == [Model(id="gpt", name="gpt", type="model", modified_at=5)]


def test_both_halves_of_llama_cpp_make_one_model() -> None:
    [model] = parse_model_list(LLAMA_CPP, "/v1/models")
    assert (model.id, model.name, model.size, model.modified_at) == (
        "/models/tiny.gguf",
        "tiny",
        231_680,
        1_795_219_691,
    )
    assert model.metadata == ModelMetadata(
        parameter_count=115_520,
        quantisation="F16",
        context_length=2048,
        embedding_length=64,
        vocabulary_size=260,
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"value": "loaded", "args": ["llama-server"]}, "loaded"),
        ({"value": "unloaded", "failed": True, "exit_code": 1}, "failed"),
        ("ready", "ready"),
        (7, None),
        ({}, None),
    ],
)
def test_status_of_the_router(status: object, expected: str | None) -> None:
    [model] = parse_model_list({"data": [{"id": "m", "status": status}]}, "/models")
    assert model.status == expected


@pytest.mark.parametrize("payload", [None, "models", 7, {}, {"data": {}}, {"error": {"message": "no"}}])
def test_what_is_no_list_is_refused(payload: object) -> None:
    with pytest.raises(ModelListError, match="/v1/models is not a list"):
        parse_model_list(payload, "/v1/models")


def test_entries_and_fields_that_make_no_sense_are_left_out() -> None:
    entries: list[object] = [
        None,
        3,
        [],
        {},
        {"id": ""},
        {"id": 4},
        "plain",
        {"id": "m", "size": -1, "modified_at": "soon", "type": {}},
    ]
    assert parse_model_list(entries, "/models") == [Model(id="plain", name="plain"), Model(id="m", name="m")]


def test_numbers_beyond_reason_are_not_known() -> None:
    for size in (float("nan"), float("inf"), 10**400, True):
        assert parse_model_list([{"id": "m", "size": size}], "/models") == [Model(id="m", name="m")]


def test_milliseconds_are_told_from_seconds() -> None:
    [model] = parse_model_list([{"id": "m", "modified_at": 1_700_000_000_123}], "/models")
    assert model.modified_at == 1_700_000_000


def test_text_is_made_printable() -> None:
    [model] = parse_model_list([{"id": "m\x1b[2J"}], "/models")
    assert "\x1b" not in model.id


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "name", "data", "models", "size", "status", "meta", "details", "value"]), inner
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_answer_is_understood_or_refused(payload: object) -> None:
    try:
        models = parse_model_list(payload, "/models")
    except ModelListError:
        return
    json.dumps([model.to_wire() for model in models], allow_nan=False)


async def test_paths_are_asked_in_order_until_one_has_models() -> None:
    fetch_json, asked = answering({"/api/models": {"models": []}, "/v1/models": {"data": [{"id": "m"}]}})
    assert [model.id for model in await discover_models(fetch_json)] == ["m"]
    assert asked == ["/api/models", "/v1/models"]


async def test_answer_that_is_no_list_is_passed_over() -> None:
    fetch_json, asked = answering({"/api/models": {"error": "no such route"}, "/models": ["m"]})
    assert [model.id for model in await discover_models(fetch_json)] == ["m"]
    assert asked == list(MODEL_LIST_PATHS)


async def test_server_without_models() -> None:
    for answers in ({}, {"/v1/models": {"data": []}, "/models": "hello"}):
        fetch_json, _ = answering(answers)
        assert await discover_models(fetch_json) == []


async def test_server_that_is_none() -> None:
    fetch_json, _ = answering({"/models": "hello"})
    with pytest.raises(ModelListError, match="/models is not a list"):
        await discover_models(fetch_json)


async def test_only_model_is_the_only_known_file_whatever_its_name(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    fetch_json, _ = answering({"/v1/models": {"data": [{"id": "an-alias", "meta": {"n_vocab": 1}}]}})
    [model] = await discover_models(fetch_json, known_files=[path])
    assert (model.id, model.type, model.path, model.size) == ("an-alias", "gguf", path, path.stat().st_size)
    assert model.metadata is not None
    assert (model.metadata.architecture, model.metadata.vocabulary_size) == ("llama", 260)


async def test_models_are_matched_with_known_files_by_name(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    other = write_tiny_llama(tmp_path / "other.gguf")
    fetch_json, _ = answering({"/models": ["tiny", "/somewhere/else/other.gguf", "third"]})
    models = await discover_models(fetch_json, known_files=[path, other])
    assert [model.path for model in models] == [path, other, None]


async def test_server_cannot_name_a_file_for_us_to_open(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "secret.gguf")
    fetch_json, _ = answering({"/models": {"data": [{"id": str(path), "path": str(path)}]}})
    [model] = await discover_models(fetch_json)
    assert (model.path, model.metadata) == (None, None)


async def test_unreadable_file_leaves_the_servers_word(tmp_path: Path) -> None:
    fetch_json, _ = answering({"/v1/models": LLAMA_CPP})
    [model] = await discover_models(fetch_json, known_files=[tmp_path / "missing.gguf"])
    assert (model.size, model.path) == (231_680, None)


def test_wire_shape() -> None:
    assert LEGACY.to_wire() == {
        "id": "m1",
        "name": "Model one",
        "size": 7,
        "type": "chat",
        "modified_at": 1_700_000_000,
    }
    rich = Model(id="m", name="m", status="loaded", metadata=ModelMetadata(context_length=8))
    assert rich.to_wire() == {
        "id": "m",
        "name": "m",
        "size": 0,
        "type": "model",
        "modified_at": 0,
        "status": "loaded",
        "metadata": {"context_length": 8},
    }


def test_model_from_a_folder(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny-q8.gguf")
    wire = model_from_file(read_model_file(path)).to_wire()
    assert (wire["id"], wire["name"], wire["type"], wire["size"]) == (
        "tiny-q8",
        "Tiny test llama",
        "gguf",
        path.stat().st_size,
    )
    assert wire["metadata"]["parameter_count"] == 115_520
    assert wire["metadata"]["licence"] == "mit"
