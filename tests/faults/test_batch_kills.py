"""A batch outlives its supervisor: each line has one result, however often it was killed."""

from __future__ import annotations

import json
import signal
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.serve_process import GENEROUS_SECONDS, ServeProcess, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LINES = 60
KILLS = 1
ENDPOINT = "/v1/completions"


def call(server: ServeProcess, path: str, data: bytes | None = None, content_type: str = "application/json") -> Any:
    """Ask the server; with `data` by POST. JSON, or what is not JSON as bytes."""
    headers = {"Content-Type": content_type, "Authorization": "Bearer any"}
    request = urllib.request.Request(f"{server.wait_serving()}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=GENEROUS_SECONDS) as answer:
        body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body


def upload(server: ServeProcess, text: str) -> str:
    """Upload an input file; its id."""
    boundary = uuid.uuid4().hex
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{text}\r\n'
        f"--{boundary}--\r\n"
    )
    stored = call(server, "/v1/files", parts.encode(), f"multipart/form-data; boundary={boundary}")
    return str(stored["id"])


def line(number: int) -> str:
    """One request; each 20th is refused."""
    body = {"prompt": f"{number}", "max_tokens": 40, "ignore_eos": True, "temperature": 0 if number % 20 else 9}
    return json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}) + "\n"


def done(server: ServeProcess, batch_id: str) -> int:
    """How many lines have a result."""
    counts = call(server, f"/v1/batches/{batch_id}")["request_counts"]
    return int(counts["completed"] + counts["failed"])


def wait_done(server: ServeProcess, batch_id: str, least: int) -> int:
    """How many lines have a result, once so many have."""
    wait_until(lambda: done(server, batch_id) >= least, f"{least} results")
    return done(server, batch_id)


def test_each_line_has_one_result_after_three_kills(tmp_path: Path) -> None:
    server = ServeProcess(tmp_path)
    try:
        input_file_id = upload(server, "".join(line(number) for number in range(LINES)))
        order = {"input_file_id": input_file_id, "endpoint": ENDPOINT, "completion_window": "24h"}
        batch_id = call(server, "/v1/batches", json.dumps(order).encode())["id"]
        for kill in range(KILLS):
            least = (kill + 1) * LINES // (KILLS + 2)
            assert wait_done(server, batch_id, least) < LINES
            server.end(signal.SIGKILL)
            server.close()
            server = ServeProcess(tmp_path)
        wait_until(lambda: call(server, f"/v1/batches/{batch_id}")["status"] == "completed", "the end of the batch")
        batch = call(server, f"/v1/batches/{batch_id}")
        refused = LINES // 20
        assert batch["request_counts"] == {"total": LINES, "completed": LINES - refused, "failed": refused}
        files = (batch["output_file_id"], batch["error_file_id"])
        results = [call(server, f"/v1/files/{file_id}/content").splitlines() for file_id in files]
        named = [json.loads(raw)["custom_id"] for raw in [*results[0], *results[1]]]
        assert sorted(named) == sorted(f"line-{number}" for number in range(LINES))
        assert len(results[1]) == refused
        assert server.end() == 0
    finally:
        server.close()
