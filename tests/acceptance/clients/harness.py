"""What the scripts of this folder share: each makes its client do one thing after the other, and prints how every one went.

They run in the environment of the clients (`constraints/clients.txt`), where only the standard library and the clients are; `DOOR_URL`, `DOOR_KEY`
and `DOOR_BRACE` (the token that begins a tool call) come from the test. Names of checks are those of `tests/fixtures/stock_clients.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import traceback
import urllib.request
from collections.abc import Callable
from typing import Any

URL = os.environ["DOOR_URL"]
BASE_URL = f"{URL}/v1"
KEY = os.environ["DOOR_KEY"]
QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}
# The demo model was never shown a tool: the grammar holds it to the form, and this makes it begin. llama.cpp takes the named function of
# `tool_choice` for `auto`; `required` it honours.
CALL_A_TOOL: dict[str, Any] = {"logit_bias": {os.environ["DOOR_BRACE"]: 100}, "temperature": 0, "max_tokens": 1_000}
ONE_CALL: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "weather", "strict": True, "schema": SCHEMA},
}
SHORT_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02
# One loop for all that is asynchronous: some clients keep their connections from one call to the next.
RUNNER = asyncio.Runner()


def run(*checks: Callable[[], None]) -> None:
    """Run each check and print one JSON object: its name, and `ok` or the traceback."""
    told = {}
    with RUNNER:
        for check in checks:
            try:
                check()
                told[check.__name__] = "ok"
            except Exception:
                told[check.__name__] = traceback.format_exc()
    # The last line: clients may print what they like.
    os.write(1, b"\n" + json.dumps(told).encode() + b"\n")


def raises(kind: type[Exception], act: Callable[[], object]) -> Exception:
    """The exception that `act` ends with, which is of exactly that class or below it."""
    try:
        answer = act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r}")


def wait_until_idle(instance: str) -> None:
    """Wait until the door has no request on its way to an instance whose answers have no end: what was cancelled there has been let go."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while active(instance):
        assert time.monotonic() < deadline, f"{instance} is still at work"
        time.sleep(POLL_SECONDS)


def active(instance: str) -> int:
    """How many requests are on their way to an instance."""
    request = urllib.request.Request(f"{URL}/admin/instances/{instance}", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return int(json.load(answer)["requestsActive"])
