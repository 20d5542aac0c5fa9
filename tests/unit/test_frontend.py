"""The browser code's own tests, run by the Node.js that bundles it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hatch_build import FrontEnd, node_folder

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120


@pytest.mark.timeout(2 * DEADLINE_SECONDS)
def test_browser_modules() -> None:
    """`npm test` in static/: bundles static/tests/*.test.ts and runs them with node's test runner."""
    front_end = FrontEnd(ROOT)
    front_end.install()
    node = node_folder()
    environment = {**os.environ, "PATH": f"{node / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = subprocess.run(
        [str(node / "bin" / "node"), str(npm), "test"],
        cwd=front_end.source,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    # The runner is content with no tests at all.
    assert re.search(r"^. pass [1-9]", done.stdout, re.MULTILINE), done.stdout
