"""Fault rows 10, 23, 61 with the whole program: how `llamavisor serve` ends, and what it leaves behind: nothing."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import posix
from tests.fixtures.house import misbehaving
from tests.fixtures.serve_process import ServeProcess, wait_until

pytestmark = pytest.mark.faults

QUESTION = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
DEADLINE_SECONDS = 45.0


class Servers:
    """Servers with one misbehaving instance each, on the data folder of one home; all ended after the test, whatever it did."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._servers: list[ServeProcess] = []

    def __call__(self, *, survive: bool = False, grace: float = 30, **knobs: Any) -> ServeProcess:
        """One more, ready."""
        model = self._home / "model.gguf"
        model.write_bytes(b"GGUF")
        instance = misbehaving(model, knobs=knobs, survive_supervisor=survive)
        server = ServeProcess(self._home, {"instances": {"one": instance}, "server": {"shutdown_grace_seconds": grace}})
        self._servers.append(server)
        server.wait_ready("one")
        return server

    def close(self) -> None:
        """End them."""
        for server in self._servers:
            server.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Servers]:
    """Makes servers."""
    servers = Servers(tmp_path)
    yield servers
    servers.close()


class Stream(threading.Thread):
    """A client that reads a streamed answer to its end, whatever that is."""

    def __init__(self, server: ServeProcess) -> None:
        super().__init__()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            server.wait_serving() + "/v1/chat/completions", json.dumps(QUESTION).encode(), headers
        )
        self._answer = urllib.request.urlopen(request, timeout=DEADLINE_SECONDS)
        self.lines: list[bytes] = []
        self.first = threading.Event()

    def run(self) -> None:
        """Read on."""
        try:
            with self._answer:
                for line in self._answer:
                    self.lines.append(line.strip())
                    self.first.set()
        except (OSError, http.client.HTTPException):
            self.lines.append(b"(connection lost)")

    @property
    def is_whole(self) -> bool:
        """Whether it came to its proper end."""
        return b"data: [DONE]" in self.lines


def test_row_61_streams_finish_new_work_is_refused_and_the_exit_code_is_zero(serve: Servers) -> None:
    server = serve(token_interval_seconds=0.2, token_count=15)
    stream = Stream(server)
    stream.start()
    assert stream.first.wait(DEADLINE_SECONDS)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Shutting down" in server.said, "the signal to be taken")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        Stream(server)
    assert refusal.value.code == 503
    refusal.value.close()
    stream.join(DEADLINE_SECONDS)
    assert stream.is_whole
    assert server.process.wait(DEADLINE_SECONDS) == 0
    assert not server.leftovers()


def test_row_61_a_second_term_forces(serve: Servers) -> None:
    server = serve(token_interval_seconds=5, token_count=100, ignore_term=True)
    stream = Stream(server)
    stream.start()
    assert stream.first.wait(DEADLINE_SECONDS)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Shutting down" in server.said, "the first signal to be taken")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE_SECONDS) == 130
    stream.join(DEADLINE_SECONDS)
    assert not stream.is_whole
    assert not server.leftovers()


def test_row_61_a_stream_longer_than_the_grace_is_cut_and_says_so(serve: Servers) -> None:
    server = serve(grace=0.5, token_interval_seconds=0.2, token_count=1_000)
    stream = Stream(server)
    stream.start()
    assert stream.first.wait(DEADLINE_SECONDS)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE_SECONDS) == 0
    stream.join(DEADLINE_SECONDS)
    assert not stream.is_whole
    assert any(b'"error"' in line for line in stream.lines)
    assert not server.leftovers()


def test_row_23_the_child_dies_with_a_killed_supervisor(serve: Servers) -> None:
    server = serve(ignore_term=True)
    assert len(server.leftovers()) == 1
    server.process.kill()
    server.process.wait(DEADLINE_SECONDS)
    wait_until(lambda: not server.leftovers(), "the child to be gone")


def test_row_23_a_survivor_outlives_a_killed_supervisor_and_is_taken_back(serve: Servers) -> None:
    server = serve(survive=True)
    (before,) = server.leftovers()
    server.process.kill()
    server.process.wait(DEADLINE_SECONDS)
    again = serve(survive=True)
    assert [found.identity for found in again.leftovers()] == [before.identity]


def test_row_10_a_daemon_that_shed_its_environment_does_not_outlive_us(serve: Servers) -> None:
    server = serve(daemon=True, daemon_clean_environment=True)
    known = {found.identity.pid for found in server.leftovers()}
    fled = [one for one in posix.descendants(server.process.pid) if one.pid not in known]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE_SECONDS) == 0
    assert fled
    wait_until(lambda: not any(one.is_alive() for one in fled), "the daemon to be gone")
