"""The tables of `docs/reference/errors.md`: each bad input is tried, and gets what its row says."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import shlex
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import socketio

from supervisor.cli.app import run
from supervisor.engines.embedded import SERVER_FILE
from supervisor.models.demo import DEMO_MODEL_PATH
from tests.fixtures.doc_tables import Row, says, table
from tests.fixtures.serve_process import GENEROUS_SECONDS, ServeProcess, run_cli, wait_until

pytestmark = pytest.mark.timeout(180)

PAGE = "reference/errors.md"
KEY = "the-key-of-this-test"
MIB = 1024**2
NEVER_AGAIN = {"max_retries": 0, "stop_grace_seconds": 1}
INSTANCES: dict[str, Any] = {
    "demo": {"engine": "embedded", "model": "demo"},
    "idle": {"engine": "embedded", "model": "demo", "autostart": False, "on_demand": False},
    "broken": {
        "engine": {"kind": "command", "argv": ["sh", "-c", "exit 3", "${PORT}"]},
        "supervision": NEVER_AGAIN,
    },
    "plain": {"engine": {"kind": "command", "argv": ["sleep", "60", "${PORT}"], "openai": False}, "autostart": False},
}
CONFIGURATION = {"server": {"max_body_bytes": MIB}, "instances": INSTANCES}


def rows(name: str) -> pytest.MarkDecorator:
    """One test for each row of a table."""
    return pytest.mark.parametrize("row", table(PAGE, name), ids=str)


@dataclass(frozen=True, slots=True)
class Place:
    """What the placeholders of the tables stand for."""

    words: dict[str, str]

    def fill(self, text: str) -> str:
        """`text` with its placeholders filled in."""
        for name, value in self.words.items():
            text = text.replace("{" + name + "}", value)
        return text


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """The server of the tables: `demo` is ready, `broken` has been given up."""
    server = ServeProcess(tmp_path_factory.mktemp("serve"), CONFIGURATION)
    try:
        server.wait_ready("demo")
        wait_until(lambda: server.instance("broken")["status"] == "error", "the broken instance to be given up")
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server that asks for a key."""
    idle = {"instances": {"idle": INSTANCES["idle"]}}
    key = {"LLAMAVISOR_SERVER__API_KEY": KEY}
    server = ServeProcess(tmp_path_factory.mktemp("locked"), idle, environment=key)
    try:
        server.wait_serving()
        yield server
    finally:
        server.close()


# Configuration and environment


