"""Python snippets of the documentation that are marked `<!-- runs -->` run, against a real server with the demo model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fixtures.doc_tables import DOCS
from tests.fixtures.serve_process import GENEROUS_SECONDS, ServeProcess, clean_environment

pytestmark = pytest.mark.timeout(180)

DOCUMENTED_URL = "http://127.0.0.1:3000"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
_RUNNABLE = re.compile(r"<!-- runs -->\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = [pytest.param(text, id=page.name) for page in PAGES for text in _RUNNABLE.findall(page.read_text("utf-8"))]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server with the demo model, ready."""
    server = ServeProcess(tmp_path_factory.mktemp("serve"))
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_snippet_runs_and_prints_an_answer(text: str, serve: ServeProcess) -> None:
    assert DOCUMENTED_URL in text
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


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2
