"""The documentation is true: what there is, is in it; what is in it, is there; links lead somewhere, snippets are valid."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import yaml
from packaging.requirements import Requirement

from supervisor.cli.app import PROGRAM, command
from supervisor.cli.reference import cli_reference
from supervisor.config import Settings, configuration_reference, validate_tree
from supervisor.process.machine import mermaid_diagram
from supervisor.process.states import Reason
from tests.fixtures.doc_tables import DOCS, cells
from web.live.server import EVENT_NAMES
from web.reference import http_reference

ROOT = DOCS.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
# Written by others, or later in the build.
MAY_BE_MISSING = {"docs/images/status.png", "docs/images/chat.png"}
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE_IN_SOURCE = re.compile(r'code(?:: str)?(?:, status)? = "([a-z_]+)"|\bcode="([a-z_]+)"')


class Snippet(NamedTuple):
    """A fenced block: where it stands, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(*languages: str) -> list[Snippet]:
    """Every fenced block in one of the languages."""
    return [found for page in PAGES for found in snippets_of(page) if found.language in languages]


def snippets_of(page: Path) -> Iterator[Snippet]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for block in _FENCE.finditer(text):
        lines = (line.removeprefix(block["indent"]) for line in block["text"].splitlines())
        yield Snippet(page, text[: block.start()].count("\n") + 1, block["language"], "\n".join(lines))


def read(page: str) -> str:
    """A page below docs/."""
    return (DOCS / page).read_text(encoding="utf-8")


def first_cells(page: str) -> set[str]:
    """Everything that stands in backticks in a first column of the page's tables."""
    rows = [cells(line) for line in read(page).splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


# Links and pages


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if str(path.relative_to(ROOT)) in MAY_BE_MISSING:
            continue
        assert path.exists(), f"{page.name}: {link} leads nowhere"
        assert not anchor or anchor in anchors(path), f"{page.name}: {link} names no heading of {path.name}"


def test_the_index_lists_every_page() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(read("index.md"))}
    missing = {page for page in PAGES if page.is_relative_to(DOCS)} - linked - {DOCS / "index.md"}
    assert not missing


def test_files_that_are_named_exist() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`((?:tests|benchmarks|deploy|supervisor|web|static)/[\w./-]+\.\w+)`", page.read_text("utf-8")
        ):
            assert (ROOT / name).exists() or name.startswith("web/static/") or "NAME" in name, f"{page.name}: {name}"


def test_nothing_is_left_to_be_done() -> None:
    for page in PAGES:
        assert not re.search(r"\b(TODO|FIXME|TBD|XXX|lorem)\b", page.read_text(encoding="utf-8")), page


# Generated pages


def test_the_route_reference_is_that_of_the_routes() -> None:
    assert read("reference/http.md") == http_reference(), "run: python -m web.reference"


def test_the_command_reference_is_that_of_the_commands() -> None:
    assert read("reference/cli.md") == cli_reference(), "run: python -m supervisor.cli.reference"


def test_the_configuration_reference_is_that_of_the_settings() -> None:
    assert read("reference/configuration.md") == configuration_reference(), "run: python -m supervisor.config.publish"


def test_the_state_diagram_is_that_of_the_machine() -> None:
    drawn = [found.text for found in snippets("mermaid") if found.text.startswith("stateDiagram")]
    assert drawn == [mermaid_diagram().rstrip("\n")]


# Everything there is, is documented


def test_every_event_is_documented() -> None:
    named = first_cells("reference/events.md") | set(re.findall(r"`(\w+)`", read("reference/events.md")))
    assert {*EVENT_NAMES, *EVENT_NAMES.values()} <= named


def test_every_event_that_a_client_may_send_is_documented() -> None:
    sent = set(re.findall(r'"(\w+)": self\._', (ROOT / "web/live/namespace.py").read_text(encoding="utf-8")))
    assert len(sent) > 5
    assert {*sent, "requestLlamaStatus"} <= first_cells("reference/events.md")


