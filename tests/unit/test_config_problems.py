"""Bad input of every kind: each row names the key, what is wrong, and what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.config import ConfigError, Problem, load_settings, validate_tree
from supervisor.config.loading import FILE_LIMIT_BYTES
from supervisor.config.suggestions import listed, nearest

SECRET = "canary-5f3d"


def refused(tree: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        validate_tree(tree)
    return caught.value


def refused_file(path: Path, environ: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, environ=environ or {})
    return caught.value


def chat(**keys: Any) -> dict[str, Any]:
    return {"instances": {"chat": {"model": "demo", **keys}}}


def engine(**keys: Any) -> dict[str, Any]:
    return chat(engine=keys)


ROWS: list[tuple[dict[str, Any], str, str]] = [
    (
        engine(ctx_sizee=1),
        "instances.chat.engine.ctx_sizee",
        "unknown key `instances.chat.engine.ctx_sizee`; did you mean `ctx_size`?",
    ),
    (chat(ctx_size=1), "instances.chat.ctx_size", "did you mean `instances.chat.engine.ctx_size`?"),
    ({"port": 1}, "port", "did you mean `server.port`?"),
    ({"prot": 1}, "prot", "did you mean `server.port`?"),
    ({"zzz": 1}, "zzz", "known here: `server`, `models`, `logging`"),
    ({"server": {"hosts": "x"}}, "server.hosts", "did you mean `host`?"),
    ({"server": 5}, "server", "must be an object, not a number"),
    ({"server": {"port": "80"}}, "server.port", "must be a whole number, not text"),
    ({"server": {"port": True}}, "server.port", "must be a whole number, not true"),
    ({"server": {"port": 1.5}}, "server.port", "must be a whole number, not a number"),
    ({"server": {"port": 65536}}, "server.port", "must be at most 65535, not 65536"),
    ({"server": {"port": -1}}, "server.port", "must be at least 0, not -1"),
    ({"server": {"port": 10**400}}, "server.port", "must be at most 65535"),
    ({"server": {"host": ""}}, "server.host", "is empty"),
    ({"server": {"host": "http://x"}}, "server.host", "is no host name or IP address"),
    ({"server": {"host": "[::1]"}}, "server.host", "without scheme, port or brackets"),
    ({"server": {"api_key": ""}}, "server.api_key", "is empty"),
    ({"server": {"api_key": 5}}, "server.api_key", "must be text, not a number"),
    ({"server": {"api_key": f"{SECRET} "}}, "server.api_key", "cannot be sent in a header"),
    ({"server": {"insecure": "yes"}}, "server.insecure", "must be true or false, not text"),
    ({"server": {"max_body_bytes": 10}}, "server.max_body_bytes", "must be at least 1024"),
    ({"server": {"body_deadline_seconds": 0}}, "server.body_deadline_seconds", "must be above 0, not 0"),
    (
        {"server": {"tls": {"key": "k"}}},
        "server.tls.certificate",
        "missing key `server.tls.certificate`; add it (PEM file",
    ),
    ({"server": {"tls": {"key": 1, "certificate": "c"}}}, "server.tls.key", "must be a path"),
    ({"server": {"allowed_hosts": ["http://x"]}}, "server.allowed_hosts", "holds what is no host name"),
    ({"server": {"allowed_hosts": "x"}}, "server.allowed_hosts", "must be a list, not text"),
    ({"server": {"allowed_hosts": [1]}}, "server.allowed_hosts[0]", "must be text, not a number"),
    ({"server": {"cors_origins": ["http://x/"]}}, "server.cors_origins", "holds what is no origin"),
    ({"server": {"cors_origins": ["*"]}}, "server.cors_origins", "name the origins, or set `server.api_key`"),
    ({"server": {"trusted_proxies": ["10.0.0.1/8"]}}, "server.trusted_proxies[0]", "is no IP address or network"),
    ({"server": {"trusted_proxies": [5]}}, "server.trusted_proxies[0]", "must be text, not a number"),
    ({"logging": {"level": "inf"}}, "logging.level", "not `inf`; did you mean `info`?"),
    ({"logging": {"format": "xml-like"}}, "logging.format", "choose one of `text`, `json`"),
    ({"reload_on_change": 1}, "reload_on_change", "must be true or false"),
    ({"models": {"folders": "x"}}, "models.folders", "must be a list, not text"),
    ({"defaults": {"max_retries": -1}}, "defaults.max_retries", "must be at least 0"),
    ({"defaults": {"retry_jitter": 1.1}}, "defaults.retry_jitter", "must be at most 1, not 1.1"),
    ({"defaults": {"retry_base_seconds": 31}}, "defaults.retry_base_seconds", "raise `retry_cap_seconds`"),
    ({"defaults": {"wedge_seconds": 601}}, "defaults.wedge_seconds", "is above `wedge_busy_seconds` (600)"),
    ({"instances": []}, "instances", "must be an object, not a list"),
    ({"instances": {"Big": {"model": "demo"}}}, "instances.Big", "is no name for an instance"),
    ({"instances": {"a b": {"model": "demo"}}}, 'instances."a b"', "use 1 to 63 lower-case letters"),
    ({"instances": {"a" * 64: {"model": "demo"}}}, f"instances.{'a' * 64}", "use 1 to 63"),
    ({"instances": {"chat": None}}, "instances.chat", "must be an object, not null"),
    ({"instances": {"chat": {}}}, "instances.chat.model", "the engine `embedded` needs a `model`"),
    (
        {"instances": {"chat": {"engine": "llama-server"}}},
        "instances.chat.model",
        "the engine `llama-server` needs a `model`",
    ),
    ({"instances": {"chat": {"engine": "vllm"}}}, "instances.chat.model", "the engine `vllm` needs a `model`"),
    ({"instances": {"chat": {"engine": "command"}}}, "instances.chat.engine.argv", "the engine `command` needs `argv`"),
    (chat(engine="lama-server"), "instances.chat.engine.kind", "unknown engine kind `lama-server`"),
    (chat(engine="lama-server"), "instances.chat.engine.kind", "did you mean `llama-server`?"),
    (chat(engine={"kind": "zzz"}), "instances.chat.engine.kind", "`embedded`"),
    (chat(engine=5), "instances.chat.engine", "must be an object, not a number"),
    (
        engine(binary="x"),
        "instances.chat.engine.binary",
        "it is a key of `llama-server` and `vllm`; this engine is `embedded`",
    ),
    (engine(kind="vllm", ctx_size=1), "instances.chat.engine.ctx_size", "this engine is `vllm`"),
    (engine(flash_attn="on"), "instances.chat.engine.flash_attn", 'must be true, false or "auto", not text'),
    (engine(flash_attn=1), "instances.chat.engine.flash_attn", 'must be true, false or "auto", not a number'),
    (engine(cache_type_k="q8"), "instances.chat.engine.cache_type_k", "did you mean `q8_0`?"),
    (engine(top_p=7), "instances.chat.engine.top_p", "must be at most 1, not 7"),
    (engine(ctx_size=-1), "instances.chat.engine.ctx_size", "must be at least 1, not -1"),
    (engine(temperature=-0.5), "instances.chat.engine.temperature", "must be at least 0, not -0.5"),
    (engine(kind="vllm", dtype="fp8"), "instances.chat.engine.dtype", "`bfloat16`"),
    (engine(kind="vllm", gpu_memory_utilization=0), "instances.chat.engine.gpu_memory_utilization", "must be above 0"),
    (engine(kind="command", argv="sleep 1"), "instances.chat.engine.argv", "must be a list, not text"),
    (engine(kind="command", argv=[""]), "instances.chat.engine.argv", "names no program"),
    (engine(kind="command", argv=["x"], health_path="h"), "instances.chat.engine.health_path", "begin it with `/`"),
    (chat(url="ftp://x"), "instances.chat.url", "is no address"),
    (chat(url="x"), "instances.chat.url", "write `http://host:port`"),
    (chat(url="http://h", adopt=False), "instances.chat.adopt", "set `adopt` to true, or remove `url`"),
    (chat(url=f"http://u:{SECRET}@h"), "instances.chat.url", "holds a user name or password"),
    (chat(url=f"http://h/?token={SECRET}"), "instances.chat.url", "holds a query or fragment"),
    (chat(url="http://h", port=1), "instances.chat.port", "`url` and `port` are both given"),
    (chat(port=1, socket="/s"), "instances.chat.socket", "`port` and `socket` are both given"),
    (chat(url="http://h", host="127.0.0.2"), "instances.chat.host", "`host` means nothing beside `url`"),
    (chat(host="0.0.0.0"), "instances.chat.host", "must be a loopback address"),
    (chat(port=0), "instances.chat.port", "must be at least 1"),
    (chat(socket="/" + "s" * 107), "instances.chat.socket", "is longer than 107 bytes"),
    (chat(socket="/" + "ü" * 54), "instances.chat.socket", "is longer than 107 bytes"),
    (chat(env={"A": 1}), "instances.chat.env.A", "must be text, not a number"),
    (chat(env={"A=B": SECRET}), "instances.chat.env", "holds an impossible name"),
    (chat(env=SECRET), "instances.chat.env", "must be an object, not text"),
    (chat(supervision={"max_retry": 1}), "instances.chat.supervision.max_retry", "did you mean `max_retries`?"),
    (chat(max_retries=1), "instances.chat.max_retries", "did you mean `instances.chat.supervision.max_retries`?"),
    (chat(supervision={"wedge_seconds": 700}), "instances.chat.supervision.wedge_seconds", "with `defaults` taken in"),
    (chat(log_files=0), "instances.chat.log_files", "must be at least 1"),
    (chat(port=3000), "instances.chat.port", "is already the address of the server itself"),
    (
        {"instances": {"a": {"model": "demo", "port": 8134}, "b": {"model": "demo", "port": 8134}}},
        "instances.b.port",
        "`port` of `b` is already the address of `a`",
    ),
]


@pytest.mark.parametrize(("tree", "key", "text"), ROWS, ids=[f"{row[1]}-{number}" for number, row in enumerate(ROWS)])
def test_bad_value_is_refused_with_key_and_remedy(tree: dict[str, Any], key: str, text: str) -> None:
    error = refused(tree)
    told = {problem.key: str(problem) for problem in error.problems}
    assert text in told[key]
    assert (error.code, error.status) == ("config_invalid", 422)
    assert all(problem.remedy for problem in error.problems)
    assert SECRET not in str(error)
    assert SECRET not in json.dumps(error.details)
    assert error.__cause__ is None, "a chained pydantic error would print the input"


def test_every_problem_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        '{\n"server": {"port": 70000,\n "hosts": 1},\n"instances": {"chat": {\n"engine": {"ctx_sizee": 1}}}}'
    )
    error = refused_file(path)
    assert [(problem.key, problem.line) for problem in error.problems] == [
        ("server.port", 2),
        ("server.hosts", 3),
        ("instances.chat.engine.ctx_sizee", 5),
    ]
    assert str(error).splitlines()[0] == f"{path}: 3 problems"
    assert error.param == "server.port"
    assert error.details["problems"][2]["line"] == 5


def test_one_problem_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server:\n  prot: 1\n")
    error = refused_file(path)
    assert str(error) == f"{path}: line 2: unknown key `server.prot`; did you mean `port`?"


def test_missing_key_points_at_the_line_of_its_object(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("instances:\n  chat:\n    autostart: true\n")
    assert refused_file(path).problems == (
        Problem(
            "instances.chat.model",
            "`instances.chat`: the engine `embedded` needs a `model`",
            'set `model` to a GGUF file or "demo", or give the `url` of a running server',
            line=2,
        ),
    )


CONTENTS: list[tuple[str, bytes, str, str, int | None]] = [
    ("c.json", b"", "config_syntax", "not JSON", 1),
    ("c.json", b'{\n"a": }', "config_syntax", "not JSON: Expecting value", 2),
    ("c.json", b'{"server": {}}\n{}', "config_syntax", "Extra data", 2),
    ("c.json", b"[]", "config_invalid", "does not hold an object", None),
    ("c.json", b'{"a": NaN}', "config_invalid", "`a` is not a finite number", 1),
    ("c.json", b'{"a":\n {"b": [1, -Infinity]}}', "config_invalid", "`a.b[1]` is not a finite number", 2),
    ("c.json", b'{"a": 1e999}', "config_invalid", "not a finite number", 1),
    ("c.json", b'{"a": ' + b"9" * 5000 + b"}", "config_syntax", "too many digits", None),
    ("c.json", b"[" * 100_000, "config_syntax", "nested too deeply", None),
    ("c.json", b'{"server": {},\n"server": {}}', "config_invalid", "`server` is given twice (first on line 1)", 2),
    ("c.json", b'{"server": {"port": 1,\n\n"port": 1}}', "config_invalid", "`server.port` is given twice", 3),
    ("c.json", b'{"a\\u0062": 1,\n"ab": 2}', "config_invalid", "`ab` is given twice", 2),
    ("c.json", b'{"server":\n{"host": "\\u0000"}}', "config_invalid", "`server.host` holds a NUL character", 2),
    ("c.json", b'{"server": {"host": "\\ud800"}}', "config_invalid", "half a surrogate pair", 1),
    ("c.json", b'{\n\n"a": "\xff"}', "config_encoding", "is not UTF-8", 3),
    ("c.json", b" " * (FILE_LIMIT_BYTES + 1), "config_too_large", "larger than 1048576 bytes", None),
    ("c.yaml", b"a: b: c", "config_syntax", "not YAML: mapping values are not allowed here", 1),
    (
        "c.yaml",
        b"server:\n  port: 1\n  port: 2\n",
        "config_invalid",
        "`server.port` is given twice (first on line 2)",
        3,
    ),
    ("c.yaml", b"a: .nan", "config_invalid", "`a` is not a finite number", 1),
    ("c.yaml", b"a: .inf", "config_invalid", "`a` is not a finite number", 1),
    ("c.yaml", b"a: 2020-01-01", "config_invalid", "`a` is a date", 1),
    ("c.yaml", b"a: 2020-13-01", "config_syntax", "a value cannot be read", None),
    ("c.yaml", b"a: !!binary aGk=", "config_invalid", "`a` is a bytes", 1),
    ("c.yaml", b"a: !!set {b}", "config_invalid", "`a` is a set", 1),
    ("c.yaml", b"1: 2", "config_invalid", "a key that is not plain text", None),
    ("c.yaml", b"server: {on: 1}", "config_invalid", "`server` holds a key that is not plain text", 1),
    ("c.yaml", b"? [a]\n: 1", "config_syntax", "unhashable key", 1),
    ("c.yaml", b"a: !!python/object/apply:os.getpid []", "config_syntax", "could not determine a constructor", 1),
    ("c.yaml", b"a: *nothing", "config_syntax", "undefined alias", 1),
    ("c.yaml", b"a: 1\n---\nb: 2", "config_syntax", "not YAML", 2),
    ("c.yaml", b"a: \x07", "config_syntax", "control character", None),
    ("c.yaml", b"a: &x [*x]", "config_syntax", "aliases expand too far", None),
    ("c.yaml", b"a: &x {b: *x}", "config_syntax", "aliases expand too far", None),
    ("c.yaml", b"[" * 20_000, "config_syntax", "nested too deeply", None),
    ("c.yml", b"- a", "config_invalid", "does not hold an object", None),
    ("c.toml", b"a = \nb = 1", "config_syntax", "not TOML: Invalid value", 1),
    ("c.toml", b"[a]\nb = 1\nb = 2\n", "config_syntax", "not TOML: Cannot overwrite a value", 3),
    ("c.toml", b"a = nan", "config_invalid", "`a` is not a finite number", None),
    ("c.toml", b"a = 2020-01-01", "config_invalid", "`a` is a date", None),
    ("c.toml", b"a = " + b"[" * 20_000, "config_syntax", "nested too deeply", None),
    ("c.ini", b"", "config_format", "the suffix `.ini` tells no format", None),
    ("config", b"", "config_format", "has no suffix", None),
]


@pytest.mark.parametrize(("name", "content", "code", "text", "line"), CONTENTS, ids=range(len(CONTENTS)))
def test_bad_file_is_refused_with_code_and_line(
    tmp_path: Path, name: str, content: bytes, code: str, text: str, line: int | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = refused_file(path)
    assert error.code == code
    assert text in str(error.problems[0])
    assert error.problems[0].line == line
    assert str(error).startswith(f"{path}: ")


def test_alias_bomb_is_refused(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(rows))
    assert "aliases expand too far" in str(refused_file(path))


@pytest.mark.parametrize("name", ["c.json", "c.yaml", "c.toml"])
def test_syntax_error_does_not_quote_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(f'server: {{"api_key": "{SECRET}\n')
    assert SECRET not in str(refused_file(path))


def test_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "loop.json").symlink_to("loop.json")
    expected = {
        "absent.json": "config_not_found",
        "loop.json": "config_unreadable",
        ".": "config_unreadable",
        "x" * 300 + ".json": "config_unreadable",
        "nul\0.json": "config_unreadable",
    }
    for name, code in expected.items():
        error = refused_file(tmp_path / name)
        assert (error.code, bool(error.problems[0].remedy)) == (code, True)
    assert refused_file(Path("/dev/null")).code == "config_unreadable"


ENVIRONMENT: list[tuple[dict[str, str], str, str]] = [
    ({"LLAMAVISOR_SERVER__PRT": "1"}, "LLAMAVISOR_SERVER__PRT", "unknown key `server.prt`; did you mean `port`?"),
    ({"LLAMAVISOR_SERVR__PORT": "1"}, "LLAMAVISOR_SERVR__PORT", "did you mean `server`?"),
    ({"LLAMAVISOR_RELOAD_ON_CHNAGE": "1"}, "LLAMAVISOR_RELOAD_ON_CHNAGE", "did you mean `reload_on_change`?"),
    ({"LLAMAVISOR_SERVER__PORT": "many"}, "LLAMAVISOR_SERVER__PORT", "`server.port` must be a whole number, not text"),
    ({"LLAMAVISOR_SERVER__PORT": "70000"}, "LLAMAVISOR_SERVER__PORT", "must be at most 65535"),
    ({"LLAMAVISOR_SERVER__PORT__X": "1"}, "LLAMAVISOR_SERVER__PORT__X", "`server.port` has no keys below it"),
    ({"LLAMAVISOR_SERVER": "5"}, "LLAMAVISOR_SERVER", "must be an object"),
    ({"LLAMAVISOR_SERVER": "x"}, "LLAMAVISOR_SERVER", "`server` is no JSON that can be used"),
    (
        {"LLAMAVISOR_SERVER__ALLOWED_HOSTS": "a,b"},
        "LLAMAVISOR_SERVER__ALLOWED_HOSTS",
        'write it as ["first", "second"]',
    ),
    ({"LLAMAVISOR_SERVER": '{"port": 1, "port": 2}'}, "LLAMAVISOR_SERVER", "is given twice"),
    ({"LLAMAVISOR_SERVER": '{"prot": 1}'}, "LLAMAVISOR_SERVER", "unknown key `server.prot`; did you mean `port`?"),
    (
        {"LLAMAVISOR_SERVER__PORT": "1", "LLAMAVISOR_server__port": "2"},
        "LLAMAVISOR_server__port",
        "both set `server.port`",
    ),
    (
        {"LLAMAVISOR_INSTANCES__DEMO__ENGINE": "lama"},
        "LLAMAVISOR_INSTANCES__DEMO__ENGINE",
        "unknown engine kind `lama`",
    ),
    ({"LLAMAVISOR_INSTANCES__A B__MODEL": "demo"}, "LLAMAVISOR_INSTANCES__A B__MODEL", "is no name for an instance"),
    ({"LLAMAVISOR_SERVER__API_KEY": f"{SECRET} x"}, "LLAMAVISOR_SERVER__API_KEY", "cannot be sent in a header"),
]


@pytest.mark.parametrize(("environ", "variable", "text"), ENVIRONMENT, ids=[row[1] for row in ENVIRONMENT])
def test_bad_variable_is_refused_and_named(tmp_path: Path, environ: dict[str, str], variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, environ=environ, working_directory=tmp_path, user_folder=tmp_path)
    problem = next(problem for problem in caught.value.problems if text in str(problem))
    assert problem.origin == variable
    assert SECRET not in str(caught.value)


def test_nearest_name() -> None:
    known = ["ctx_size", "batch_size", "llama-server"]
    assert nearest("CTX-SIZE", known) == "ctx_size"
    assert nearest("llama_server", known) == "llama-server"
    assert nearest("zzz", known) is None
    assert nearest("x" * 1_000_000, known) is None


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "`a`, `b`"
    assert listed(str(number) for number in range(100)).endswith("`29`, …")
