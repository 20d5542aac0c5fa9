"""The commands against a real `llamavisor serve` with the demo model."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.process.posix import Identity
from tests.fixtures.serve_process import (
    DEMO,
    GENEROUS_SECONDS,
    PROGRAM,
    ROOT,
    ServeProcess,
    clean_environment,
    run_cli,
    wait_until,
)
from tests.fixtures.terminal import Terminal

pytestmark = pytest.mark.timeout(180)
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server for the tests that leave it as it was."""
    server = ServeProcess(tmp_path_factory.mktemp("serve"))
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.fixture
def terminal(serve: ServeProcess, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A terminal in which the command of the test's parameter runs."""
    environment = clean_environment(serve.home, LLAMAVISOR_DATA_DIR=str(serve.data))
    terminal = Terminal([*PROGRAM, *request.param], folder=serve.home, environment=environment)
    yield terminal
    terminal.close()


def test_the_banner_says_where_and_what_next(serve: ServeProcess) -> None:
    assert f"Llamavisor is at {serve.wait_serving()}" in serve.said
    assert "llamavisor chat" in serve.said
    assert str(serve.config_path) in serve.said


def test_status(serve: ServeProcess) -> None:
    ready = serve.wait_ready()
    told = serve.cli("status")
    assert told.returncode == 0
    assert told.stdout.splitlines()[1].split()[:4] == ["demo", "ready", "demo", str(ready["pid"])]
    assert "\x1b" not in told.stdout


def test_stop_start_restart(serve: ServeProcess) -> None:
    first = serve.wait_ready()["pid"]
    assert serve.json("stop", "demo")["status"] == "initial"
    assert Identity.of(first) is None
    second = serve.json("start", "demo")
    assert (second["status"], second["retries"]) == ("ready", 0)
    third = serve.json("restart", "demo")
    assert third["status"] == "ready"
    assert len({first, second["pid"], third["pid"]}) == 3


def test_what_the_state_refuses_is_said(serve: ServeProcess) -> None:
    serve.wait_ready()
    done = serve.cli("start", "demo")
    assert done.returncode == 1
    assert "`ready`" in done.stderr


def test_no_wait_only_asks(serve: ServeProcess) -> None:
    serve.wait_ready()
    done = serve.cli("restart", "demo", "--no-wait")
    assert done.returncode == 0
    assert "was asked for" in done.stdout
    serve.wait_ready()


@pytest.mark.parametrize("command", ["start", "stop", "restart", "logs"])
def test_a_misspelt_instance_gets_a_suggestion(serve: ServeProcess, command: str) -> None:
    done = serve.cli(command, "dmeo")
    assert done.returncode == 1
    assert "Did you mean `demo`?" in done.stderr


def test_logs(serve: ServeProcess) -> None:
    serve.wait_ready()
    entries = [json.loads(line) for line in serve.cli("logs", "-n", "5", "--json").stdout.splitlines()]
    assert len(entries) == 5
    plain = serve.cli("logs", "demo", "-n", "5").stdout.splitlines()
    assert [line.endswith(entry["message"]) for line, entry in zip(plain, entries, strict=True)] == [True] * 5


def test_logs_followed(serve: ServeProcess) -> None:
    serve.wait_ready()
    follower = subprocess.Popen(
        [*PROGRAM, "logs", "-f", "-n", "0", "--json"],
        cwd=serve.home,
        env=clean_environment(serve.home, LLAMAVISOR_DATA_DIR=str(serve.data), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        # A restart before the stream is open would be missed: ask until a line has come.
        serve.json("restart", "demo")
        serve.json("restart", "demo")
        assert json.loads(follower.stdout.readline())["context"]["instance"] == "demo"
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=GENEROUS_SECONDS)
        assert follower.returncode == 0
    finally:
        follower.kill()
        follower.wait()


def test_models(serve: ServeProcess) -> None:
    serve.wait_ready()
    told = serve.json("models", "--config", str(serve.config_path))
    assert [(model["instance"], model["id"], model["metadata"]["architecture"]) for model in told["served"]] == [
        ("demo", "demo", "llama")
    ]
    table = serve.cli("models").stdout
    assert "demo (ready)" in table
    assert "Q8_0" in table


def test_chat_once(serve: ServeProcess) -> None:
    serve.wait_ready()
    done = serve.cli("chat", QUESTION)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "\x1b" not in done.stdout


def test_chat_with_what_is_piped_in(serve: ServeProcess) -> None:
    serve.wait_ready()
    done = serve.cli("chat", "--json", "--max-tokens", "4", text=QUESTION)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert (told["model"], told["cut"], told["finish_reason"]) == ("demo", None, "length")
    assert told["usage"]["completion_tokens"] == 4


def test_chat_with_nothing_to_ask(serve: ServeProcess) -> None:
    assert serve.cli("chat").returncode == 2


def test_chat_with_a_misspelt_model(serve: ServeProcess) -> None:
    done = serve.cli("chat", "--model", "dmeo", "Hi")
    assert done.returncode == 1
    assert "Did you mean `demo`?" in done.stderr


def test_a_killed_engine_is_seen(serve: ServeProcess) -> None:
    before = serve.wait_ready()
    os.kill(before["pid"], signal.SIGKILL)
    after = wait_until(lambda: (now := serve.instance())["pid"] not in (None, before["pid"]) and now, "another process")
    assert after
    assert after["lastCrash"] == "killed by signal 9"
    serve.wait_ready()


@pytest.mark.parametrize("terminal", [["status"]], indirect=True)
def test_the_live_table(serve: ServeProcess, terminal: Terminal) -> None:
    before = serve.wait_ready()
    terminal.wait_for(str(before["pid"]))
    os.kill(before["pid"], signal.SIGKILL)
    terminal.wait_for("killed by signal 9")
    after = serve.wait_ready()
    terminal.wait_for(str(after["pid"]))
    terminal.type("\x03")
    assert terminal.wait_end() == 0
    assert "\x1b[" in terminal.raw


@pytest.mark.parametrize("terminal", [["chat", "--temperature", "0"]], indirect=True)
def test_a_conversation(serve: ServeProcess, terminal: Terminal) -> None:
    serve.wait_ready()
    terminal.wait_for("/help lists the commands")
    terminal.wait_for("you> ")
    terminal.type("/model\n")
    terminal.wait_for("Models: demo")
    terminal.type(f"{QUESTION}\n")
    terminal.wait_for("tokens, ")
    terminal.wait_for("you> ")
    terminal.interrupt("Ctrl-D leaves.")
    terminal.type("/retry\n")
    terminal.wait_for("tokens, ")
    terminal.wait_for("you> ")
    terminal.type("\x04")
    assert terminal.wait_end() == 0
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("terminal", [["restart", "demo"]], indirect=True)
def test_waiting_on_a_terminal(serve: ServeProcess, terminal: Terminal) -> None:
    terminal.wait_for("demo is ready")
    assert terminal.wait_end() == 0


def test_reload(serve: ServeProcess) -> None:
    running = serve.wait_ready()
    second = {"model": "demo", "autostart": False}
    serve.config_path.write_text(json.dumps({"instances": {**DEMO["instances"], "second": second}}))
    report = serve.json("reload")
    assert (report["added"], report["unchanged"]) == (["second"], ["demo"])
    serve.config_path.write_text('{"instances": {"demo": {"modle": "demo"}}}')
    refused = serve.cli("reload")
    assert refused.returncode == 1
    assert "did you mean `model`?" in refused.stderr
    serve.config_path.write_text(json.dumps(DEMO))
    assert "removed: second" in serve.cli("reload").stdout
    assert serve.wait_ready()["pid"] == running["pid"]


def test_a_second_supervisor_on_the_data_folder_is_refused(serve: ServeProcess) -> None:
    done = serve.cli("serve", "--port", "0")
    assert done.returncode == 1
    assert f"Another supervisor (pid {serve.process.pid})" in done.stderr
    assert "Traceback" not in done.stderr
    assert serve.instance()["status"] == "ready"


def test_a_port_that_is_taken_names_its_holder(serve: ServeProcess, tmp_path: Path) -> None:
    port = serve.wait_serving().rpartition(":")[2]
    done = run_cli(tmp_path, "serve", "--port", port, LLAMAVISOR_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 1
    assert f"(pid {serve.process.pid})" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_beside_a_running_server(serve: ServeProcess) -> None:
    port = serve.wait_serving().rpartition(":")[2]
    done = serve.cli("doctor", "--json", LLAMAVISOR_SERVER__PORT=port)
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert f"pid {serve.process.pid}" in found["data folder"]["message"]
    assert "Llamavisor is at" in found["port"]["message"]
    assert found["embedded engine"]["level"] == "ok"


def test_bash_accepts_the_completion_script(serve: ServeProcess) -> None:
    script = serve.cli("completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    completed = f"{script}\ncomplete -p llamavisor"
    assert "_llamavisor_completion" in subprocess.run(["bash"], input=completed, text=True, capture_output=True).stdout


# -- Servers of their own


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServeProcess]:
    """A server that the test may end."""
    server = ServeProcess(tmp_path)
    yield server
    server.close()


def test_term_ends_it_cleanly(own: ServeProcess) -> None:
    engine = own.wait_ready()["pid"]
    assert own.end() == 0
    assert Identity.of(engine) is None
    assert own.leftovers() == []
    assert not (own.data / "server.json").exists()
    assert "Traceback" not in own.said


def test_shutdown_waits_for_the_end(own: ServeProcess) -> None:
    own.wait_ready()
    assert own.cli("shutdown").returncode == 0
    assert own.process.wait(GENEROUS_SECONDS) == 0
    gone = own.cli("status")
    assert gone.returncode == 3
    assert "llamavisor serve" in gone.stderr


def test_what_a_killed_supervisor_left_is_ended_by_shutdown_all(tmp_path: Path) -> None:
    survivor = {"instances": {"demo": {"model": "demo", "survive_supervisor": True}}}
    server = ServeProcess(tmp_path, survivor)
    try:
        engine = Identity.of(server.wait_ready()["pid"])
        server.end(signal.SIGKILL)
        assert engine is not None
        assert engine.is_alive()
        assert server.cli("shutdown").returncode == 3
        assert engine.is_alive()
        done = server.cli("shutdown", "--all")
        assert done.returncode == 0, done.stderr
        assert not engine.is_alive()
        assert server.leftovers() == []
    finally:
        server.close()


def test_shutdown_all_ends_survivors_too(tmp_path: Path) -> None:
    server = ServeProcess(tmp_path, {"instances": {"demo": {"model": "demo", "survive_supervisor": True}}})
    try:
        engine = Identity.of(server.wait_ready()["pid"])
        assert server.cli("shutdown", "--all").returncode == 0
        assert engine is not None
        assert not engine.is_alive()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("--host", "0.0.0.0"), {}, "server.api_key"),
        (
            ("--host", "192.0.2.1"),
            {"LLAMAVISOR_SERVER__API_KEY": "k", "LLAMAVISOR_SERVER__INSECURE": "1"},
            "no address of this machine",
        ),
        (("--config", "gone.json"), {}, "there is no such file"),
        (("--port", "70000"), {}, "command line: `server.port`"),
        (("--data-dir", "/proc/nowhere"), {}, "data folder /proc/nowhere cannot be used"),
        ((), {"LLAMAVISOR_SERVER__PROT": "1"}, "LLAMAVISOR_SERVER__PROT"),
    ],
)
def test_what_cannot_be_served_is_said_without_a_traceback(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    folder = {"LLAMAVISOR_DATA_DIR": str(tmp_path / "data")}
    done = run_cli(tmp_path, "serve", *arguments, **{**folder, "LLAMAVISOR_SERVER__PORT": "0", **environment})
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_is_sent_and_asked_for(tmp_path: Path) -> None:
    server = ServeProcess(tmp_path, {**DEMO, "server": {"api_key": "open-sesame"}, "logging": {"format": "json"}})
    try:
        url = server.wait_serving()
        locked = server.cli("status")
        assert locked.returncode == 1
        assert "LLAMAVISOR_API_KEY" in locked.stderr
        assert server.cli("status", LLAMAVISOR_API_KEY="open-sesame").returncode == 0
        assert "open-sesame" not in server.said
        # Logs for programs: the banner is a line among them.
        assert f"Llamavisor is at {url}" in [json.loads(line)["message"] for line in server.said.splitlines()]
    finally:
        server.close()


def test_something_else_at_the_address(tmp_path: Path) -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert stranger.stdout is not None
        port = stranger.stdout.readline().split(" port ")[1].split()[0]
        for command in (["status"], ["chat", "Hi"], ["logs", "x", "-f"], ["stop", "x"]):
            done = run_cli(tmp_path, *command, "--url", f"http://127.0.0.1:{port}")
            assert done.returncode == 3
            assert "is no Llamavisor" in done.stderr
    finally:
        stranger.kill()
        stranger.communicate()


# -- Answers that break off


FAULTS = ("kill", "error_event", "no_done", "reset")


def misbehaving(*flags: str) -> dict[str, object]:
    """An engine that misbehaves as the flags say."""
    program = str(ROOT / "tests" / "fixtures" / "misbehaving.py")
    argv = [sys.executable, program, "--host", "${HOST}", "--port", "${PORT}", *flags]
    return {"engine": {"kind": "command", "argv": argv}}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server with an engine for each way to break off."""
    instances = {fault: misbehaving("--stream-fault", fault) for fault in FAULTS}
    server = ServeProcess(tmp_path_factory.mktemp("faulty"), {"instances": instances})
    yield server
    server.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_is_cut_says_so(faulty: ServeProcess, fault: str) -> None:
    faulty.wait_ready(fault)
    done = faulty.cli("chat", "--model", fault, "Tell me a story")
    assert done.returncode == 1
    assert done.stdout.strip()
    assert "cut off here: " in done.stderr
    faulty.wait_ready(fault)
    told = json.loads(faulty.cli("chat", "--model", fault, "--json", "Tell me a story").stdout)
    assert told["cut"]
    assert told["content"]


def test_a_chat_says_what_it_waits_for(tmp_path: Path) -> None:
    """One place, held by a story without end; who comes next is told so."""
    slow = misbehaving("--token-interval-seconds", "0.2", "--token-count", "10000")
    with ExitStack() as closing:
        server = ServeProcess(tmp_path, {"instances": {"demo": {**slow, "max_in_flight": 1}}})
        closing.callback(server.close)
        server.wait_ready()
        environment = clean_environment(tmp_path, LLAMAVISOR_DATA_DIR=str(server.data))
        for words in ("token0", "number 1 in line"):
            chat = Terminal([*PROGRAM, "chat", "A story"], folder=tmp_path, environment=environment)
            closing.callback(chat.close)
            chat.wait_for(words)


def test_ctrl_c_stops_an_answer_and_a_second_term_ends_everything(tmp_path: Path) -> None:
    slow = misbehaving("--token-interval-seconds", "0.2", "--token-count", "10000")
    server = ServeProcess(tmp_path, {"instances": {"demo": slow}})
    environment = clean_environment(tmp_path, LLAMAVISOR_DATA_DIR=str(server.data))
    try:
        server.wait_ready()
        terminal = Terminal([*PROGRAM, "chat"], folder=tmp_path, environment=environment)
        terminal.wait_for("you> ")
        terminal.type("A long story\n")
        wait_until(lambda: server.instance()["requestsActive"], "the request at the engine")
        terminal.type("\x03")
        terminal.wait_for("Stopped.")
        wait_until(lambda: not server.instance()["requestsActive"], "the request given up")
        terminal.type("Another\n")
        wait_until(lambda: server.instance()["requestsActive"], "the request at the engine")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in server.said, "the shutdown to begin")
        assert server.process.poll() is None
        assert server.end() == 130
        terminal.wait_for("shut down before the answer was complete")
        terminal.type("\x04")
        assert terminal.wait_end() == 0
        terminal.close()
    finally:
        server.close()
