"""Copies of bodies: of whom they are asked for and of nobody else, private, by day, whole or not at all."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from supervisor.config import Settings
from supervisor.gateway.calls import CHAT, Call
from supervisor.gateway.observing import capture as module
from supervisor.gateway.observing.capture import DROPPED, FAILED, WRITTEN, Capture, forget_old
from supervisor.storage.records import AcceptedRequest, Settlement, TokenUsage, UsageRecord

DAY_MS = 86_400_000
DAY = "2023-11-14"
AT_MS = 1_699_999_999_000
SECRET = "sk-0123456789abcdef"
DOCUMENT = {"messages": [{"role": "user", "content": f"My key is {SECRET}."}]}
ANSWER = b'{"choices":[{"message":{"content":"Keep ' + SECRET.encode() + b' safe."}}]}'
STREAM = b'data: {"choices":[{"index":0,"delta":{"content":"sk-0123456"}}]}\n\ndata: {"choices":[{"index":0,"delta":{"content":"789abcdef"}}]}\n\n'


class Answering:
    """Keeps what goes through it."""

    def __init__(self) -> None:
        self.taken = b""

    def on_body(self, data: bytes) -> None:
        self.taken += data


def settings(**own: Any) -> Settings:
    return Settings.model_validate({"capture": own})


def ask(
    capture: Capture, answer: bytes = ANSWER, project: str = "p", identity: str = "req_1", at_ms: int = AT_MS
) -> Answering:
    """One request, from its being sent to its settlement."""
    request = AcceptedRequest(identity, project, "key", "m", "chat", False, at_ms)
    answering = Answering()
    capture.watch(Call(CHAT, json.dumps(DOCUMENT).encode(), DOCUMENT, {}), request, answering)
    for begin in range(0, len(answer), 7):
        answering.on_body(answer[begin : begin + 7])
    capture.settled(UsageRecord(request, Settlement(identity, "ok", TokenUsage(), None, at_ms)))
    return answering


async def lines(capture: Capture, folder: Path, day: str = DAY) -> list[dict[str, Any]]:
    await capture.close()
    return [json.loads(line) for line in (folder / f"{day}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("answer", [ANSWER, STREAM])
async def test_a_request_and_its_answer_without_their_secrets(tmp_path: Path, answer: bytes) -> None:
    folder = tmp_path / "captures"
    capture = Capture(folder, settings(projects=["p"]))
    assert ask(capture, answer).taken == answer
    (line,) = await lines(capture, folder)
    assert SECRET not in json.dumps(line)
    assert line["id"] == "req_1"
    assert line["accepted_at"] == "2023-11-14T22:13:19.000Z"
    assert line["request"]["messages"][0]["content"] == "My key is [redacted]."
    assert "[redacted]" in json.dumps(line["answer"])
    assert (line["request_is_cut"], line["answer_is_cut"]) == (False, False)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / f"{DAY}.jsonl").stat().st_mode & 0o777 == 0o600


async def test_nothing_is_kept_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "captures"
    assert not Capture(folder, settings()).is_on
    capture = Capture(folder, settings(projects=["someone"]))
    ask(capture)
    capture.retune(settings(projects=["*"], sample_ratio=1e-9))
    ask(capture)
    await capture.close()
    assert not folder.exists()
    assert not capture.counts


async def test_a_sample_is_a_sample(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "captures", settings(projects=["*"], sample_ratio=0.5), Random(1))
    for number in range(100):
        ask(capture, b"", identity=f"req_{number}")
    assert 30 < len(await lines(capture, tmp_path / "captures")) < 70


async def test_what_is_long_is_cut_after_it_was_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT_BYTES", 5_000)
    capture = Capture(tmp_path / "captures", settings(projects=["*"], max_bytes=1024))
    ask(capture, json.dumps({"text": f"{SECRET} " * 100 + "é" * 400}).encode(), identity="long")
    ask(capture, json.dumps({"text": "word " * 2_000}).encode(), identity="too long")
    long, too_long = await lines(capture, tmp_path / "captures")
    assert long["answer_is_cut"]
    assert isinstance(long["answer"], str)
    assert len(long["answer"].encode()) <= 1024
    assert SECRET[:8] not in long["answer"]
    assert (too_long["answer"], too_long["answer_is_cut"]) == (None, True)


async def test_what_the_disk_does_not_keep_up_with_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_LIMIT_BYTES", 1_000)
    capture = Capture(tmp_path / "captures", settings(projects=["*"]))
    for _ in range(20):
        ask(capture, b"{" + b" " * 500)
    (line,) = await lines(capture, tmp_path / "captures")
    assert (line["answer"], line["answer_is_cut"]) == (None, True), "it is no document"
    await asyncio.sleep(0)
    assert capture.counts[DROPPED] == 19
    assert capture.counts[WRITTEN] == 1


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    yield 1_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


async def test_a_full_disk_leaves_whole_lines(
    tmp_path: Path, small_disk: int, caplog: pytest.LogCaptureFixture
) -> None:
    capture = Capture(tmp_path / "captures", settings(projects=["*"]))
    for number in range(10):
        ask(capture, identity=f"req_{number}")
    kept = await lines(capture, tmp_path / "captures")
    await asyncio.sleep(0)
    assert 0 < len(kept) < 10
    assert capture.counts == {WRITTEN: len(kept), FAILED: 10 - len(kept)}
    assert len([each for each in caplog.records if "could not be kept" in each.message]) == 1


async def test_each_day_has_its_file_and_old_days_go(tmp_path: Path) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    for name in ("2023-11-01.jsonl", "2023-11-12.jsonl", "2023-11-13.jsonl", "notes.txt"):
        (folder / name).touch()
    capture = Capture(folder, settings(projects=["*"], retention_days=2))
    ask(capture)
    ask(capture, at_ms=AT_MS + DAY_MS)
    await capture.close()
    assert sorted(path.name for path in folder.iterdir()) == ["2023-11-14.jsonl", "2023-11-15.jsonl", "notes.txt"]
    await capture.open()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_there_may_be_nothing_to_forget(tmp_path: Path) -> None:
    forget_old(tmp_path / "missing", DAY, 1)


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", ""])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        settings(patterns=[pattern])
