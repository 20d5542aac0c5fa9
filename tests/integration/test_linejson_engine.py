"""The engine `linejson` with a real pair: a tokenizer process and a model process that speak its protocol, built on the demo model."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.gateway.calls import CHAT, COMPLETIONS
from supervisor.models.demo import DEMO_MODEL_PATH
from supervisor.process import posix
from supervisor.process.states import Reason, State
from tests.fixtures.door import Door, events
from tests.fixtures.nursery import until

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
SAID = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 12}


def pair(**engine: Any) -> dict[str, Any]:
    """Settings of an instance."""
    command = [sys.executable, "-m"]
    return {
        "engine": {
            "kind": "linejson",
            "tokenizer_argv": [*command, "tests.fixtures.linejson_tokenizer", "${PORT}", "${MODEL}"],
            "model_argv": [*command, "tests.fixtures.linejson_model", "${SOCKET}", "${MODEL}"],
            "working_directory": str(ROOT),
            **engine,
        },
        "model": str(DEMO_MODEL_PATH),
        "supervision": {"retry_base_seconds": 0.05, "retry_jitter": 0},
    }


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """With one pair, `lines`, that is ready."""
    door = Door(tmp_path)
    await door.open({"lines": pair()}, gateway={"queue_seconds": 30.0})
    yield door
    await door.close()


async def health(door: Door) -> Any:
    """The details of `GET /health`."""
    async with door.session.get(f"{door.url}/health") as response:
        return (await response.json())["details"]


async def test_a_chat_whole_and_streamed(door: Door) -> None:
    status, whole, _ = await door.ask({**SAID, "model": "lines"})
    assert status == 200, whole
    text = whole["choices"][0]["message"]["content"]
    assert "Paris" in text
    usage = whole["usage"]
    _, told, _ = await door.ask({"text": text}, "/v1/tokenize")
    assert usage["completion_tokens"] >= told["length"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    asked = {**SAID, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = events(await door.stream(asked))
    assert done == "[DONE]"
    assert last["usage"] == usage
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    for path, body in ((CHAT, SAID), (COMPLETIONS, {"prompt": "Once"})):
        status, refusal, _ = await door.ask({**body, "stop": ["."]}, path)
        assert (status, refusal["error"]["param"]) == (400, "stop")


async def test_its_tokenizer_and_its_template(door: Door) -> None:
    _, told, _ = await door.ask({"text": "The capital"}, "/v1/tokenize")
    _, back, _ = await door.ask({"tokens": told["tokens"]}, "/v1/detokenize")
    assert back["text"].strip() == "The capital"
    _, told, _ = await door.ask({"messages": SAID["messages"]}, "/v1/chat_template")
    assert told["prompt"].startswith("<|im_start|>user\n")
    status, refusal, _ = await door.ask({"messages": [{"role": "wizard", "content": "x"}]})
    assert status == 400
    assert "role" in refusal["error"]["message"]


async def test_both_processes_are_told_of_and_started_again(door: Door) -> None:
    before = await health(door)
    pids = {name: before[name]["pid"] for name in ("tokenizer", "model")}
    assert len({*pids.values(), door.house["lines"].snapshot().pid}) == 3
    for name, pid in pids.items():
        generation = door.house["lines"].generation
        os.kill((await health(door))[name]["pid"], signal.SIGKILL)
        await until(lambda before=generation: door.house["lines"].generation > before, f"a new pair after {name}")  # type: ignore[misc]
        snapshot = await door.house.reach("lines", State.READY)
        assert snapshot.last_crash is not None
        assert snapshot.last_crash.message == f"exited with code 137: the {name} process was killed by signal 9"
        assert snapshot.last_crash.reason is Reason.SIGNAL
        assert (await health(door))[name]["pid"] != pid
    assert (await door.ask(SAID))[0] == 200


@pytest.mark.parametrize(
    ("word", "message"), [("GARBAGE", "no {"), ("REFUSE", "not with me")], ids=["garbage", "refusal"]
)
async def test_what_the_model_says_wrong_is_an_error_and_the_next_is_served(
    door: Door, word: str, message: str
) -> None:
    asked = {"messages": [{"role": "user", "content": word}]}
    status, refusal, _ = await door.ask(asked)
    assert status == 500
    assert message in refusal["error"]["message"]
    assert (await door.ask(SAID))[0] == 200
    assert door.house["lines"].state is State.READY


async def test_a_model_that_dies_at_work_is_told_and_comes_again(door: Door) -> None:
    status, refusal, _ = await door.ask({"messages": [{"role": "user", "content": "DIE"}]})
    assert (status, refusal["error"]["code"]) == (502, "engine_died")
    await door.house.reach("lines", State.READY)
    assert (await door.ask(SAID))[0] == 200


async def test_a_client_that_leaves_frees_the_model(door: Door) -> None:
    silent = {"messages": [{"role": "user", "content": "SILENT"}], "stream": True}
    asking = asyncio.create_task(door.stream(silent))
    await until(lambda: door.house["lines"].requests_active, "it to be asked")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await door.ask(SAID))[0] == 200


async def test_a_stop_leaves_none_of_the_three(door: Door) -> None:
    told = await health(door)
    pids = [told[name]["pid"] for name in ("tokenizer", "model")]
    await door.house["lines"].stop()
    await door.house.reach("lines", State.INITIAL)
    assert not [pid for pid in pids if posix.Identity.of(pid) is not None]


async def test_a_program_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    door = Door(tmp_path)
    await door.open({"lines": pair(model_argv=["/nowhere/model", "${SOCKET}"])}, ready=False)
    snapshot = await door.house.reach("lines", State.ERROR, State.CRASHED)
    assert snapshot.state is State.ERROR
    assert snapshot.cause is not None
    assert "engine.model_argv" in str(snapshot.cause.remedy)
    await door.close()
