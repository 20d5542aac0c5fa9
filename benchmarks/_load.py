"""Puts a load on an address with the load generator in C (`_load.c`), and reads what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._compiler import build_load

WARM_UP_SECONDS = 0.3
PATIENCE_SECONDS = 90.0
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of many moments; zero when there was none."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the load generator saw: see `_load.c`."""

    seconds: float
    requests: int
    all_requests: int
    events: int
    all_events: int
    refused: int
    stale: int
    torn: int
    stuck: int
    total_ms: Times
    first_ms: Times
    gap_ms: Times
    delay_ms: Times
    refusal: str = ""

    @property
    def failures(self) -> int:
        """Requests without a whole answer."""
        return self.refused + self.stale + self.torn + self.stuck


def request_bytes(body: Mapping[str, Any], key: str | None = None, path: str = CHAT) -> bytes:
    """One request, with the key where one is needed."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Accept: */*"]
    lines += [f"Authorization: Bearer {key}"] if key is not None else []
    lines += [f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


class LoadGenerator:
    """The compiled program, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = build_load(folder)

    def put(self, address: str, request: bytes, clients: int, seconds: float) -> Told:
        """Put that load on, for that long. Ends the program when no request at all was answered."""
        # The request holds the key, which has no business on a command line.
        file = self._folder / "request"
        file.touch(mode=0o600)
        file.write_bytes(request)
        done = subprocess.run(
            [self._program, address, str(clients), str(seconds), str(WARM_UP_SECONDS), file],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + PATIENCE_SECONDS,
        )
        if done.returncode:
            sys.exit(f"the load on {address} failed: {done.stderr}")
        told = read(json.loads(done.stdout), done.stderr.strip())
        if not told.all_requests:
            sys.exit(f"{address} answered nothing to {clients} clients ({told.failures} failures): {told.refusal}")
        return told


def read(line: Mapping[str, Any], refusal: str) -> Told:
    """The line that the program printed."""
    values: dict[str, Any] = {
        name: Times(**value) if isinstance(value, dict) else value for name, value in line.items()
    }
    return Told(**values, refusal=refusal)
