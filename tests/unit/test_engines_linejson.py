"""The engine `linejson`: its command line, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.settings import InstanceSettings
from supervisor.engines.linejson import Linejson
from supervisor.engines.linejson_http import check_known
from supervisor.errors import InvalidConfigurationError, MalformedRequestError
from supervisor.launch import Address

ADDRESS = Address(socket_path=Path("/run/one.sock"))
ARGV = {
    "tokenizer_argv": ["tok", "--port", "${PORT}"],
    "model_argv": ["gen", "--socket", "${SOCKET}", "-m", "${MODEL}"],
}


def settings(**engine: Any) -> InstanceSettings:
    """An instance with a pair."""
    return InstanceSettings.model_validate({"model": "/m/tiny.bin", "engine": {"kind": "linejson", **ARGV, **engine}})


def test_the_server_is_told_of_the_pair() -> None:
    spec = Linejson().launch_spec("one", settings(parallel=2), ADDRESS, "/m/tiny.bin")
    assert spec.argv[spec.argv.index("--host") + 1] == "/run/one.sock"
    told = json.loads(spec.argv[-1])
    assert told["tokenizer_argv"] == ["tok", "--port", "${PORT}"]
    assert told["model_argv"] == ["gen", "--socket", "${SOCKET}", "-m", "/m/tiny.bin"]
    assert told["parallel"] == 2
    assert "Server listening" in told["ready_markers"]


@pytest.mark.parametrize(
    ("engine", "key"),
    [
        ({"model_argv": ["gen"]}, "engine.model_argv"),
        ({"tokenizer_argv": ["tok", "${NOWHERE}"]}, "engine.tokenizer_argv"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_key(engine: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidConfigurationError) as refusal:
        Linejson().launch_spec("one", settings(**engine), ADDRESS, "/m/tiny.bin")
    assert refusal.value.param == f"instances.one.{key}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("best_of", 3),
        ("stop", "\n"),
        ("stop", ["a"]),
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("logprobs", 0),
        ("echo", True),
    ],
)
def test_what_the_protocol_has_no_words_for_is_refused(field: str, value: Any) -> None:
    with pytest.raises(MalformedRequestError, match="linejson") as refusal:
        check_known({"messages": [], field: value})
    assert refusal.value.param == field


def test_what_asks_for_nothing_may_be_there() -> None:
    check_known({"n": 1, "n_cmpl": None, "stop": [], "tools": [], "logprobs": False, "echo": False, "suffix": ""})
    check_known({"stop": None, "response_format": {"type": "text"}, "logit_bias": {}, "seed": 1, "user": "me"})
