"""Runs the project's checks one after another and says at the end, on one screen, how each went.

    python tools/checks.py lint              everything that needs no running program
    python tools/checks.py all [PYTEST …]    lint, then the tests in two legs; options (no paths) go to each pytest
    python tools/checks.py soak [PYTEST …]   the stateful tests at length

A check that could not run is listed with the remedy. With CI=true in the environment it counts as a failure, so that
"green" never means "not looked at".
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PYTHON_FOLDERS = ("supervisor", "web", "tests", "benchmarks", "tools")
# The headless shell comes first: it takes half the processor time, and our tests share theirs with the processes under test.
CHROMIUM_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_PACKAGES = ("chromium-headless-shell", "chromium")
CHROMIUM_MACOS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
CHROMIUM_REMEDY = (
    "install Chromium or Chrome (Debian: apt-get install chromium-headless-shell; with sudo, or run as root once)"
)
POSTGRES_DEBIAN = Path("/usr/lib/postgresql")
POSTGRES_REMEDY = "install the PostgreSQL server (Debian: apt-get install postgresql; with sudo, or run as root once)"
NO_TESTS_COLLECTED = 5
NO_TESTS = "no tests ran"
ONLY_FAILED = ("--last-failed", "--last-failed-no-failures", "none")
# Tests of tasks, descriptors and processes; all others run on the loop that Llamavisor runs on.
_DEBUGGED = (
    "admission books child_output child_spawn child_stop child_survival door_connection inflight placement posix probe resume stream_socket "
    "upstream web_events web_socketio"
)
IN_DEBUG_MODE = tuple(f"tests/integration/test_{name}.py" for name in _DEBUGGED.split())
EXPECTED_FAILURE = "pytest.xfail"
# Two workers whatever the machine: with more, the processes under test starve one another and deadlines are missed. Those in debug mode wait more.
# Stealing keeps the tests of a file together, and with them the servers that their fixtures have started.
SIDE_BY_SIDE = ("-n", "2", "--dist", "worksteal")
DEBUG_SIDE_BY_SIDE = ("-n", "3", "--dist", "worksteal")


@dataclass
class Outcome:
    """How one check went: its name, whether it passed, seconds taken, and what of it did not run, with the reason."""

    name: str
    passed: bool
    seconds: float
    summary: str = ""
    not_run: list[str] = field(default_factory=list)


def lint() -> Iterator[Outcome]:
    """The checks that read the sources only."""
    folders = [name for name in PYTHON_FOLDERS if (ROOT / name).is_dir()]
    yield run("ruff check", tool("ruff"), "check", "--quiet", ".")
    yield run("ruff format", tool("ruff"), "format", "--quiet", "--check", "--diff", ".")
    yield run("mypy", tool("mypy"), "--no-error-summary", "hatch_build.py", *folders)
    yield run("import contracts", tool("lint-imports"), "--no-logo")
    yield run("tsc", sys.executable, "hatch_build.py", "types")


def tests(arguments: list[str]) -> Iterator[Outcome]:
    """All tests; those of tasks, descriptors and processes under asyncio's debug mode."""
    browser = chromium_available()
    postgres_available()
    wanted = () if browser else ("-m", "not browser")
    most = pytest("pytest", [*SIDE_BY_SIDE, *wanted, *(f"--ignore={path}" for path in IN_DEBUG_MODE), *arguments])
    if not browser:
        most.not_run.append(f"tests marked browser: {CHROMIUM_REMEDY}")
    yield most
    yield pytest("pytest, asyncio debug", [*DEBUG_SIDE_BY_SIDE, *IN_DEBUG_MODE, *arguments], PYTHONASYNCIODEBUG="1")


def everything(arguments: list[str]) -> list[Outcome]:
    """Lint and tests, beside one another: tests wait now and then, and a type checker is one process."""
    with ThreadPoolExecutor(1) as beside:
        looking = beside.submit(lambda: list(lint()))
        tested = list(tests(arguments))
    return [*looking.result(), *tested]


def soak(arguments: list[str]) -> Iterator[Outcome]:
    """The property-based tests with the profile that takes 22 times as many steps."""
    long = ["--hypothesis-profile=soak", "--timeout=0", "-m", "soak", *arguments]
    yield pytest("soak", long)


def pytest(name: str, arguments: list[str], **environment: str) -> Outcome:
    """One pytest run. What fails beside the others is tried once more alone, and the table says so.

    Faults staged with real processes have deadlines, which a machine that is busy with all the rest at once may miss.
    """
    outcome = pytest_once(name, arguments, **environment)
    if outcome.passed:
        return outcome
    again = pytest_once(f"{name}, what failed, alone", [*arguments, "-n0", *ONLY_FAILED], **environment)
    outcome.passed = again.passed and NO_TESTS not in again.summary
    outcome.summary += f"; tried again alone: {again.summary}"
    outcome.seconds += again.seconds
    return outcome


