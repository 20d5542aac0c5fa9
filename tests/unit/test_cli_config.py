"""`llamavisor config` and `doctor`, in this process."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli import main
from supervisor.cli.findings import Finding
from supervisor.cli.machine_checks import run_briefly
from supervisor.cli.setup_checks import data_folder_findings, instance_findings, port_finding
from supervisor.config import ServerSettings, validate_tree
from supervisor.data_folder import DataFolder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and nothing of ours in the environment."""
    for name in [name for name in os.environ if name.startswith("LLAMAVISOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LLAMAVISOR_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def write(folder: Path, tree: object, name: str = "config.json") -> Path:
    path = folder / name
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree, indent=1))
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_check_of_a_good_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, {"instances": {"chat": {"model": "demo"}}})
    assert main(["config", "check"]) == 0
    assert f"{path}: ok. Instances: chat." in capsys.readouterr().out


def test_check_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check"]) == 0
    assert "defaults: ok. Instances: demo." in capsys.readouterr().out


BAD = '{\n "server": {"prot": 1},\n "defaults": {"max_retries": -1}\n}'


def test_check_tells_every_problem_with_line_and_remedy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, BAD, "bad.json")
    assert main(["config", "check", str(path)]) == 1
    said = capsys.readouterr().err
    assert "line 2: unknown key `server.prot`; did you mean `port`?" in said
    assert "line 3: `defaults.max_retries`" in said


def test_check_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, BAD, "bad.json")
    assert main(["config", "check", str(path), "--json"]) == 1
    told = printed(capsys)
    assert (told["ok"], told["file"], told["code"]) == (False, str(path), "config_invalid")
    assert [(problem["key"], problem["line"]) for problem in told["problems"]] == [
        ("server.prot", 2),
        ("defaults.max_retries", 3),
    ]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("gone.json", None, "config_not_found"),
        ("a.json", "{", "config_syntax"),
        ("a.yaml", "a: [", "config_syntax"),
        ("a.toml", "x", "config_syntax"),
        ("a.ini", "x", "config_format"),
        ("a.json", '{"a": 1, "a": 2}', "config_invalid"),
        ("a.json", '{"server": {"host": "0.0.0.0"}}', "exposed_bind"),
    ],
)
def test_check_of_bad_files(
    folder: Path, name: str, content: str | None, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        write(folder, content, name)
    assert main(["config", "check", name, "--json"]) == 1
    told = printed(capsys)
    assert told["code"] == code
    assert all(problem["remedy"] for problem in told["problems"])


def test_check_takes_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "a.json", "--config", "b.json"]) == 2


def test_show_masks_secrets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, {"server": {"api_key": "open-sesame"}})
    for arguments in (["config", "show"], ["config", "show", "--json"], ["config", "show", "--set", "--json"]):
        assert main(arguments) == 0
        assert "open-sesame" not in capsys.readouterr().out


def test_show_tells_what_set_each_value(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, '{\n "server": {"port": 4000},\n "instances": {"chat": {"engine": "embedded", "model": "demo"}}\n}')
    monkeypatch.setenv("LLAMAVISOR_SERVER__HOST", "localhost")
    assert main(["config", "show", "--set", "--json"]) == 0
    origins = {row["key"]: row["origin"] for row in printed(capsys)}
    assert origins == {
        "server.host": "LLAMAVISOR_SERVER__HOST",
        "server.port": "file, line 2",
        "instances.chat.engine.kind": "file, line 3",
        "instances.chat.model": "file, line 3",
    }
    assert main(["config", "show"]) == 0
    assert "server.max_body_bytes = 33554432  # default" in capsys.readouterr().out


def test_shown_settings_are_a_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, {"instances": {"chat": {"model": "demo"}}})
    assert main(["config", "show", "--json"]) == 0
    validate_tree(printed(capsys))


def test_schema_is_the_published_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    published = Path(__file__).resolve().parents[2] / "docs" / "reference" / "config.schema.json"
    assert capsys.readouterr().out == published.read_text(encoding="utf-8")


def test_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "path"]) == 1
    assert "no configuration file" in capsys.readouterr().err
    path = write(folder, {})
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{path}\n"


LEGACY = {"llama_model_path": "/models/a.gguf", "llama_server_port": 8080, "ctx_size": 4096}


