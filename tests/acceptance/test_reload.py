"""A changed configuration file takes effect in a real `llamavisor serve`: on change when asked, and the log's settings with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.serve_process import ServeProcess, wait_until

IDLE = {"engine": "embedded", "model": "demo", "autostart": False}


def write(server: ServeProcess, tree: dict[str, Any]) -> None:
    """Replace the configuration file as editors do."""
    beside = server.config_path.with_suffix(".new")
    beside.write_text(json.dumps(tree))
    beside.replace(server.config_path)


def names(server: ServeProcess) -> list[str]:
    """The instances that it knows."""
    with urllib.request.urlopen(server.wait_serving() + "/admin/instances", timeout=20) as answer:
        return [one["instance"] for one in json.load(answer)["instances"]]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], ServeProcess]]:
    """Starts a server on a configuration; it is ended after the test."""
    servers: list[ServeProcess] = []

    def start(tree: dict[str, Any]) -> ServeProcess:
        servers.append(ServeProcess(tmp_path, tree))
        servers[-1].wait_serving()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_changed_file_is_read_again_when_asked(served: Callable[[dict[str, Any]], ServeProcess]) -> None:
    server = served({"reload_on_change": True, "instances": {"one": IDLE}})

    def taken() -> bool:
        # Again and again: nobody tells when the watch on the file, which begins after the first address, is in place.
        write(server, {"reload_on_change": True, "instances": {"one": IDLE, "two": IDLE}})
        with contextlib.suppress(AssertionError):
            wait_until(lambda: names(server) == ["one", "two"], "the new instance", seconds=3)
        return names(server) == ["one", "two"]

    wait_until(taken, "the new instance")
    write(server, {"reload_on_change": True, "instances": {"one": {**IDLE, "modell": 1}}})
    wait_until(lambda: "instances.one.modell" in server.said, "the refusal in the log")
    assert names(server) == ["one", "two"]


def test_the_log_changes_its_format_at_a_reload(served: Callable[[dict[str, Any]], ServeProcess]) -> None:
    server = served({"instances": {"one": IDLE}})
    write(server, {"instances": {"one": IDLE}, "logging": {"format": "json"}})
    server.process.send_signal(signal.SIGHUP)

    def formatted() -> list[dict[str, Any]]:
        server.process.send_signal(signal.SIGHUP)
        return [json.loads(line) for line in server.said.splitlines() if line.startswith("{")]

    assert wait_until(formatted, "a line of JSON")[0]["level"] == "info"


def test_a_body_that_does_not_come_is_refused(served: Callable[[dict[str, Any]], ServeProcess]) -> None:
    server = served({"instances": {"one": IDLE}, "server": {"body_deadline_seconds": 0.3}})
    port = int(server.wait_serving().rpartition(":")[2])
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head.encode() + b'{"prompt"')
        answer = b""
        deadline = time.monotonic() + 30
        while b"request_timeout" not in answer and time.monotonic() < deadline:
            answer += client.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert os.path.isdir(f"/proc/{server.process.pid}")
