"""The one program of the benchmarks that Python would be too slow for is compiled when it is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("_mock_engine.c")


def build_mock_engine(folder: Path) -> Path:
    """Compile the mock engine into `folder`. Ends the program with a word when there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit(
            "This benchmark needs a C compiler for its mock engine (on Debian and Ubuntu: apt-get install gcc libc6-dev)."
        )
    program = folder / "mock_engine"
    subprocess.run([compiler, "-O2", "-D_GNU_SOURCE", "-o", program, SOURCE], check=True)
    return program
