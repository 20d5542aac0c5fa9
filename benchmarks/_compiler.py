"""The two programs of the benchmarks that Python would be too slow for are compiled when they are needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def build_mock_engine(folder: Path) -> Path:
    """Compile the mock engine into `folder`. Ends the program with a word when there is no C compiler."""
    return _build("mock_engine", folder)


def build_load(folder: Path) -> Path:
    """Compile the load generator into `folder`, likewise."""
    return _build("load", folder)


def _build(name: str, folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("This benchmark needs a C compiler (on Debian and Ubuntu: apt-get install gcc libc6-dev).")
    program = folder / name
    subprocess.run([compiler, "-O2", "-D_GNU_SOURCE", "-o", program, FOLDER / f"_{name}.c"], check=True)
    return program
