"""Python snippets of the documentation that are marked `<!-- runs -->` run, against a real server, and print what they say that they print.

The server has the demo model, or the configuration of the page that is marked `<!-- serves -->`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.doc_tables import DOCS, says
from tests.fixtures.serve_process import DEMO, GENEROUS_SECONDS, ServeProcess, clean_environment

pytestmark = pytest.mark.timeout(180)

DOCUMENTED_URL = "http://127.0.0.1:3000"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
_RUNNABLE = re.compile(r"<!-- runs -->\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVED = re.compile(r"<!-- serves -->\n\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


def configuration_of(page: Path) -> str:
    """What the server of a page's snippets is started with."""
    own = _SERVED.findall(page.read_text("utf-8"))
    assert len(own) < 2, page
    return own[0] if own else json.dumps(DEMO)


SNIPPETS = [
    pytest.param(configuration_of(page), text, id=page.name)
    for page in PAGES
    for text in _RUNNABLE.findall(page.read_text("utf-8"))
]


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ServeProcess]]:
    """The server with a configuration: one for all who want the same. It need not be ready: who asks for a model waits for it."""
    servers: dict[str, ServeProcess] = {}

    def server(configuration: str) -> ServeProcess:
        if configuration not in servers:
            servers[configuration] = ServeProcess(tmp_path_factory.mktemp("serve"), json.loads(configuration))
        return servers[configuration]

    try:
        yield server
    finally:
        for each in servers.values():
            each.close()


@pytest.mark.parametrize(("configuration", "text"), SNIPPETS)
def test_the_snippet_runs_and_prints_what_it_says(
    configuration: str, text: str, server_of: Callable[[str], ServeProcess]
) -> None:
    assert DOCUMENTED_URL in text
    serve = server_of(configuration)
    done = subprocess.run(
        [sys.executable, "-c", text.replace(DOCUMENTED_URL, serve.wait_serving())],
        cwd=serve.home,
        env=clean_environment(serve.home),
        capture_output=True,
        text=True,
        timeout=GENEROUS_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    for words in _PRINTED.findall(text):
        assert says(words, done.stdout), f"{words!r} is not in {done.stdout!r}"


def test_there_are_snippets() -> None:
    texts = [str(each.values[1]) for each in SNIPPETS]
    assert len(texts) >= 2
    assert any(_PRINTED.search(text) for text in texts)
