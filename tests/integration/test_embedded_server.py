"""The embedded engine as a process: the real llama.cpp with the demo model, driven as the supervisor and as a person would."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from supervisor.config.settings import InstanceSettings
from supervisor.engines.embedded import SERVER_FILE
from supervisor.engines.registry import ENGINES
from supervisor.launch import Address, LaunchSpec
from supervisor.models.demo import DEMO_MODEL_PATH
from supervisor.process.liveness import Counters
from supervisor.process.probe import Prober
from tests.fixtures.slow_model import write_slow_llama

PATIENCE_SECONDS = 50.0
QUICK = {"ctx_size": 512, "threads": 1}
PIPE, NULL = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL


@dataclass
class Server:
    """A running server; `lines` is what it has printed so far, `reading` ends with its output."""

    process: asyncio.subprocess.Process
    spec: LaunchSpec
    prober: Prober
    lines: list[str] = field(default_factory=list)
    heeding: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self.reading = asyncio.create_task(self._read(), name="output")

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            # llama.cpp logs from a thread of its own and a word at a time, so our line may begin within one of its own.
            if b"serving: " in line:
                self.heeding.set()

    async def wait(self) -> int:
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def said(self) -> str:
        """All that it printed, once it has ended."""
        await asyncio.wait_for(self.reading, PATIENCE_SECONDS)
        return "".join(self.lines)

    async def until_it_heeds_signals(self) -> None:
        """Health may come true a moment before the native constructor returns, and with it Python's turn."""
        await asyncio.wait_for(self.heeding.wait(), PATIENCE_SECONDS)

    async def until_ready(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (await self.prober.health(PATIENCE_SECONDS)).ok:
                assert self.process.returncode is None, await self.said()
                await asyncio.sleep(0.01)

    async def until_not_ready(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.prober.health(PATIENCE_SECONDS)).ok:  # noqa: ASYNC110 - another process has no Event
                await asyncio.sleep(0.01)

    async def post(self, path: str, body: object) -> Any:
        async with self.session() as session, session.post(path, json=body) as response:
            return await response.json()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        path = self.spec.address.socket_path
        connector = aiohttp.UnixConnector(str(path)) if path is not None else aiohttp.TCPConnector()
        async with aiohttp.ClientSession(self.spec.address.base_url, connector=connector) as session:
            yield session


def spec_of(folder: Path, *, model: Path = DEMO_MODEL_PATH, kind: str = "embedded", **engine: Any) -> LaunchSpec:
    settings = InstanceSettings.model_validate({"engine": {"kind": kind, **QUICK, **engine}, "model": str(model)})
    return ENGINES[settings.engine.kind].launch_spec(
        "main", settings, Address(socket_path=folder / "s.sock"), str(model)
    )


@asynccontextmanager
async def running(
    spec: LaunchSpec, *, ready: bool = True, stdin: int = PIPE, stdout: int = NULL
) -> AsyncIterator[Server]:
    process = await asyncio.create_subprocess_exec(
        *spec.argv, stdin=stdin, stdout=stdout, stderr=PIPE, env={**os.environ, **spec.env}
    )
    server = Server(process, spec, Prober(spec.address, spec.probe))
    try:
        if ready:
            await server.until_ready()
        yield server
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await server.reading
        await server.prober.close()
        if process.stdin is not None:
            process.stdin.close()


async def outcome_of(*arguments: str) -> tuple[int, str]:
    """Run the command to its end: exit code, and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "supervisor.engines.embedded_server", *arguments, stdin=NULL, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode is not None
    return process.returncode, (out + err).decode()


async def test_it_answers_as_the_engine_that_the_probes_know(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path, parallel=2)) as server:
        prober = server.prober
        assert await prober.matches_signature(PATIENCE_SECONDS)
        assert await prober.counters(PATIENCE_SECONDS) == Counters(advancing=0.0, busy=0.0)
        assert await prober.canary(PATIENCE_SECONDS)
        counters = await prober.counters(PATIENCE_SECONDS)
        assert counters is not None
        assert counters.advancing > 0
        slots = await prober.get_json("/slots", PATIENCE_SECONDS)
        assert isinstance(slots, list)
        assert len(slots) == 2
        models = await prober.get_json("/v1/models", PATIENCE_SECONDS)
        assert isinstance(models, dict)
        assert models["data"][0]["id"] == "llamavisor-demo"


async def test_it_chats_with_the_models_own_template(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    async with running(spec_of(tmp_path)) as server:
        answer = await server.post("/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"].startswith("The capital of")


async def test_counters_and_slots_show_a_request_at_work(tmp_path: Path) -> None:
    body = {"prompt": "a", "max_tokens": 400, "ignore_eos": True, "stream": True}
    async with (
        running(spec_of(tmp_path, parallel=1)) as server,
        server.session() as session,
        session.post("/v1/completions", json=body) as response,
    ):
        await response.content.readline()
        counters = await server.prober.counters(PATIENCE_SECONDS)
    assert counters is not None
    assert counters.busy == 1
    assert counters.free_slots == 0


async def test_settings_reach_the_engine(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path, temperature=0.0, top_k=7, top_p=0.5, repeat_penalty=1.5, seed=42, cache_type_k="q8_0", n_predict=9
    )
    async with running(spec) as server:
        props = await server.prober.get_json("/props", PATIENCE_SECONDS)
        completion = await server.post("/v1/completions", {"prompt": "a", "ignore_eos": True})
    assert completion["usage"]["completion_tokens"] == 9
    assert isinstance(props, dict)
    params = props["default_generation_settings"]["params"]
    told = {key: round(params[key], 3) for key in ("temperature", "top_k", "top_p", "repeat_penalty", "seed")}
    assert told == {"temperature": 0, "top_k": 7, "top_p": 0.5, "repeat_penalty": 1.5, "seed": 42}


async def test_an_embedding_server_serves_embeddings_and_its_canary_decodes(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, embedding=True)
    async with running(replace(spec, argv=(*spec.argv, "--pooling", "mean"))) as server:
        assert await server.prober.canary(PATIENCE_SECONDS)
        counters = await server.prober.counters(PATIENCE_SECONDS)
        answer = await server.post("/v1/embeddings", {"input": "a"})
    assert counters is not None
    assert counters.advancing > 0
    assert len(answer["data"][0]["embedding"]) > 1


async def test_no_web_page_may_read_its_answers_and_it_has_no_page_of_its_own(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path)) as server, server.session() as session:
        async with session.get("/health", headers={"Origin": "http://evil.example"}) as response:
            assert not response.headers.get("Access-Control-Allow-Origin")
        async with session.get("/") as response:
            assert response.status == 404


async def test_its_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path)) as server:
        path = server.spec.address.socket_path
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_a_key_of_the_environment_is_demanded_and_the_probes_have_it(tmp_path: Path) -> None:
    settings = InstanceSettings.model_validate(
        {"engine": {"kind": "embedded", **QUICK}, "model": str(DEMO_MODEL_PATH), "env": {"LLAMA_API_KEY": "canary-key"}}
    )
    address = Address(socket_path=tmp_path / "s.sock")
    spec = ENGINES["embedded"].launch_spec("main", settings, address, str(DEMO_MODEL_PATH))
    async with running(spec) as server, server.session() as session:
        assert await server.prober.matches_signature(PATIENCE_SECONDS)
        async with session.get("/props") as response:
            assert response.status == 401
    assert "canary-key" not in " ".join(spec.argv)
    assert "canary-key" not in await server.said()


async def test_keys_of_a_file_are_demanded(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first\n\n second \n")
    spec = spec_of(tmp_path)
    async with (
        running(replace(spec, argv=(*spec.argv, "--api-key-file", str(keys)))) as server,
        server.session() as session,
    ):
        for key, status in (("first", 200), ("second", 200), ("third", 401)):
            async with session.get("/props", headers={"Authorization": f"Bearer {key}"}) as response:
                assert response.status == status


async def test_it_listens_on_a_port_too() -> None:
    arguments = ("-m", str(DEMO_MODEL_PATH), "--port", "0", "-c", "512", "-t", "1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(SERVER_FILE), *arguments, stdin=PIPE, stdout=NULL, stderr=PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"listening on " not in (line := await process.stderr.readline()):
                assert line
        url = line.decode().partition("listening on ")[2].strip()
        async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as response:
            assert await response.json() == {"status": "ok"}
    finally:
        process.kill()
        await process.communicate()


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slow_llama(tmp_path_factory.mktemp("slow") / "slow.gguf")


@asynccontextmanager
async def loading(folder: Path, model: Path) -> AsyncIterator[Server]:
    """A server that was seen loading, and has not yet loaded."""
    spec = spec_of(folder, model=model)
    async with running(replace(spec, argv=(*spec.argv, "--no-mmap")), ready=False) as server:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (health := await server.prober.health(PATIENCE_SECONDS)).loading:
                assert not health.ok, "it had loaded before anybody could look"
                assert server.process.returncode is None, await server.said()
                await asyncio.sleep(0.001)
        yield server


async def test_it_listens_while_it_loads_and_becomes_ready(tmp_path: Path, slow_model: Path) -> None:
    async with loading(tmp_path, slow_model) as server:
        await server.until_ready()


async def test_a_signal_ends_it_while_it_loads(tmp_path: Path, slow_model: Path) -> None:
    async with loading(tmp_path, slow_model) as server:
        server.process.terminate()
        assert await server.wait() == -signal.SIGTERM


async def test_the_end_of_stdin_ends_it_while_it_loads(tmp_path: Path, slow_model: Path) -> None:
    async with loading(tmp_path, slow_model) as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert await server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    async with running(spec_of(tmp_path)) as server:
        await server.until_it_heeds_signals()
        server.process.send_signal(number)
        assert await server.wait() == 0
    assert "stopped: unix://" in await server.said()


async def test_a_signal_ends_it_with_zero_also_when_requests_queue(tmp_path: Path) -> None:
    body = {"prompt": "a", "max_tokens": 450, "ignore_eos": True, "stream": True}

    async def stream(session: aiohttp.ClientSession) -> None:
        with suppress(aiohttp.ClientError):
            async with session.post("/v1/completions", json=body) as response:
                await response.read()

    async with running(spec_of(tmp_path, parallel=1)) as server, server.session() as session:
        streams = [asyncio.create_task(stream(session), name=f"stream {count}") for count in range(8)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            counters = None
            while counters is None or counters.busy < 4:
                counters = await server.prober.counters(PATIENCE_SECONDS)
        await server.until_it_heeds_signals()
        server.process.terminate()
        assert await server.wait() == 0
        await asyncio.gather(*streams)


async def test_the_end_of_stdin_ends_it_with_zero(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path)) as server:
        await server.until_it_heeds_signals()
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert await server.wait() == 0


async def test_without_a_writer_on_stdin_it_stays(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path), stdin=NULL) as server:
        assert await server.prober.canary(PATIENCE_SECONDS)
        assert server.process.returncode is None


PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
@pytest.mark.parametrize("asked", [True, False])
async def test_it_dies_with_its_parent_when_asked(tmp_path: Path, asked: bool) -> None:
    spec = spec_of(tmp_path)
    parent = replace(spec, argv=(sys.executable, "-c", PARENT, *spec.argv), env=spec.env if asked else {})
    async with running(parent, stdout=PIPE) as server:
        assert server.process.stdout is not None
        child = os.pidfd_open(int(await server.process.stdout.readline()))
        try:
            server.process.kill()
            await server.wait()
            if asked:
                await server.until_not_ready()
            else:
                assert await server.prober.canary(PATIENCE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)
            os.close(child)


async def test_a_socket_left_by_a_killed_server_is_no_hindrance(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path)) as server:
        server.process.kill()
        await server.wait()
        path = server.spec.address.socket_path
        assert path is not None
        assert path.is_socket()
    async with running(spec_of(tmp_path)) as successor:
        assert await successor.prober.canary(PATIENCE_SECONDS)


async def test_a_socket_that_somebody_listens_on_is_left_to_them(tmp_path: Path) -> None:
    async with running(spec_of(tmp_path)) as server, running(spec_of(tmp_path), ready=False) as second:
        assert await second.wait() == 1
        assert "couldn't bind" in await second.said()
        assert await server.prober.canary(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "failed to load model, '{path}': No such file or directory"),
        (b"", "failed to load model, '{path}'"),
        (b"This is no model.", "invalid magic characters"),
        (DEMO_MODEL_PATH.read_bytes()[:5_000], "failed to load model, '{path}'"),
    ],
    ids=["missing", "empty", "no GGUF", "cut short"],
)
async def test_a_bad_model_ends_it_with_one(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    code, said = await outcome_of("-m", str(path), "--host", str(tmp_path / "s.sock"))
    assert code == 1
    assert says.format(path=path) in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: -m/--model"),
        (["-m", "x", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["-m", "x", "-c", "many"], "'many' is not a whole number of at least 0"),
        (["-m", "x", "-np", "-2"], "'-2' is not a whole number of at least -1"),
        (["-m", "x", "--port", "65536"], "'65536' is not a port"),
        (["-m", "x", "-fa", "perhaps"], "'perhaps' is not one of on, off, auto"),
        (["-m", "x", "-ctk", "q3"], "invalid choice: 'q3'"),
        (["-m", "x", "--api-key", "secret"], "unrecognized arguments: --api-key"),
    ],
)
async def test_bad_flags_end_it_with_two_and_the_usage(arguments: list[str], says: str) -> None:
    code, said = await outcome_of(*arguments)
    assert code == 2
    assert "error: invalid argument" in said
    assert says in said
    assert "usage: " in said


async def test_a_key_file_that_cannot_be_read_ends_it_with_one(tmp_path: Path) -> None:
    code, said = await outcome_of("-m", str(DEMO_MODEL_PATH), "--api-key-file", str(tmp_path / "none"))
    assert code == 1
    assert "cannot read the API keys" in said


async def test_help_teaches() -> None:
    code, said = await outcome_of("--help")
    assert code == 0
    for word in ("examples:", "LLAMA_API_KEY", "--ctx-size", "OpenAI"):
        assert word in said


async def test_the_engine_llama_server_runs_it_as_its_binary(tmp_path: Path) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{SERVER_FILE}" "$@"\n')
    binary.chmod(0o700)
    spec = spec_of(tmp_path, kind="llama-server", binary=str(binary), extra_args=["--no-slots", "-a", "named"])
    async with running(spec) as server:
        assert await server.prober.matches_signature(PATIENCE_SECONDS)
        assert await server.prober.canary(PATIENCE_SECONDS)
        models = await server.prober.get_json("/v1/models", PATIENCE_SECONDS)
        assert json.dumps("named") in json.dumps(models)
