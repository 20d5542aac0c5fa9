"""Where the configuration comes from: search order, precedence of the layers, formats, paths, the environment's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.config import (
    DEMO_INSTANCE,
    CommandEngine,
    EmbeddedEngine,
    InstanceSettings,
    LlamaServerEngine,
    LoadedSettings,
    Settings,
    VllmEngine,
    find_config,
    load_settings,
)
from supervisor.config.environment import RESERVED
from supervisor.config.paths import is_model_path
from supervisor.config.schema import alternatives, node_at, properties


def write(folder: Path, tree: dict[str, Any], name: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def load(
    path: Path | None, environ: dict[str, str] | None = None, here: Path | None = None, **flags: Any
) -> LoadedSettings:
    folder = here or Path("/nonexistent")
    return load_settings(path, environ=environ or {}, overrides=flags, working_directory=folder, user_folder=folder)


def port_file(folder: Path, port: int, name: str = "config.json") -> Path:
    return write(folder, {"server": {"port": port}}, name)


def test_without_a_file_the_demo_is_served(tmp_path: Path) -> None:
    loaded = load(None, here=tmp_path)
    assert loaded.source_path is None
    assert loaded.settings == Settings()
    assert loaded.settings.instances == {DEMO_INSTANCE: InstanceSettings(model="demo")}


def test_file_without_instances_has_the_demo_and_one_with_an_empty_object_has_none(tmp_path: Path) -> None:
    assert list(load(port_file(tmp_path, 1)).settings.instances) == [DEMO_INSTANCE]
    assert load(write(tmp_path, {"instances": {}})).settings.instances == {}


def test_precedence_is_flag_environment_file_default(tmp_path: Path) -> None:
    path = port_file(tmp_path, 1001)
    environ = {"LLAMAVISOR_SERVER__PORT": "1002"}
    assert load(None, here=tmp_path / "none").settings.server.port == 3000
    assert load(path).settings.server.port == 1001
    assert load(path, environ).settings.server.port == 1002
    assert load(path, environ, None, **{"server.port": 1003}).settings.server.port == 1003
    assert load(path, environ, None, **{"server.port": None}).settings.server.port == 1002
    assert load(path, environ, server={"port": 1004}).settings.server.port == 1004


def test_search_order(tmp_path: Path) -> None:
    here, user = tmp_path / "here", tmp_path / "user"
    named, by_variable = port_file(tmp_path, 1, "named.json"), port_file(tmp_path, 2, "variable.json")
    in_user = port_file(user, 3)
    environ = {"LLAMAVISOR_CONFIG": str(by_variable)}

    def found(path: Path | None = None, variables: dict[str, str] | None = None) -> Path | None:
        return find_config(path, environ=variables or {}, working_directory=here, user_folder=user)

    expected = in_user
    for name in ("config.toml", "config.yml", "config.yaml", "config.json"):
        assert found() == expected
        expected = port_file(here, 4, name)
    assert found() == here / "config.json"
    assert found(variables=environ) == by_variable
    assert found(named, environ) == named
    assert found(Path("config.json")) == here / "config.json"
    assert found(variables={"LLAMAVISOR_CONFIG": "other.json"}) == here / "other.json"
    assert found(variables={"LLAMAVISOR_CONFIG": ""}) == here / "config.json"


def test_formats_mean_the_same(tmp_path: Path) -> None:
    as_json = tmp_path / "a.json"
    as_json.write_text('{"server": {"port": 81}, "instances": {"a.b": {"engine": "embedded", "model": "demo"}}}')
    as_yaml = tmp_path / "a.YAML"
    as_yaml.write_text("server: {port: 81}\ninstances:\n  a.b:\n    engine: embedded\n    model: demo\n")
    as_toml = tmp_path / "a.toml"
    as_toml.write_text('[server]\nport = 81\n[instances."a.b"]\nengine = "embedded"\nmodel = "demo"\n')
    loaded = [load(path) for path in (as_json, as_yaml, as_toml)]
    assert loaded[0].settings == loaded[1].settings == loaded[2].settings
    assert len({one.digest for one in loaded}) == 1


def test_yaml_merge_keys_and_byte_order_mark_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    text = "instances:\n  a: &a {model: demo, log_files: 5}\n  b: {<<: *a, log_files: 6}\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    instances = load(path).settings.instances
    assert (instances["b"].model, instances["b"].log_files) == ("demo", 6)


def test_empty_yaml_and_toml_are_the_defaults(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.toml"):
        (tmp_path / name).write_text("# nothing\n")
        assert load(tmp_path / name).settings == Settings()


def test_schema_pointer_is_ignored(tmp_path: Path) -> None:
    assert load(write(tmp_path, {"$schema": "./config.schema.json"})).settings == Settings()


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    tree = {
        "server": {"tls": {"certificate": "tls/cert.pem", "key": "/etc/key.pem"}},
        "models": {"folders": ["models", "~/models", "${HOME}/x"]},
        "instances": {
            "a": {
                "engine": {"kind": "llama-server", "binary": "bin/llama-server"},
                "model": "m/a.gguf",
                "socket": "a.sock",
            },
            "b": {"engine": {"kind": "command", "argv": ["./serve"], "working_directory": "w"}},
            "c": {"engine": "vllm", "model": "org/name"},
            "d": {"engine": "llama-server", "model": "name"},
        },
    }
    settings = load(write(tmp_path / "etc", tree), here=tmp_path).settings
    etc = tmp_path / "etc"
    assert settings.server.tls is not None
    assert (settings.server.tls.certificate, settings.server.tls.key) == (etc / "tls/cert.pem", Path("/etc/key.pem"))
    assert settings.models.folders == (etc / "models", Path("/home/ada/models"), etc / "${HOME}/x")
    a, b, c, d = settings.instances.values()
    assert isinstance(a.engine, LlamaServerEngine)
    assert (a.engine.binary, a.model, a.socket) == (
        str(etc / "bin/llama-server"),
        str(etc / "m/a.gguf"),
        etc / "a.sock",
    )
    assert isinstance(b.engine, CommandEngine)
    assert (b.engine.argv, b.engine.working_directory) == (("./serve",), etc / "w")
    assert c.model == "org/name"
    assert isinstance(d.engine, LlamaServerEngine)
    assert (d.engine.binary, d.model) == ("llama-server", "name")


def test_paths_of_variables_and_flags_count_from_the_working_directory(tmp_path: Path) -> None:
    path = write(tmp_path / "etc", {"instances": {"a": {"model": "a.gguf", "socket": "a.sock"}}})
    here = tmp_path / "here"
    environ = {"LLAMAVISOR_INSTANCES__A__MODEL": "b.gguf", "LLAMAVISOR_MODELS__FOLDERS": '["m"]'}
    settings = load(path, environ, here, **{"server.tls": {"certificate": "c", "key": "k"}}).settings
    assert settings.instances["a"].model == str(here / "b.gguf")
    assert settings.instances["a"].socket == tmp_path / "etc/a.sock"
    assert settings.models.folders == (here / "m",)
    assert settings.server.tls is not None
    assert settings.server.tls.key == here / "k"


def test_every_path_of_the_schema_is_made_absolute(tmp_path: Path) -> None:
    """A path setting that is added later, and forgotten where paths are resolved, fails here."""
    tree: dict[str, Any] = {"instances": {"a": {"engine": {"kind": "command", "argv": ["x"]}}}}
    found = []
    for section in (("server", "tls"), ("models",), ("instances", "a"), ("instances", "a", "engine")):
        for name, nodes in properties(node_at(section) or {}).items():
            branches = [branch for node in nodes for branch in alternatives(node)]
            is_list = any(branch.get("items", {}).get("format") == "path" for branch in branches)
            if is_list or any(branch.get("format") == "path" for branch in branches):
                found.append(".".join((*section, name)))
                holder = tree
                for part in section:
                    holder = holder.setdefault(part, {})
                holder[name] = ["relative"] if is_list else "relative"
    assert len(found) == 5
    assert '"relative"' not in load(write(tmp_path, tree)).settings.model_dump_json()


@pytest.mark.parametrize(
    ("model", "kind", "is_path"),
    [
        ("demo", "embedded", False),
        ("name", "embedded", False),
        ("a.gguf", "embedded", True),
        ("A.GGUF", "vllm", True),
        ("folder/a", "embedded", True),
        ("org/name", "vllm", False),
        ("./org/name", "vllm", True),
        ("../name", "vllm", True),
        ("~/name", "vllm", True),
        ("/srv/name", "vllm", True),
    ],
)
def test_what_counts_as_a_path_of_a_model(model: str, kind: str, is_path: bool) -> None:
    assert is_model_path(model, kind) is is_path


def test_environment_reaches_every_depth_with_the_type_of_the_setting(tmp_path: Path) -> None:
    environ = {
        "LLAMAVISOR_RELOAD_ON_CHANGE": "yes",
        "LLAMAVISOR_SERVER__API_KEY": "12345",
        "LLAMAVISOR_SERVER__INSECURE": "0",
        "LLAMAVISOR_SERVER__ALLOWED_HOSTS": '["a.example", "b.example"]',
        "LLAMAVISOR_DEFAULTS__RETRY_BASE_SECONDS": ".5",
        "LLAMAVISOR_DEFAULTS__MAX_RETRIES": "7",
        "LLAMAVISOR_LOGGING": '{"level": "debug"}',
        "LLAMAVISOR_INSTANCES__DEMO__ENGINE__CTX_SIZE": "512",
        "LLAMAVISOR_INSTANCES__DEMO__ENGINE__FLASH_ATTN": "auto",
        "LLAMAVISOR_INSTANCES__DEMO__ENV__HF_TOKEN": "true",
        "LLAMAVISOR_INSTANCES__DEMO__ENV__a__B": "1",
        "LLAMAVISOR_INSTANCES__DEMO__SUPERVISION__MAX_RETRIES": "9",
    }
    settings = load(None, environ, tmp_path).settings
    server, demo = settings.server, settings.instances["demo"]
    assert settings.reload_on_change
    assert server.api_key is not None
    assert (server.api_key.get_secret_value(), server.insecure) == ("12345", False)
    assert server.allowed_hosts == ("a.example", "b.example")
    assert (settings.defaults.retry_base_seconds, settings.logging.level) == (0.5, "debug")
    assert demo.engine == EmbeddedEngine(ctx_size=512, flash_attn="auto")
    assert (demo.model, demo.env) == ("demo", {"HF_TOKEN": "true", "a__B": "1"})
    assert demo.resolved_supervision(settings.defaults).max_retries == 9
    assert settings.supervision_of("demo").retry_base_seconds == 0.5


def test_deeper_variable_wins_over_the_object_around_it(tmp_path: Path) -> None:
    environ = {"LLAMAVISOR_SERVER__PORT": "81", "LLAMAVISOR_SERVER": '{"port": 80, "host": "::1"}'}
    server = load(None, environ, tmp_path).settings.server
    assert (server.host, server.port) == ("::1", 81)


def test_null_takes_a_setting_back_and_an_empty_variable_does_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, {"instances": {"a": {"model": "demo", "port": 81}}, "server": {"api_key": "k"}})
    environ = {"LLAMAVISOR_INSTANCES__A__PORT": "null", "LLAMAVISOR_SERVER__API_KEY": ""}
    settings = load(path, environ).settings
    assert settings.instances["a"].port is None
    assert settings.server.api_key is not None


def test_environment_extends_an_engine_given_by_its_kind_alone(tmp_path: Path) -> None:
    path = write(tmp_path, {"instances": {"a": {"engine": "llama-server", "model": "demo"}}})
    engine = load(path, {"LLAMAVISOR_INSTANCES__A__ENGINE__CTX_SIZE": "64"}).settings.instances["a"].engine
    assert engine == LlamaServerEngine(kind="llama-server", ctx_size=64)
    other = load(path, {"LLAMAVISOR_INSTANCES__A__ENGINE": "vllm"}).settings.instances["a"].engine
    assert other == VllmEngine(kind="vllm")


def test_instances_with_dots_and_dashes_are_reached(tmp_path: Path) -> None:
    path = write(tmp_path, {"instances": {"my-chat.7b": {"model": "demo"}, "other": {"model": "demo"}}})
    settings = load(path, {"LLAMAVISOR_INSTANCES__MY_CHAT_7B__PORT": "81"}).settings
    assert list(settings.instances) == ["my-chat.7b", "other"]
    assert settings.instances["my-chat.7b"].port == 81
    whole = {"LLAMAVISOR_INSTANCES": '{"new-one.x": {"model": "demo"}}'}
    assert list(load(path, whole).settings.instances) == ["my-chat.7b", "other", "new-one.x"]


def test_instance_that_two_names_fit_is_refused_unless_one_is_exact(tmp_path: Path) -> None:
    twins = {"instances": {"a-b": {"model": "demo"}, "a.b": {"model": "demo"}}}
    with pytest.raises(Exception, match=r"A_B may mean `a-b` and `a\.b`"):
        load(write(tmp_path, twins), {"LLAMAVISOR_INSTANCES__A_B__PORT": "81"})
    twins["instances"]["a_b"] = {"model": "demo"}
    settings = load(write(tmp_path, twins), {"LLAMAVISOR_INSTANCES__A_B__PORT": "81"}).settings
    assert [instance.port for instance in settings.instances.values()] == [None, None, 81]


def test_variables_alone_can_configure_an_instance_in_place_of_the_demo(tmp_path: Path) -> None:
    environ = {"LLAMAVISOR_INSTANCES__CHAT__MODEL": "demo"}
    assert list(load(None, environ, tmp_path).settings.instances) == ["chat"]
    assert load(None, {"LLAMAVISOR_INSTANCES": "{}"}, tmp_path).settings.instances == {}


def test_other_variables_are_ignored(tmp_path: Path) -> None:
    environ = dict.fromkeys(RESERVED - {"LLAMAVISOR_CONFIG"}, "x")
    environ |= {"LLAMAVISOR_PORT": "tcp://10.0.0.1:80", "LLAMAVISOR_SERVICE_HOST": "10.0.0.1", "SERVER__PRT": "1"}
    assert load(None, environ, tmp_path).settings == Settings()


def test_digest_tells_configurations_apart_and_holds_no_secret(tmp_path: Path) -> None:
    def digest(**tree: Any) -> str:
        return load(write(tmp_path, tree)).digest

    assert digest(server={"port": 1}) == digest(server={"port": 1, "host": "127.0.0.1"})
    assert digest(server={"port": 1}) != digest(server={"port": 2})
    assert digest(server={"api_key": "a"}) == digest(server={"api_key": "b"}) != digest()


def test_settings_are_immutable_and_do_not_print_secrets() -> None:
    tree = {"server": {"api_key": "canary"}, "instances": {"a": {"model": "demo", "env": {"TOKEN": "canary"}}}}
    settings = Settings.model_validate(tree)
    assert "canary" not in repr(settings)
    assert "canary" not in str(settings)
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]


def test_required_follows_autostart_unless_set() -> None:
    assert InstanceSettings(model="demo").is_required
    assert not InstanceSettings(model="demo", autostart=False).is_required
    assert InstanceSettings(model="demo", autostart=False, required=True).is_required