def pytest_once(name: str, arguments: list[str], **environment: str) -> Outcome:
    """One pytest run; its skipped tests come back as not run (an expected failure has run)."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
        outcome = run(name, *command, accept=(0, NO_TESTS_COLLECTED), **environment)
        if report.is_file():
            suite = ElementTree.parse(report).getroot().find("testsuite")
            if suite is not None:
                outcome.summary = describe(suite)
                outcome.not_run = sorted(skipped(suite))
    return outcome


def describe(suite: ElementTree.Element) -> str:
    """The counts of a JUnit `suite`, worded as pytest's closing line."""
    failed, errors, skips = (int(suite.get(key, 0)) for key in ("failures", "errors", "skipped"))
    expected = sum(mark.get("type") == EXPECTED_FAILURE for mark in suite.iter("skipped"))
    passed = int(suite.get("tests", 0)) - failed - errors - skips
    counts = {"failed": failed, "passed": passed, "skipped": skips - expected, "xfailed": expected, "errors": errors}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or NO_TESTS
    return f"{told} in {float(suite.get('time', 0)):.2f}s"


def skipped(suite: ElementTree.Element) -> Iterator[str]:
    """Name and reason of each test that a JUnit `suite` says was skipped."""
    for case in suite.iter("testcase"):
        mark = case.find("skipped")
        if mark is not None and mark.get("type") != EXPECTED_FAILURE:
            yield f"{case.get('classname')}.{case.get('name')}: {mark.get('message')}"


def run(name: str, *command: str, accept: tuple[int, ...] = (0,), **environment: str) -> Outcome:
    """Run `command` in the project's root with its output passed through."""
    say(f"-- {name}")
    began = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}).returncode
    return Outcome(name, status in accept, time.monotonic() - began)


def tool(name: str) -> str:
    """The path of a command of the running environment, whatever PATH says."""
    return str(Path(sys.executable).parent / name)


def chromium_available() -> bool:
    """Whether there is a browser to drive; as root on a Debian system one is installed."""
    if has_chromium():
        return True
    # A release that does not have the first has the second.
    for package in CHROMIUM_PACKAGES:
        if install("Chromium for the browser tests", "fonts-dejavu-core", package):
            break
    return has_chromium()


def postgres_available() -> bool:
    """Whether there is a PostgreSQL server to start; as root on a Debian system one is installed."""
    return postgres_programs() is not None or (
        install("PostgreSQL for the storage tests", "postgresql") and postgres_programs() is not None
    )


def postgres_programs() -> Path | None:
    """The folder with `initdb` and `postgres`, the newest; None when there is none."""
    found = shutil.which("initdb")
    # Debian keeps them off PATH, a folder for each version.
    folders = [Path(found).resolve().parent] if found else sorted(POSTGRES_DEBIAN.glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def install(what: str, *packages: str) -> bool:
    """Install Debian packages, where that is possible; whether it went well."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    say(f"-- Installing {what}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet)
    command = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
    return subprocess.run(command, env=quiet).returncode == 0


def has_chromium() -> bool:
    """Whether a Chromium is where the browser tests look for it."""
    return any(shutil.which(name) for name in CHROMIUM_NAMES) or CHROMIUM_MACOS.exists()


def say(line: str) -> None:
    """Print now, for the programs run write to the same terminal themselves."""
    print(line, flush=True)


def report(outcomes: list[Outcome], strict: bool) -> int:
    """Print the table and what did not run; the exit status. `strict`: what did not run is a failure."""
    say("")
    for outcome in outcomes:
        word = "ok" if outcome.passed else "FAILED"
        say(f"{word:>6}  {outcome.name:<24}{outcome.seconds:7.1f} s  {outcome.summary}".rstrip())
    not_run = list(dict.fromkeys(line for outcome in outcomes for line in outcome.not_run))
    if not_run:
        say(f"\nNot run ({'a failure, as CI is set' if strict else 'not counted as a failure'}):")
        for line in not_run:
            say(f"  {line}")
    return int(any(not outcome.passed for outcome in outcomes) or (strict and bool(not_run)))


def main(arguments: list[str]) -> int:
    """Run the group of checks that the first argument names; the exit status."""
    group, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    # A failing check does not keep the later ones from running: one run tells everything.
    if group == "lint":
        outcomes = list(lint())
    elif group == "all":
        outcomes = everything(rest)
    elif group == "soak":
        outcomes = list(soak(rest))
    else:
        say(str(__doc__))
        return 2
    return report(outcomes, strict=os.environ.get("CI", "").lower() in ("1", "true"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
