"""Puts results into the page on performance: `python -m benchmarks._report`.

Reads `benchmarks/results/NAME.json` (what `make bench ARGS="--json benchmarks/results"` leaves) and replaces, in `docs/explanation/performance.md`,
what stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`. The prose around it is written by hand.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from benchmarks._processes import ROOT
from benchmarks._results import Result

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
BLOCK = re.compile(r"(?P<begin><!-- figures: (?P<name>\w+) -->\n).*?(?P<end><!-- end of figures -->)", re.DOTALL)


def filled(page: str, results: Path) -> str:
    """The page with every block replaced whose result is there."""

    def block(match: re.Match[str]) -> str:
        path = results / f"{match['name']}.json"
        if not path.exists():
            return match[0]
        return f"{match['begin']}\n{Result.read(path).markdown()}\n\n{match['end']}"

    return BLOCK.sub(block, page)


def main() -> None:
    """Fill the page in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the JSON files are")
    arguments = parser.parse_args()
    PAGE.write_text(filled(PAGE.read_text("utf-8"), arguments.results), "utf-8")


if __name__ == "__main__":
    main()
