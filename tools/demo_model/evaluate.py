"""The evaluation: every held-out case, asked of the real embedded engine over its HTTP API on a Unix socket.

It measures what a user of Llamavisor would see: the quantised file, llama.cpp's own tokenizer and chat template.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from .corpus import Case
from .grammar import REFUSAL_START

START_DEADLINE_SECONDS = 30.0
STOP_GRACE_SECONDS = 5.0
PROBE_INTERVAL_SECONDS = 0.02
ANSWER_TOKENS = 160
PARALLEL = 2
CONTEXT = 2048
"""Tokens for each of the parallel requests."""


class EngineError(RuntimeError):
    """The embedded engine did not start; the message holds what it printed last."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A case, what the model said, and whether that counts as right."""

    case: Case
    answer: str

    @property
    def right(self) -> bool:
        """Exact cases must match in every character; refusals may be any honest one."""
        if self.case.scoring == "refusal":
            return self.answer.startswith(REFUSAL_START)
        return self.answer == self.case.answer


@asynccontextmanager
async def serving(model: Path, threads: int = 1) -> AsyncIterator[aiohttp.ClientSession]:
    """Run the embedded engine on the model while the context lasts; yield a session whose host is the engine.

    Raises EngineError when it does not become healthy in time. Embeddings stay off, as they are by default.
    """
    with tempfile.TemporaryDirectory(prefix="demo-model-") as folder:
        socket, log = Path(folder, "engine.sock"), Path(folder, "engine.log")
        process = await _spawn(model, socket, log, threads)
        try:
            async with aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(str(socket))) as session:
                await _healthy(session, process, log)
                yield session
        finally:
            await _stop(process)


async def ask(session: aiohttp.ClientSession, case: Case) -> Verdict:
    """Ask one case at temperature 0."""
    body = {"messages": list(case.messages), "temperature": 0, "max_tokens": ANSWER_TOKENS}
    async with session.post("/v1/chat/completions", json=body, headers={"Connection": "close"}) as response:
        response.raise_for_status()
        return Verdict(case, (await response.json())["choices"][0]["message"]["content"])


async def evaluate(model: Path, cases: Iterable[Case], threads: int = 1) -> list[Verdict]:
    """Ask all cases, a few at a time, and return the verdicts in their order."""
    gate = asyncio.Semaphore(PARALLEL)

    async def one(session: aiohttp.ClientSession, case: Case) -> Verdict:
        async with gate:
            return await ask(session, case)

    async with serving(model, threads) as session:
        return list(await asyncio.gather(*(one(session, case) for case in cases)))


def share_right(verdicts: Sequence[Verdict]) -> float:
    """The share of verdicts that are right, 0 to 1."""
    return sum(verdict.right for verdict in verdicts) / len(verdicts)


def table(verdicts: Sequence[Verdict]) -> str:
    """Return a Markdown table, one row an intent, and the total in the last row."""
    asked = Counter(verdict.case.intent for verdict in verdicts)
    right = Counter(verdict.case.intent for verdict in verdicts if verdict.right)
    rows = [f"| {intent} | {right[intent]} of {count} |" for intent, count in asked.items()]
    total = f"| **all** | **{right.total()} of {asked.total()} ({share_right(verdicts):.1%})** |"
    return "\n".join(["| intent | right |", "| --- | --- |", *rows, total])


def mistakes(verdicts: Iterable[Verdict]) -> str:
    """Return one line a wrong answer: what was asked last, what was said."""
    return "\n".join(
        f"{verdict.case.intent}: {verdict.case.messages[-1]['content']!r} → {verdict.answer!r}"
        for verdict in verdicts
        if not verdict.right
    )


async def _spawn(model: Path, socket: Path, log: Path, threads: int) -> asyncio.subprocess.Process:
    argv = [
        "-m",
        "supervisor.engines.embedded_server",
        "-m",
        str(model),
        "--host",
        str(socket),
        "-c",
        str(CONTEXT * PARALLEL),
    ]
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *argv,
            *("-np", str(PARALLEL), "-t", str(threads)),
            # The engine ends when its stdin does: it cannot outlive us, whatever happens here.
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )


async def _healthy(session: aiohttp.ClientSession, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while process.returncode is None and time.monotonic() < deadline:
        try:
            async with session.get("/health") as response:
                if response.ok:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(PROBE_INTERVAL_SECONDS)
    printed = await asyncio.to_thread(log.read_text, errors="replace")
    raise EngineError(f"the embedded engine did not become healthy; it printed last:\n{printed[-2000:]}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_GRACE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
