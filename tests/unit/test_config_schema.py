"""The published schema, reference page and example stay true, and the schema refuses typos as the program does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from supervisor.config import ConfigError, load_settings, redacted, settings_schema, validate_tree
from supervisor.config.publish import main, published_files
from supervisor.config.redaction import masked_arguments
from supervisor.config.schema import SCHEMA_POINTER_KEY
from supervisor.config.supervision import SupervisionOverrides, SupervisionSettings

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(settings_schema())


def nodes() -> Iterator[tuple[str, dict[str, Any]]]:
    schema = settings_schema()
    for model in [schema, *schema["$defs"].values()]:
        for name, node in model.get("properties", {}).items():
            yield f"{model['title']}.{name}", node


def test_schema_is_valid_and_closed() -> None:
    schema = settings_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert all(model["additionalProperties"] is False for model in [schema, *schema["$defs"].values()])


@pytest.mark.parametrize(("name", "node"), list(nodes()), ids=[name for name, _ in nodes()])
def test_every_key_is_described_and_every_figure_has_a_unit(name: str, node: dict[str, Any]) -> None:
    assert node["description"].endswith(".")
    branches = [node, *node.get("anyOf", [])]
    if any(branch.get("type") in {"integer", "number"} for branch in branches):
        assert f"Unit: {node['x-unit']}." in node["description"]


@pytest.mark.parametrize("path", list(published_files()), ids=str)
def test_published_file_is_up_to_date(path: Path) -> None:
    told = "run `python -m supervisor.config.publish`"
    assert (ROOT / path).read_text(encoding="utf-8") == published_files()[path], told


def test_publishing_writes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main()
    assert all((tmp_path / path).read_text(encoding="utf-8") == text for path, text in published_files().items())


def test_example_is_valid_and_points_at_the_schema() -> None:
    example = json.loads((ROOT / "config.json").read_text(encoding="utf-8"))
    VALIDATOR.validate(example)
    assert (ROOT / example[SCHEMA_POINTER_KEY]).is_file()
    settings = load_settings(ROOT / "config.json", environ={}).settings
    assert list(settings.instances) == ["demo"]
    assert settings.server.is_loopback


def test_every_typo_in_the_example_is_refused_by_schema_and_program() -> None:
    example = json.loads((ROOT / "config.json").read_text(encoding="utf-8"))
    keys = [path for path in paths(example) if path != (SCHEMA_POINTER_KEY,) and path != ("instances", "demo")]
    assert len(keys) > 10
    for path in keys:
        spoiled = json.loads(json.dumps(example))
        holder = spoiled
        for part in path[:-1]:
            holder = holder[part]
        holder[f"{path[-1]}x"] = holder.pop(path[-1])
        assert not VALIDATOR.is_valid(spoiled), path
        spoiled.pop(SCHEMA_POINTER_KEY)
        with pytest.raises(ConfigError) as caught:
            validate_tree(spoiled)
        assert any(f"did you mean `{path[-1]}`?" in str(problem) for problem in caught.value.problems), path


def paths(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


@pytest.mark.parametrize("engine", ["embedded", "llama-server", "vllm", "command", {"ctx_size": 64}, {"kind": "vllm"}])
def test_schema_takes_an_engine_as_text_or_object(engine: object) -> None:
    VALIDATOR.validate({"instances": {"a": {"engine": engine, "model": "demo"}}})


@pytest.mark.parametrize("engine", ["lama", {"kind": "lama"}, {"kind": "vllm", "ctx_size": 1}, {"binary": "x"}, 5])
def test_schema_refuses_what_is_no_engine(engine: object) -> None:
    assert not VALIDATOR.is_valid({"instances": {"a": {"engine": engine, "model": "demo"}}})


def test_schema_refuses_bad_names_of_instances() -> None:
    assert not VALIDATOR.is_valid({"instances": {"Big": {"model": "demo"}}})


def test_overrides_are_the_figures() -> None:
    assert list(SupervisionOverrides.model_fields) == list(SupervisionSettings.model_fields)


def test_figures_are_those_of_the_contract() -> None:
    figures = SupervisionSettings()
    assert (figures.max_retries, figures.retry_base_seconds, figures.retry_cap_seconds, figures.retry_jitter) == (
        5,
        1,
        30,
        0.1,
    )
    assert (figures.stable_seconds, figures.wedge_seconds, figures.start_deadline_seconds) == (60, 60, 600)
    assert (figures.probe_interval_min_seconds, figures.probe_interval_max_seconds) == (0.02, 1)
    assert (figures.probe_deadline_seconds, figures.liveness_interval_seconds, figures.liveness_misses) == (5, 1, 3)
    assert figures.stop_grace_seconds == 5


def test_reference_names_every_error_code_and_every_key() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    codes = [
        word.strip("`,;.") for word in (ConfigError.__doc__ or "").split() if word.startswith(("`config_", "`exposed_"))
    ]
    assert len(codes) == 8
    assert all(f"| `{code}` |" in page for code in codes)
    assert all(
        f"| `{name.split('.')[1]}` |" in page or "$" in name or name.endswith("instances") for name, _ in leaves()
    )


def leaves() -> Iterator[tuple[str, dict[str, Any]]]:
    sections = {
        "server",
        "models",
        "logging",
        "gateway",
        "storage",
        "files",
        "batches",
        "memory",
        "groups",
        "accounting",
        "limits",
        "project",
        "reservation",
        "routing",
        "defaults",
        "instances",
    }
    return ((name, node) for name, node in nodes() if name.split(".")[1] not in sections)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--api-key", "s", "--port", "1"), ["--api-key", "********", "--port", "1"]),
        (("--hf-token=s=t", "x"), ["--hf-token=********", "x"]),
        (("--PASSWORD", "s"), ["--PASSWORD", "********"]),
        (("-key", "s"), ["-key", "********"]),
        (("--monkey", "--keyword", "v"), ["--monkey", "********", "v"]),
        (("--token",), ["--token"]),
    ],
)
def test_arguments_after_secret_flags_are_masked(arguments: tuple[str, ...], shown: list[str]) -> None:
    assert masked_arguments(arguments) == shown


def test_redacted_masks_arguments_of_engines() -> None:
    engines: dict[str, dict[str, Any]] = {
        "a": {"kind": "llama-server", "extra_args": ["--api-key", "canary"]},
        "b": {"kind": "vllm", "extra_args": ["--api-key=canary"]},
        "c": {"kind": "command", "argv": ["serve", "--secret", "canary"]},
    }
    tree = {"instances": {name: {"engine": engine, "model": "m"} for name, engine in engines.items()}}
    assert "canary" not in json.dumps(redacted(validate_tree(tree)))