def test_import_prints_a_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, LEGACY, "old.json")
    assert main(["config", "import", "old.json"]) == 0
    captured = capsys.readouterr()
    assert validate_tree(json.loads(captured.out)).instances["main"].port == 8080
    assert "warning: `llama_server_path` is not given" in captured.err


def test_import_writes_a_file_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, LEGACY, "old.json")
    assert main(["config", "import", "old.json", "-o", "new.json"]) == 0
    written = (folder / "new.json").read_text()
    assert main(["config", "check", "new.json"]) == 0
    (folder / "new.json").write_text("precious")
    assert main(["config", "import", "old.json", "-o", "new.json"]) == 1
    assert (folder / "new.json").read_text() == "precious"
    assert "--force" in capsys.readouterr().err
    assert main(["config", "import", "old.json", "-o", "new.json", "--force"]) == 0
    assert (folder / "new.json").read_text() == written
    assert sorted(path.name for path in folder.iterdir()) == ["new.json", "old.json"]


@pytest.mark.parametrize(
    ("tree", "output", "code", "words"),
    [
        ({"ctx_sise": 1}, "new.json", 1, "did you mean `ctx_size`?"),
        (LEGACY, "new.toml", 2, "writes JSON"),
        (LEGACY, "no/such/folder/new.json", 1, "cannot be written"),
    ],
)
def test_import_refuses(
    folder: Path, tree: dict[str, object], output: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, tree, "old.json")
    assert main(["config", "import", "old.json", "-o", output]) == code
    assert words in capsys.readouterr().err


# -- doctor


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


def test_doctor_finds_what_cannot_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instances = {
        "lost": {"model": "/no/such/model.gguf"},
        "missing": {"engine": {"kind": "llama-server", "binary": "no-such-llama-server"}, "model": "demo"},
        "fine": {"engine": {"kind": "command", "argv": ["sh", "-c", "exit"]}},
        "away": {"url": "http://127.0.0.1:9/"},
    }
    write(folder, {"instances": instances, "server": {"port": 0}})
    assert main(["doctor", "--json"]) == 1
    findings = printed(capsys)["findings"]
    failed = {finding["subject"]: finding for finding in findings if finding["level"] == "fail"}
    assert set(failed) == {"lost", "missing"}
    assert "/no/such/model.gguf does not exist" in failed["lost"]["message"]
    assert "instances.missing.engine.binary" in failed["missing"]["remedy"]
    assert not (folder / "data").exists()


def test_doctor_of_a_bad_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, BAD)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "unknown key `server.prot`" in said
    assert "did you mean `port`?" in said


def test_a_program_that_may_not_be_executed(folder: Path) -> None:
    program = folder / "llama-server"
    program.write_text("#!/bin/sh\n")
    engine = {"kind": "llama-server", "binary": str(program)}
    findings = list(instance_findings(validate_tree({"instances": {"chat": {"engine": engine, "model": "demo"}}})))
    assert findings[0].level == "fail"
    assert findings[0].remedy == f"Make it executable: chmod +x {program}"


def test_a_damaged_model(folder: Path) -> None:
    (folder / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    findings = list(instance_findings(validate_tree({"instances": {"chat": {"model": str(folder / "bad.gguf")}}})))
    assert levels(findings)["chat"] == "fail"


def test_the_port_and_who_holds_it(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = port_finding(ServerSettings(port=port), folder)
        (folder / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{port}", "pid": os.getpid()}))
        own = port_finding(ServerSettings(port=port), folder)
    free = port_finding(ServerSettings(port=port), folder)
    assert (taken.level, own.level, free.level) == ("fail", "ok", "ok")
    assert f"(pid {os.getpid()})" in taken.message
    assert "Llamavisor is at" in own.message


def test_the_data_folder_and_who_uses_it(folder: Path) -> None:
    path = folder / "data"
    assert "will be created" in next(data_folder_findings(path)).message
    data = DataFolder(path)
    data.open()
    assert f"in use by the supervisor with pid {os.getpid()}" in next(data_folder_findings(path)).message
    data.close()
    assert next(data_folder_findings(path)).message.endswith("free")
    (folder / "file").write_text("")
    assert next(data_folder_findings(folder / "file")).level == "fail"


def test_programs_that_fail_are_told_apart() -> None:
    assert run_briefly(["/no/such/program"])[0] == 1
    assert run_briefly(["sh", "-c", "kill -11 $$"])[0] == -11
