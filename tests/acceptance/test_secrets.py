"""Keys are shown nowhere: canaries are searched for in everything that a running server says and leaves."""

from __future__ import annotations

import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.serve_process import GENEROUS_SECONDS, ServeProcess, wait_until

pytestmark = pytest.mark.timeout(180)

SERVER_KEY = "canary-of-the-server-3141592"
ENGINE_KEY = "canary-of-the-engine-2718281"
CANARIES = (SERVER_KEY.encode(), ENGINE_KEY.encode())
# The second fails, so that its settings and last words are told too.
INSTANCES = {
    "demo": {"engine": "embedded", "model": "demo", "env": {"LLAMA_API_KEY": ENGINE_KEY}},
    "broken": {
        "engine": {"kind": "command", "argv": ["sh", "-c", "exit 3", "${PORT}"]},
        "env": {"SOME_TOKEN": ENGINE_KEY},
        "supervision": {"max_retries": 0},
    },
}
PATHS = ("/", "/admin/instances", "/admin/instances/broken", "/metrics", "/health", "/openapi.json", "/v1/models")


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server with a key, and an engine with another."""
    config = {"logging": {"level": "debug"}, "instances": INSTANCES}
    key = {"LLAMAVISOR_SERVER__API_KEY": SERVER_KEY}
    server = ServeProcess(tmp_path_factory.mktemp("serve"), config, environment=key)
    try:
        server.wait_serving()
        wait_until(lambda: state(server, "demo") == "ready" and state(server, "broken") == "error", "both to settle")
        yield server
    finally:
        server.close()


def ask(server: ServeProcess, path: str, body: bytes | None = None) -> bytes:
    """The answer to a request with the key; of a stream, its beginning."""
    headers = {"Authorization": f"Bearer {SERVER_KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(server.wait_serving() + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=GENEROUS_SECONDS) as answer:
        content: bytes = answer.read1(1_000_000) if path == "/events" else answer.read()
        return content


def state(server: ServeProcess, name: str) -> str:
    """The state of an instance."""
    return str(json.loads(ask(server, f"/admin/instances/{name}"))["status"])


def check(content: bytes, where: str) -> None:
    """No canary is in `content`."""
    assert content, where
    assert not [canary for canary in CANARIES if canary in content], where


@pytest.mark.parametrize("path", [*PATHS, "/events", "/admin/instances/demo/logs?tail=1000"])
def test_no_answer_shows_a_key(serve: ServeProcess, path: str) -> None:
    check(ask(serve, path), path)


def test_the_engine_demands_its_key_and_the_door_has_it(serve: ServeProcess) -> None:
    answer = ask(serve, "/v1/completions", json.dumps({"prompt": "Hello", "max_tokens": 2}).encode())
    assert json.loads(answer)["object"] == "text_completion"
    check(answer, "an answer of the engine")


def test_no_command_line_shows_a_key(serve: ServeProcess) -> None:
    family = serve.leftovers()
    assert family
    for pid in (serve.process.pid, *(found.identity.pid for found in family)):
        check(Path(f"/proc/{pid}/cmdline").read_bytes(), f"the command line of {pid}")


def test_engines_do_not_get_the_servers_key(serve: ServeProcess) -> None:
    for found in serve.leftovers():
        assert SERVER_KEY.encode() not in Path(f"/proc/{found.identity.pid}/environ").read_bytes()


def test_commands_that_show_settings_show_no_key(serve: ServeProcess) -> None:
    key = {"LLAMAVISOR_SERVER__API_KEY": SERVER_KEY, "LLAMAVISOR_API_KEY": SERVER_KEY}
    config = str(serve.config_path)
    for arguments in (["config", "show", "--config", config], ["doctor", "--config", config], ["status", "--json"]):
        done = serve.cli(*arguments, **key)
        check((done.stdout + done.stderr).encode(), arguments[0])


@pytest.mark.parametrize(
    "head",
    [
        "POST /v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer {key}\nContent-Length: 2\n\n{key}",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \x01{key}\r\nContent-Length: 2\r\n\r\n{key}",
        "POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{key}",
        "Authorization: Bearer {key}\r\n\r\n",
    ],
    ids=["bare LF", "a control character", "two lengths", "no request at all"],
)
def test_a_request_that_cannot_be_read_is_not_shown(serve: ServeProcess, head: str) -> None:
    address = urllib.parse.urlsplit(serve.wait_serving())
    with socket.create_connection((address.hostname, address.port), timeout=GENEROUS_SECONDS) as client:
        client.sendall(head.format(key=SERVER_KEY).encode())
        with client.makefile("rb") as answer:
            said = answer.read()
    assert b" 400 " in said.splitlines()[0]
    check(said, "the refusal")
    check(serve.said.encode(), "the log of the server")


def test_nothing_that_is_kept_holds_a_key(serve: ServeProcess) -> None:
    check(serve.said.encode(), "the log of the server")
    kept = [path for path in serve.data.rglob("*") if path.is_file()]
    assert len(kept) > 3
    for path in kept:
        assert not [canary for canary in CANARIES if canary in path.read_bytes()], path
