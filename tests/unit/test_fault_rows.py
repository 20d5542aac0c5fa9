"""Every row of the fault matrix that this version promises has a test of its number, and the docs name it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.fixtures.doc_tables import DOCS, cells

TESTS = Path(__file__).resolve().parents[1]
PAGE = DOCS / "explanation" / "reliability.md"
PROMISED = (*range(1, 59), 61)
_TEST = re.compile(r"def (test_row_(\d\d)_\w+)\(")
_NAME = re.compile(r"`(test_row_\d\d_\w+)`")


def staged() -> dict[int, set[str]]:
    """The names of the tests of each row, found in the sources."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for name, number in _TEST.findall(path.read_text(encoding="utf-8")):
            found[int(number)].add(name)
    return found


def documented() -> dict[int, set[str]]:
    """The names of tests that the page's table gives for each row."""
    lines = [cells(line) for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return {int(row[0]): set(_NAME.findall(row[-1])) for row in lines if row[0].isdigit()}


@pytest.mark.parametrize("number", PROMISED)
def test_the_row_has_a_test(number: int) -> None:
    assert staged()[number], f"no test named test_row_{number:02}_…"


@pytest.mark.parametrize("number", PROMISED)
def test_the_page_names_it(number: int) -> None:
    named = documented().get(number, set())
    assert named, f"row {number} has no test in {PAGE.name}"
    assert named <= staged()[number], f"{PAGE.name} names tests that are not there"


def test_the_page_promises_no_other_row() -> None:
    assert set(documented()) == set(PROMISED)