def test_every_metric_is_documented_and_no_other() -> None:
    source = (ROOT / "web/routes/metrics.py").read_text(encoding="utf-8")
    suffixes = {"Counter": "_total", "Gauge": "", "Info": "_info"}
    made = re.findall(r'(Counter|Gauge|Info)MetricFamily\(\s*"(\w+)"', source)
    names = {name + suffixes[kind] for kind, name in made}
    assert len(names) > 10
    documented = {name for name in first_cells("reference/metrics.md") if name.startswith("llamavisor_")}
    assert documented == names


@pytest.mark.parametrize("page", ["reference/errors.md", "howto/troubleshooting.md"])
def test_every_reason_is_documented(page: str) -> None:
    assert {reason.value for reason in Reason} <= first_cells(page)


def test_every_error_code_is_documented() -> None:
    sources = [path for folder in ("supervisor", "web") for path in (ROOT / folder).rglob("*.py")]
    found = [_CODE_IN_SOURCE.findall(path.read_text(encoding="utf-8")) for path in sources]
    codes = {one or other for matches in found for one, other in matches}
    assert len(codes) > 30
    assert codes <= first_cells("reference/errors.md") | set(re.findall(r"`(\w+)`", read("reference/errors.md")))


def test_every_python_package_has_its_licence_in_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {Requirement(text).name for text in project["dependencies"]}
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| Python package |")[2].splitlines()[2:]
    listed = [cells(line) for line in table if line.startswith("|")]
    assert {row[0] for row in listed} == wanted
    assert all(row[1] and row[2] for row in listed)


# Snippets


def as_settings(snippet: Snippet) -> dict[str, Any] | None:
    """The configuration in a snippet; None when it is something else."""
    readers: dict[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
    tree = readers[snippet.language](snippet.text)
    assert isinstance(tree, dict), snippet
    # Prometheus' rules have `groups` too: a list.
    is_ours = tree.keys() & Settings.model_fields.keys() and not isinstance(tree.get("groups"), list)
    return tree if is_ours else None


@pytest.mark.parametrize("snippet", snippets("json", "yaml", "toml"), ids=str)
def test_configurations_are_valid(snippet: Snippet) -> None:
    tree = as_settings(snippet)
    if tree is not None:
        tree.pop("$schema", None)
        validate_tree(tree)


def test_there_are_configurations_to_check() -> None:
    assert sum(as_settings(snippet) is not None for snippet in snippets("json", "yaml", "toml")) > 10


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `llamavisor …` of a shell snippet: where it stands, and its arguments."""
    for snippet in snippets("sh", "bash", "shell"):
        for line in snippet.text.splitlines():
            for program, *arguments in simple_commands(line):
                if Path(program).name == PROGRAM:
                    yield str(snippet), arguments


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of one line of shell, without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&"):
            words.append(word)
            continue
        if words:
            yield words
        # What follows a redirection is a file.
        words = ["a file"] if set(word) & set("<>") else []


def parser_of(arguments: list[str]) -> tuple[Any, list[str]]:
    """The parser of the innermost command that the arguments name, and what it is to parse. AssertionError when there is none."""
    current: Any = command()
    context = click.Context(current, info_name=PROGRAM)
    while hasattr(current, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        assert name in current.commands, f"no command {name}"
        current = current.commands[name]
        context = click.Context(current, info_name=name, parent=context)
    return current.make_parser(context), arguments


@pytest.mark.parametrize(("place", "arguments"), list(commands()))
def test_commands_are_those_of_the_program(place: str, arguments: list[str]) -> None:
    parser, rest = parser_of(arguments)
    parser.parse_args(list(rest))


def test_a_wrong_command_would_be_noticed() -> None:
    assert len(list(commands())) > 40
    with pytest.raises(AssertionError):
        parser_of(["stauts"])
    parser, rest = parser_of(["status", "--no-such-option"])
    with pytest.raises(Exception, match="No such option"):
        parser.parse_args(rest)


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_python_is_python(snippet: Snippet) -> None:
    ast.parse(snippet.text)
