"""The making of a demo model from corpus to evaluation, in small, with the engine that will serve it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from tools.demo_model.corpus import Message
from tools.demo_model.evaluate import EngineError, serving
from tools.demo_model.model import Batch, Llama
from tools.demo_model.tokenizer import NO_LABEL, load_tokenizer

ROOT = Path(__file__).parents[2]
STEP_DEADLINE_SECONDS = 55
TRAINED_TOKENS = 6_000
QUANTISATION_TOLERANCE = 0.05
CHAT: list[Message] = [
    {"role": "user", "content": "What is the capital of Żabia-Wólka?"},
    {"role": "assistant", "content": "Sorry, no."},
    {"role": "user", "content": "  And 2 + 3?\n"},
]


def make(step: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tools.demo_model", step, "--work", str(folder), "--output", str(folder / "m.gguf")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*argv, "--threads", "1", *more],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=STEP_DEADLINE_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a barely trained model and two cases."""
    folder = tmp_path_factory.mktemp("work")
    steps = (("corpus", "--conversations", "500"), ("train", "--tokens", str(TRAINED_TOKENS)), ("export",))
    for step, *more in steps:
        done = make(step, folder, *more)
        assert done.returncode == 0, done.stderr
    cases = (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "cases.jsonl").write_text("".join(cases[:2]), encoding="utf-8")
    return folder


@pytest.fixture
def engine_and_model(folder: Path) -> tuple[Path, Llama]:
    return folder / "m.gguf", Llama.load(folder / "model.npz")


def log_chance(model: Llama, ids: list[int], following: int) -> float:
    """The log-probability that our own model gives to a token after `ids`."""
    labels = np.full((1, len(ids)), NO_LABEL, np.int32)
    labels[0, -1] = following
    positions = np.arange(len(ids), dtype=np.int32)[None]
    return -model.loss(Batch(np.array([ids], np.int32), positions, labels, np.ones((1, len(ids)), np.float32)))


async def engine_says(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(path, json=body) as response:
        response.raise_for_status()
        answer: dict[str, Any] = await response.json()
        return answer


async def test_the_engine_computes_what_the_trainer_computed(
    folder: Path, engine_and_model: tuple[Path, Llama]
) -> None:
    path, model = engine_and_model
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    async with serving(path) as session:
        prompt = (await engine_says(session, "/apply-template", {"messages": CHAT}))["prompt"]
        tokenized = await engine_says(session, "/tokenize", {"content": prompt, "parse_special": True})
        ids: list[int] = tokenized["tokens"]
        assert ids == tokenizer.encode(prompt).ids
        question = {"prompt": ids, "n_predict": 1, "n_probs": 8, "temperature": 0}
        answer = await engine_says(session, "/completion", question)
    for token in answer["completion_probabilities"][0]["top_logprobs"]:
        assert log_chance(model, ids, token["id"]) == pytest.approx(token["logprob"], abs=QUANTISATION_TOLERANCE)


@pytest.mark.parametrize(("threshold", "code"), [("0", 0), ("1", 1)])
def test_the_evaluation_prints_a_table_and_its_code_obeys_the_threshold(
    folder: Path, threshold: str, code: int
) -> None:
    done = make("evaluate", folder, "--threshold", threshold, "--mistakes")
    assert done.returncode == code, done.stderr
    assert "| **all** | **0 of 2 (0.0%)** |" in done.stdout
    assert f'"passed": {"true" if code == 0 else "false"}' in done.stdout


async def test_a_file_that_is_no_model_is_reported_with_what_the_engine_printed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(EngineError, match="did not become healthy"):
        async with serving(broken):
            pytest.fail("a broken model must not be served")
