"""Schemathesis takes `/openapi.json` at its word: whatever it sends, only documented statuses, types and shapes come back, and never a 500."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.house import misbehaving
from tests.fixtures.serve_process import ServeProcess, clean_environment
from tests.fixtures.stock_clients import CLIENTS_FOLDER

PROGRAM = CLIENTS_FOLDER / "schemathesis"
KEY = "sk-of-the-house"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
DEADLINE_SECONDS = 150
ENGINE_IO = "speaks Engine.IO, which no schema describes; tests/integration/test_web_socketio.py does"
# Path → why it is not tried.
EXCLUDED = {
    "/admin/shutdown": "does what it says",
    "/events": "does not end",
    **{f"/{name}{slash}": ENGINE_IO for name in ("socket.io", "llamaproxws") for slash in ("", "/")},
}
# Of 5xx, those that an engine, or its absence, may bring about: each must be documented, which is a check of its own.
CONFIGURATION = """
request-timeout = 30.0
warnings = false

[generation]
deterministic = true
max-examples = 4

[checks]
enabled = false
not_a_server_error = { enabled = true, expected-statuses = ["2xx", "3xx", "4xx", 501, 502, 503, 504] }
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_headers_conformance.enabled = true
response_schema_conformance.enabled = true
unsupported_method.enabled = true
ignored_auth.enabled = true

[phases]
stateful.enabled = false
coverage.unexpected-methods = ["PUT"]

[dictionaries]
instances.values = ["idle"]
models.values = ["demo", "idle"]

[[operations]]
include-path-regex = "^/admin/instances/.name.(/[a-km-z]+)?$"
parameters = { "path.name" = { dictionary = "instances", probability = 0.5 } }

# A log that is followed does not end.
[[operations]]
include-path = "/admin/instances/{name}/logs"
parameters = { "path.name" = { dictionary = "instances", probability = 0.5 }, "query.follow" = "false" }

[[operations]]
include-path = "/v1/models/{id}"
parameters = { "path.id" = { dictionary = "models", probability = 0.5 } }

[[operations]]
include-path-regex = "^/v1/(chat/)?completions$"
parameters = { "body.model" = { dictionary = "models", probability = 0.8 } }
"""

pytestmark = [
    pytest.mark.timeout(2 * DEADLINE_SECONDS),
    pytest.mark.skipif(not PROGRAM.exists(), reason="Schemathesis is not installed (make test installs it)"),
]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[ServeProcess]:
    """A locked server with a model that answers and an instance that can be started and stopped."""
    stub = tmp_path / "stub.gguf"
    stub.write_bytes(b"GGUF")
    instances = {
        "demo": {"engine": {"kind": "embedded", "ctx_size": 256, "parallel": 2, "threads": 1}, "model": "demo"},
        "idle": misbehaving(stub, autostart=False),
    }
    server = ServeProcess(tmp_path, {"server": {"api_key": KEY}, "instances": instances})
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


def document(url: str) -> dict[str, Any]:
    """The live document."""
    request = urllib.request.Request(f"{url}/openapi.json", headers=AUTHORIZATION)
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_every_answer_is_as_documented(serve: ServeProcess) -> None:
    url = serve.wait_serving()
    paths = document(url)["paths"]
    assert EXCLUDED.keys() <= paths.keys()
    assert not [path for path, methods in paths.items() for it in methods.values() if "default" in it["responses"]]
    (serve.home / "schemathesis.toml").write_text(CONFIGURATION)
    excluded = [option for path in EXCLUDED for option in ("--exclude-path", path)]
    command = [
        str(PROGRAM),
        "--config-file",
        "schemathesis.toml",
        "run",
        f"{url}/openapi.json",
        "--no-color",
        *excluded,
    ]
    done = subprocess.run(
        [*command, "--header", f"Authorization: Bearer {KEY}"],
        cwd=serve.home,
        env=clean_environment(serve.home, PYTHONDONTWRITEBYTECODE="", NO_PROXY="127.0.0.1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # It leaves out the address of the document itself.
    tried = sum(len(methods) for path, methods in paths.items() if path not in {*EXCLUDED, "/openapi.json"})
    assert f"Tested: {tried}\n" in done.stdout, done.stdout
    # The document's examples are good ones: with them the demo model has answered, whole and in a stream.
    assert figure(serve, 'llamavisor_requests_total{instance="demo",outcome="ok"}') >= 3
    assert serve.process.poll() is None


def figure(serve: ServeProcess, name: str) -> float:
    """One figure of `/metrics`."""
    request = urllib.request.Request(f"{serve.wait_serving()}/metrics", headers=AUTHORIZATION)
    with urllib.request.urlopen(request) as answer:
        (line,) = [line for line in answer.read().decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])
