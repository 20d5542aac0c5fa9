"""Any valid settings, written in any format, load to the same settings; and the difference of two settings is sound."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import Settings, diff_settings, load_settings, redacted, settings_schema, settings_tree
from supervisor.config.schema import Schema, alternatives, choices, node_at, properties

Values = st.SearchStrategy[Any]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\x7f"), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True)
LOW = ("retry_base_seconds", "probe_interval_min_seconds", "wedge_seconds")
HIGH = ("retry_cap_seconds", "probe_interval_max_seconds", "wedge_busy_seconds")
ADDRESSES = ("url", "host", "port", "socket")
WORDS: dict[str, Values] = {
    "host": st.sampled_from(["127.0.0.1", "::1", "0.0.0.0", "llm.example"]),
    "api_key": st.from_regex(r"[\x21-\x7e]{1,20}", fullmatch=True),
    "allowed_hosts": st.lists(st.sampled_from(["a.example", "[::1]"])),
    "cors_origins": st.lists(st.sampled_from(["https://a.example", "http://localhost:5173"])),
    "model": st.sampled_from(["demo", "name", "/srv/a.gguf"]),
    "binary": st.sampled_from(["llama-server", "/opt/x"]),
    "health_path": TEXT.map(lambda text: f"/{text}"),
    "currency": st.from_regex(r"[\x21-\x7e]{1,8}", fullmatch=True),
    **dict.fromkeys(("argv", "tokenizer_argv", "model_argv"), st.lists(TEXT, min_size=1, max_size=3)),
}


def leaf(node: Schema) -> Values:
    return st.one_of([branch_values(branch) for branch in alternatives(node) if branch.get("type") != "null"])


def branch_values(branch: Schema) -> Values:
    if words := choices(branch):
        return st.sampled_from(words)
    low, high = branch.get("minimum"), branch.get("maximum")
    if branch["type"] == "number":
        above = branch.get("exclusiveMinimum")
        return st.floats(above if low is None else low, high, exclude_min=above is not None)
    if branch["type"] == "integer":
        return st.integers(low, high)
    if branch["type"] == "array":
        return st.lists(leaf(branch["items"]), max_size=3)
    formats = {"path": NAMES.map(lambda name: f"/srv/{name}"), "ipvanynetwork": st.sampled_from(["10.0.0.0/8", "::1"])}
    return st.booleans() if branch["type"] == "boolean" else formats.get(branch.get("format", ""), TEXT)


def keys_of(nodes: dict[str, Schema], *, without: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    optional = {
        name: WORDS[name] if name in WORDS else leaf(node) for name, node in nodes.items() if name not in without
    }
    return st.fixed_dictionaries({}, optional=optional)


def children(*path: str) -> dict[str, Schema]:
    return {name: nodes[0] for name, nodes in properties(node_at(path) or {}).items()}


FIGURES = keys_of(children("defaults"), without=(*LOW, *HIGH))
LOWS = st.fixed_dictionaries({}, optional=dict.fromkeys(LOW, st.floats(1e-6, 100)))
HIGHS = st.fixed_dictionaries(dict.fromkeys(HIGH, st.floats(100, 1e6)))
ENGINE_NODES = {
    choices(branch["properties"]["kind"])[0]: branch["properties"]
    for branch in alternatives(node_at(("instances", "x", "engine")) or {})
    if "properties" in branch
}
ENGINES = {kind: keys_of(branch, without=("kind",)) for kind, branch in ENGINE_NODES.items()}
SERVER = keys_of(children("server"), without=("port", "tls"))
SECTIONS = {section: keys_of(children(section)) for section in ("models", "logging", "memory")}
LIMITS = st.fixed_dictionaries(
    {}, optional={whose: keys_of(children("accounting", "limits", whose)) for whose in ("key", "project")}
)
PRICE = st.integers(0, 10**9).map(lambda micros: micros / 10**6) | st.sampled_from(["0.15", "12", "0.000001"])
ACCOUNTING = st.fixed_dictionaries(
    {"currency": WORDS["currency"]},
    optional={
        "prices": st.dictionaries(TEXT, st.fixed_dictionaries({"input": PRICE, "output": PRICE}), max_size=2),
        "limits": LIMITS,
        "reservation": keys_of(children("accounting", "reservation")),
    },
)
NAMING = ("endpoint", "aliases", "group")
ON_DEMAND = ("on_demand", "ttl_seconds")
INSTANCE = keys_of(
    children("instances", "x"),
    without=(*ADDRESSES, *NAMING, *ON_DEMAND, "engine", "env", "supervision", "adopt", "model"),
)
GROUPS = st.dictionaries(NAMES, st.sampled_from([{"exclusive": False}, {"max_loaded": 3}]), max_size=2)
LIFETIMES = st.one_of(
    st.fixed_dictionaries({}, optional={"on_demand": st.booleans()}),
    st.fixed_dictionaries({"ttl_seconds": st.floats(0.5, 1e6)}, optional={"on_demand": st.just(True)}),
)


@st.composite
def engines(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(sorted(ENGINE_NODES)))
    engine = draw(ENGINES[kind])
    if kind == "command":
        return {"kind": kind, "argv": ["serve"], **engine}
    if kind == "linejson":
        return {"kind": kind, "tokenizer_argv": ["read"], "model_argv": ["write"], **engine}
    return {"kind": kind, **engine} if engine else kind


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """A valid configuration as plain values; every key of the schema has its turn."""
    instances, groups = {}, draw(GROUPS)
    for number, name in enumerate(draw(st.lists(NAMES, unique=True, max_size=3))):
        instance = draw(INSTANCE)
        places = [{}, {"port": 8134 + number}, {"socket": f"/run/{number}"}, {"url": f"http://h:{number + 1}/x"}]
        instance |= draw(st.sampled_from(places))
        instance |= {"engine": draw(engines()), "model": draw(WORDS["model"])}
        # An endpoint longer than any name, and aliases that are none: they cannot mean something else already.
        naming = {"endpoint": "the-endpoint-of-them-all", "aliases": ["one of them"], "group": sorted(groups)}
        instance |= draw(st.sampled_from([{}, naming])) | draw(LIFETIMES)
        instance["env"] = draw(st.dictionaries(TEXT.filter(lambda text: "=" not in text), TEXT, max_size=2))
        instance["supervision"] = draw(FIGURES) | draw(LOWS) | draw(st.one_of(st.just({}), HIGHS))
        instances[name] = instance
    server = draw(SERVER)
    if draw(st.booleans()):
        server["tls"] = {"certificate": "/srv/c", "key": "/srv/k"}
    tree = {
        "server": server,
        "instances": instances,
        "groups": groups,
        "accounting": draw(ACCOUNTING),
        "defaults": draw(FIGURES) | draw(LOWS) | draw(HIGHS),
    }
    return tree | {section: draw(keys) for section, keys in SECTIONS.items()}


def as_toml(tree: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {toml_value(value)}\n" for key, value in tree.items())


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(
            f"{json.dumps(key, ensure_ascii=False)} = {toml_value(child)}" for key, child in value.items()
        )
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


@given(trees())
def test_settings_survive_every_format(tree: dict[str, Any]) -> None:
    settings = Settings.model_validate(tree)
    plain = settings_tree(settings)
    texts = {
        "json": json.dumps(plain),
        "yaml": yaml.safe_dump(plain, sort_keys=False),
        "toml": as_toml(plain),
    }
    with tempfile.TemporaryDirectory() as folder:
        for suffix, text in texts.items():
            path = Path(folder) / f"config.{suffix}"
            path.write_text(text, encoding="utf-8", newline="")
            loaded = load_settings(path, environ={}).settings
            assert loaded == settings
            assert list(loaded.instances) == list(settings.instances)


@given(trees())
def test_schema_accepts_what_the_models_accept(tree: dict[str, Any]) -> None:
    Settings.model_validate(tree)
    VALIDATOR.validate(tree)
    VALIDATOR.validate(settings_tree(Settings.model_validate(tree)))


VALIDATOR = jsonschema.Draft202012Validator(settings_schema())


@given(trees(), trees())
def test_difference_is_a_partition_and_mirrors(one: dict[str, Any], two: dict[str, Any]) -> None:
    # The same names on both sides, so that they meet.
    two["instances"] = dict(zip(one["instances"], two["instances"].values(), strict=False)) | {"new": {"model": "demo"}}
    old, new = Settings.model_validate(one), Settings.model_validate(two)
    diff, back = diff_settings(old, new), diff_settings(new, old)
    groups = (diff.added, diff.changed, diff.retuned, diff.unchanged)
    assert sorted(name for group in groups for name in group) == sorted(new.instances)
    assert set(diff.removed) == set(old.instances) - set(new.instances)
    assert (set(diff.added), set(diff.changed), set(diff.retuned)) == (
        set(back.removed),
        set(back.changed),
        set(back.retuned),
    )
    assert (diff.server_changed, diff.live_changed) == (back.server_changed, back.live_changed)
    assert diff_settings(old, Settings.model_validate(one)).is_empty
    assert diff.is_empty is (old == new)


@given(trees())
def test_redaction_hides_every_secret_and_nothing_else(tree: dict[str, Any]) -> None:
    canary = "canary-7c1e"
    tree["server"]["api_key"] = canary
    for instance in tree["instances"].values():
        instance["env"] = dict.fromkeys(instance["env"], canary)
    settings = Settings.model_validate(tree)
    shown, plain = redacted(settings), settings_tree(settings)
    assert canary not in json.dumps(shown)
    assert shown["server"].pop("api_key") == "********"
    assert plain["server"].pop("api_key") == canary
    for name in plain["instances"]:
        assert list(shown["instances"][name].pop("env")) == list(plain["instances"][name].pop("env"))
    assert shown == plain
