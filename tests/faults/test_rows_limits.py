"""Fault row 31, the web server's part: no file descriptor is left for another connection."""

from __future__ import annotations

import os
import resource
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from supervisor.process.posix import Identity
from tests.fixtures.serve_process import GENEROUS_SECONDS, ServeProcess, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SPARE_DESCRIPTORS = 6
CONNECTIONS = 60
LOG_LINES_MAX = 3


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[ServeProcess]:
    """A server in a process of its own, whose limits may be lowered."""
    server = ServeProcess(tmp_path)
    server.wait_ready()
    yield server
    server.close()


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def ask(address: tuple[str, int]) -> tuple[socket.socket, bytes]:
    """Open a connection, ask for `/livez` and keep it open; the first line of the answer."""
    connection = socket.create_connection(address, GENEROUS_SECONDS)
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection, connection.recv(4_096).split(b"\r\n")[0]


def test_row_31_who_cannot_be_served_is_told_and_the_server_recovers(serve: ServeProcess) -> None:
    parts = urlsplit(serve.wait_serving())
    assert parts.hostname is not None
    assert parts.port is not None
    address, pid = (parts.hostname, parts.port), serve.process.pid
    engine = Identity.of(serve.instance()["pid"])
    assert engine is not None
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + SPARE_DESCRIPTORS, hard))
    answers = [ask(address) for _ in range(CONNECTIONS)]
    lines = [line for _, line in answers]
    assert lines.count(b"HTTP/1.1 200 OK") >= 1
    assert lines.count(b"HTTP/1.1 503 Service Unavailable") >= CONNECTIONS - SPARE_DESCRIPTORS - 2
    assert set(lines) == {b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"}
    assert serve.said.count("descriptors") <= LOG_LINES_MAX
    assert "Traceback" not in serve.said
    for connection, _ in answers:
        connection.close()

    def answers_again() -> bool:
        try:
            with urllib.request.urlopen(f"{serve.wait_serving()}/readyz", timeout=GENEROUS_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_until(answers_again, "an answer once there are descriptors again")
    assert engine.is_alive(), "the engine was sacrificed"