@rows("configuration")
def test_configuration(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / row.code("file")
    write_configuration(path, row.code("content"))
    # In this process: an interpreter for each of these many rows would take a minute.
    status = run(["config", "check", str(path), "--json"])
    told = json.loads(capsys.readouterr().out)
    text = " ".join(f"line {each['line']}: {each['message']}; {each['remedy']}" for each in told["problems"])
    assert (status, told["code"]) == (1, row.code("code")), told
    assert says(row.cells["says"], text), text


def write_configuration(path: Path, content: str) -> None:
    """A configuration file as its row describes it."""
    if content == "a folder":
        path.mkdir()
    elif content == "2 MiB":
        path.write_bytes(b" " * (2 * MIB))
    elif content == "Latin-1":
        path.write_bytes('{"é": 1}'.encode("latin-1"))
    elif content != "missing":
        path.write_text(content, encoding="utf-8")


@rows("environment")
def test_environment(row: Row, tmp_path: Path) -> None:
    name, _, value = row.code("variable").partition("=")
    done = run_cli(tmp_path, "config", "check", **{name: value})
    assert done.returncode == int(row.cells["exit code"]), done.stderr
    assert says(row.cells["says"], done.stderr), done.stderr


# Command line


@rows("command-line")
def test_command_line(
    row: Row, serve: ServeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.json").write_text('{"unheard_of": 1}')
    url = serve.wait_serving()
    place = Place(
        {
            "server": url,
            "busy": str(serve.data),
            "taken": str(urlsplit(url).port),
            "file": str(tmp_path / "file.json"),
            "empty": str(tmp_path / "empty"),
        }
    )
    program, *arguments = shlex.split(place.fill(row.code("command")))
    assert program == "llamavisor"
    if arguments[0] == "serve":
        done = run_cli(tmp_path, *arguments)
        status, said = done.returncode, done.stderr
    else:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        status, said = run(arguments), capsys.readouterr().err
    assert status == int(row.cells["exit code"]), said
    assert says(row.cells["says"], said), said


# HTTP


@rows("http")
def test_http(row: Row, serve: ServeProcess) -> None:
    check_answer(row, serve.wait_serving())


@rows("http-with-key")
def test_http_with_key(row: Row, locked: ServeProcess) -> None:
    check_answer(row, locked.wait_serving())


def check_answer(row: Row, url: str) -> None:
    """Send the request of a row, and hold the answer against it."""
    method, path = row.code("request").split(" ")
    body, headers = body_of(row.code("body")), headers_of(row.code("headers"))
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    status, said = request(url, method, path, headers, body)
    assert status == int(row.cells["status"]), said
    if row.code("code"):
        error = json.loads(said)["error"]
        assert error["code"] == row.code("code"), said
        assert says(row.cells["says"], error["message"]), said
        assert set(error) <= {"message", "type", "param", "code", "details"}


def request(url: str, method: str, path: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
    """Exactly this request: no header is added but `Host` and the length, no redirect is followed."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=GENEROUS_SECONDS)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None or method == "POST":
            connection.putheader("Content-Length", str(len(body or b"")))
        connection.endheaders()
        send_what_is_taken(connection, body or b"")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def send_what_is_taken(connection: http.client.HTTPConnection, body: bytes) -> None:
    """Send a body; a server that refuses it early may close before it is through."""
    try:
        connection.send(body)
    except (BrokenPipeError, ConnectionResetError):
        return


def headers_of(text: str) -> dict[str, str]:
    """The header of a cell, if it holds one."""
    name, _, value = text.partition(": ")
    return {name: value} if name else {}


def body_of(text: str) -> bytes | None:
    """The body that a cell describes; None when the cell is empty."""
    made = {
        "": None,
        "nothing": b"",
        "2 MiB": b"{" + b" " * (2 * MIB),
        "Latin-1": '{"messages": "é"}'.encode("latin-1"),
        "100000 levels": b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    }
    return made.get(text, text.encode())


# Socket.IO


@rows("socketio")
def test_socketio(row: Row, serve: ServeProcess) -> None:
    told = asyncio.run(ask(serve.wait_serving(), row.code("event"), json.loads(row.code("payload"))))
    assert told["success"] is False
    assert told["code"] == row.code("code")
    assert says(row.cells["says"], told["error"]), told


async def ask(url: str, event: str, payload: Any) -> Any:
    """The acknowledgement of one event."""
    client = socketio.AsyncClient(reconnection=False)
    await client.connect(url, transports=["websocket"])
    try:
        return await client.call(event, payload, timeout=GENEROUS_SECONDS)
    finally:
        await client.disconnect()


# Instances


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server with an instance for each row, all of which fail."""
    folder = tmp_path_factory.mktemp("ill")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        place = Place({**files(folder), "taken": str(holder.getsockname()[1])})
        instances = {str(row): settings_of(row, place) for row in table(PAGE, "instances")}
        server = ServeProcess(folder, {"instances": instances})
        try:
            server.wait_serving()
            yield server
        finally:
            server.close()


def files(folder: Path) -> dict[str, str]:
    """Files that no engine can use, and a llama-server."""
    whole = DEMO_MODEL_PATH.read_bytes()
    (folder / "text.gguf").write_text("This is no model.\n" * 100)
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "script").write_text("#!/bin/sh\n")
    engine = folder / "llama-server"
    engine.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{SERVER_FILE}" "$@"\n')
    engine.chmod(0o700)
    names = {"text": "text.gguf", "cut": "cut.gguf", "script": "script", "llama-server": "llama-server"}
    return {name: str(folder / file) for name, file in names.items()}


def settings_of(row: Row, place: Place) -> dict[str, Any]:
    """The settings of a row, with no retries, so that it ends soon."""
    settings: dict[str, Any] = json.loads(place.fill(row.code("settings")))
    return {**settings, "supervision": {**NEVER_AGAIN, **settings.get("supervision", {})}}


@rows("instances")
def test_instances(row: Row, ill: ServeProcess) -> None:
    wait_until(lambda: ill.instance(str(row))["status"] == "error", f"{row} to be given up")
    told = ill.instance(str(row))
    assert told["reason"] == row.code("reason"), told
    assert says(row.cells["says"], f"{told['lastError']} {told['remedy']}"), told
    assert told["explanation"].startswith(str(row))
