"""What a benchmark found: samples, tables of them, and the circumstances; printed as Markdown, kept as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

NOTHING = "–"
OWN_PACKAGES = ("llamavisor", "aiohttp", "python-socketio", "python-engineio", "xllamacpp")


@dataclass(frozen=True, slots=True)
class Table:
    """One table of results. `rows` hold finished cells; `notes` say what a reader has to know to take them rightly."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table as Markdown, columns aligned so that it reads in a terminal too."""
        cells = [self.columns, *self.rows]
        widths = [max(len(row[number]) for row in cells) for number in range(len(self.columns))]
        lines = [_line(self.columns, widths), _line(["-" * width for width in widths], widths)]
        lines += [_line(row, widths) for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *lines, *(f"\n{note}" for note in self.notes)])


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one benchmark. `samples` are the raw figures by name (the unit is in the name)."""

    benchmark: str
    tables: tuple[Table, ...]
    samples: Mapping[str, Sequence[float]]
    quick: bool
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions(OWN_PACKAGES))
    measured_on: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d"))
    machine: str = field(default_factory=lambda: machine_class())

    def markdown(self) -> str:
        """Everything that belongs on a page: the circumstances, then the tables."""
        programs = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        run = " (a quick run: few rounds)" if self.quick else ""
        head = f"Measured on {self.measured_on}{run}; {self.machine}; {programs}."
        return "\n\n".join([head, *(table.markdown() for table in self.tables)])

    def write(self, folder: Path) -> None:
        """Keep it as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.benchmark}.json").write_text(
            json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8"
        )

    @classmethod
    def read(cls, path: Path) -> Result:
        """What `write` kept."""
        kept = json.loads(path.read_text("utf-8"))
        tables = tuple(
            Table(each["title"], tuple(each["columns"]), tuple(map(tuple, each["rows"])), tuple(each["notes"]))
            for each in kept.pop("tables")
        )
        return cls(tables=tables, **kept)


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those packages that are installed here."""
    found = {"Python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine_class() -> str:
    """What kind of machine this is, in words; no names."""
    memory_gib = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]} "
        f"{platform.machine()}, load average {load:.1f} at the end of the run"
    )


def spread(samples: Sequence[float], digits: int = 2) -> str:
    """`median (lower quartile–upper quartile)`."""
    if not samples:
        return NOTHING
    if len(samples) == 1:
        return f"{samples[0]:,.{digits}f}"
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return f"{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def median(samples: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(samples) if samples else float("nan")


def middle(samples: Sequence[float], digits: int = 2) -> str:
    """The median as a cell."""
    return f"{median(samples):,.{digits}f}" if samples else NOTHING


def ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """The median of `one` as a multiple of that of `other`."""
    if not one or not other or not median(other):
        return NOTHING
    quotient = median(one) / median(other)
    return f"{quotient:,.0f} ×" if quotient >= 10 else f"{quotient:.2f} ×"


def options(description: str | None) -> argparse.ArgumentParser:
    """The command line that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and short rounds: to see that it works, not to quote")
    parser.add_argument(
        "--json", type=Path, metavar="FOLDER", help="also keep the result there, for benchmarks._report"
    )
    return parser


def finish(result: Result, folder: Path | None) -> None:
    """Print a result, and keep it where asked."""
    print(result.markdown(), flush=True)
    if folder is not None:
        result.write(folder)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
