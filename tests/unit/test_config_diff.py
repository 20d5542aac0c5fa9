"""What a change of each setting asks for: a restart of the process, of the supervisor, or of nothing."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.config import InstanceSettings, ServerSettings, Settings, diff_settings
from supervisor.config.diff import LIVE_SERVER_KEYS, PROCESS_FIELDS

BASE: dict[str, Any] = {
    "server": {},
    "groups": {"big": {"max_loaded": 2}},
    "instances": {"a": {"model": "demo"}, "b": {"model": "demo"}},
}


def settings(**instance: Any) -> Settings:
    """Settings whose instance `a` has these keys."""
    return Settings.model_validate(BASE | {"instances": BASE["instances"] | {"a": {"model": "demo", **instance}}})


RESTARTED = [
    ("engine", {"ctx_size": 64}),
    ("engine", "llama-server"),
    ("model", "other"),
    ("survive_supervisor", True),
    ("url", "http://127.0.0.1:81"),
    ("host", "127.0.0.2"),
    ("port", 81),
    ("socket", "/s"),
    ("env", {"A": "1"}),
]
RETUNED = [
    ("autostart", False),
    ("required", False),
    ("on_demand", True),
    ("preload", True),
    ("ttl_seconds", 60.0),
    ("pinned", True),
    ("group", ["big"]),
    ("endpoint", "chat"),
    ("aliases", ["chat"]),
    ("warm_spare", 1),
    ("memory_bytes", 4096),
    ("adopt", False),
    ("supervision", {"max_retries": 1}),
    ("max_in_flight", 1),
    ("log_file_bytes", 1024),
    ("log_files", 1),
    ("log_ring_lines", 1),
]


@pytest.mark.parametrize(("key", "value"), RESTARTED)
def test_change_that_restarts_only_its_instance(key: str, value: object) -> None:
    diff = diff_settings(settings(), settings(**{key: value}))
    assert (diff.changed, diff.retuned, diff.unchanged) == (("a",), (), ("b",))
    assert not diff.server_changed
    assert not diff.live_changed


@pytest.mark.parametrize(("key", "value"), RETUNED)
def test_change_beneath_the_running_process(key: str, value: object) -> None:
    diff = diff_settings(settings(), settings(**{key: value}))
    assert (diff.changed, diff.retuned, diff.unchanged) == ((), ("a",), ("b",))


def test_every_field_of_an_instance_is_in_one_of_the_tables() -> None:
    assert {key for key, _ in RESTARTED} == set(PROCESS_FIELDS)
    assert {key for key, _ in RESTARTED + RETUNED} == set(InstanceSettings.model_fields)


def test_restart_wins_over_retuning() -> None:
    diff = diff_settings(settings(), settings(port=81, log_files=1))
    assert (diff.changed, diff.retuned) == (("a",), ())


def test_added_and_removed() -> None:
    one = Settings.model_validate({"instances": {"a": {"model": "demo"}}})
    diff = diff_settings(settings(), one)
    assert (diff.added, diff.removed, diff.unchanged) == ((), ("b",), ("a",))
    back = diff_settings(one, settings())
    assert (back.added, back.removed) == (("b",), ())


def test_defaults_retune_only_the_instances_that_they_reach() -> None:
    tree = {"instances": {"a": {"model": "demo", "supervision": {"max_retries": 5}}, "b": {"model": "demo"}}}
    old = Settings.model_validate(tree)
    new = Settings.model_validate(tree | {"defaults": {"max_retries": 2}})
    diff = diff_settings(old, new)
    assert (diff.retuned, diff.unchanged) == (("b",), ("a",))


def test_writing_a_default_out_changes_nothing() -> None:
    assert diff_settings(settings(), settings(log_files=3, supervision={"max_retries": 5}, engine="embedded")).is_empty


SERVER = {
    "host": "::1",
    "port": 1,
    "api_key": "k",
    "allowed_hosts": ["a"],
    "cors_origins": ["http://a"],
    "trusted_proxies": ["::1"],
    "tls": {"certificate": "/c", "key": "/k"},
    "insecure": True,
    "max_body_bytes": 4096,
    "head_deadline_seconds": 1,
    "body_deadline_seconds": 1,
    "shutdown_grace_seconds": 1,
    "upstream_idle_seconds": 1,
    "slow_reader_seconds": 1,
}


@pytest.mark.parametrize("key", list(ServerSettings.model_fields))
def test_server_keys_need_a_restart_of_the_supervisor_unless_they_are_read_anew(key: str) -> None:
    new = Settings.model_validate(BASE | {"server": {key: SERVER[key]}})
    diff = diff_settings(settings(), new)
    name = f"server.{key}"
    told = diff.live_changed if name in LIVE_SERVER_KEYS else diff.server_changed
    assert told == (name,)
    assert len(diff.live_changed) + len(diff.server_changed) == 1
    assert diff.unchanged == ("a", "b")


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"logging": {"level": "debug"}}, "logging.level"),
        ({"logging": {"format": "json"}}, "logging.format"),
        ({"models": {"folders": ["/m"]}}, "models.folders"),
        ({"routing": {"tiers": {"opus": "b"}}}, "routing.tiers"),
        ({"routing": {"rules": []}}, "routing.rules"),
        ({"routing": {"default": "large"}}, "routing.default"),
        ({"gateway": {"queue_limit": 1}}, "gateway.queue_limit"),
        ({"accounting": {"currency": "EUR"}}, "accounting.currency"),
        ({"files": {"max_bytes": 2048}}, "files.max_bytes"),
        ({"batches": {"parallel": 8}}, "batches.parallel"),
        ({"memory": {"limit_bytes": 4096}}, "memory.limit_bytes"),
        ({"memory": {"patience_seconds": 1}}, "memory.patience_seconds"),
        ({"groups": {"big": {"max_loaded": 3}}}, "groups"),
        ({"reload_on_change": True}, "reload_on_change"),
        ({"instances": {"b": {"model": "demo"}, "a": {"model": "demo"}}}, "instances"),
    ],
)
def test_keys_that_come_into_force_at_once(tree: dict[str, Any], key: str) -> None:
    diff = diff_settings(settings(), Settings.model_validate(BASE | tree))
    assert diff.live_changed == (key,)
    assert not diff.is_empty
    assert not diff.server_changed
