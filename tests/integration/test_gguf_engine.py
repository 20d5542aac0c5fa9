"""The tiny model of the fixtures in the real engine: it loads, it speaks, and the engine and our reader say the same about it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from supervisor.models.catalog import discover_models, parse_model_list
from supervisor.models.discovery import read_model_file
from supervisor.models.gguf import read_gguf_header
from tests.fixtures.gguf_files import write_tiny_llama

# In a process of its own: a crash of native code must not take the tests along.
ENGINE = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx, params.n_parallel = sys.argv[1], 0, 512, 1
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf")


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[aiohttp.ClientSession]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ENGINE,
        str(model),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        assert address, "the engine did not load the model"
        async with aiohttp.ClientSession(address) as session:
            yield session
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(model) as session:
        yield session


async def fetch_json(session: aiohttp.ClientSession, path: str) -> object | None:
    async with session.get(path) as response:
        return await response.json() if response.status == 200 else None


async def test_tiny_model_speaks_until_the_limit_and_in_ascii(engine: aiohttp.ClientSession) -> None:
    question = {"messages": [{"role": "user", "content": "Grüße"}], "max_tokens": 40, "temperature": 0}
    async with engine.post("/v1/chat/completions", json=question) as response:
        answer = await response.json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 40
    text = answer["choices"][0]["message"]["content"]
    assert text.isascii()
    assert text.isprintable()


async def test_engine_and_reader_agree(engine: aiohttp.ClientSession, model: Path) -> None:
    header = read_gguf_header(model)
    [listed] = parse_model_list(await fetch_json(engine, "/v1/models"), "/v1/models")
    assert listed.metadata is not None
    assert listed.size == header.tensor_bytes
    for figure in ("parameter_count", "quantisation", "context_length", "embedding_length", "vocabulary_size"):
        assert getattr(listed.metadata, figure) == getattr(header, figure), figure


async def test_models_of_a_running_engine_are_discovered_with_their_file(
    engine: aiohttp.ClientSession, model: Path
) -> None:
    [found] = await discover_models(lambda path: fetch_json(engine, path), known_files=[model])
    assert (found.name, found.type, found.path) == ("tiny", "gguf", model)
    assert found.metadata is not None
    assert (found.metadata.architecture, found.metadata.has_chat_template) == ("llama", True)


async def test_split_model_loads_from_its_first_part(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "split.gguf", split_max_tensors=10)
    async with serving(tmp_path / "split-00001-of-00003.gguf") as session:
        [listed] = parse_model_list(await fetch_json(session, "/v1/models"), "/v1/models")
    assert listed.metadata is not None
    assert (
        listed.metadata.parameter_count
        == read_model_file(tmp_path / "split-00002-of-00003.gguf").header.parameter_count
    )
