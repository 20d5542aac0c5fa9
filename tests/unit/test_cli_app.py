"""The command line as a whole: help, versions, misspelt words, the reference page, what its start loads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli import main
from supervisor.cli.app import command
from supervisor.cli.outcome import EXIT_CODES_TEXT
from supervisor.cli.reference import cli_reference
from tests.fixtures.doc_tables import says

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("aiohttp", "asyncio", "pydantic", "rich", "supervisor.core", "yaml")


def all_commands(group: Any = None, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command."""
    found: list[tuple[str, ...]] = []
    for name, member in (group or command()).commands.items():
        found.append((*path, name))
        if hasattr(member, "commands"):
            found += all_commands(member, (*path, name))
    return found


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_reference(), "run `python -m supervisor.cli.reference`"


@pytest.mark.parametrize("words", [(), *all_commands()], ids=" ".join)
def test_help_teaches(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Examples:" in text
    assert EXIT_CODES_TEXT in text
    assert "Usage: llamavisor" in text


def test_every_option_and_argument_is_explained() -> None:
    def silent(member: Any, name: str) -> list[str]:
        own = [f"{name} {param.name}" for param in member.params if not param.help]
        below = getattr(member, "commands", {})
        return own + [line for word, inner in below.items() for line in silent(inner, f"{name} {word}")]

    assert silent(command(), "llamavisor") == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("llamavisor 0.")


@pytest.mark.parametrize(("word", "meant"), [("statsu", "status"), ("servr", "serve"), ("chta", "chat")])
def test_a_misspelt_command_gets_a_suggestion(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err == f"error: `llamavisor` has no command `{word}`. Did you mean `{meant}`?\n"


MISUSES = [
    ("status --jsno", "`llamavisor status` has no option `--jsno`. Did you mean `--json`?"),
    ("status -x", "`llamavisor status` has no option `-x`. {help}"),
    ("start", "`llamavisor start` needs `NAME`. {help}"),
    ("budgets set shop", "`llamavisor budgets set` needs `--period`. {help}"),
    ("stop one two three", "`llamavisor stop` takes no more arguments, and got `two three`. {help}"),
    ("logs -n many", "`--lines` must be a valid integer. {help}"),
    ("logs --lines", "Option `--lines` requires an argument. Its `--help` says how it is used."),
    ("completion tcsh", "`SHELL` is wrong: `tcsh` is not one of `bash`, `zsh`, `fish`. {help}"),
    ("chat --temperature 9 x", "`--temperature` must be less than or equal to 2. {help}"),
    ("config chekc", "`llamavisor config` has no command `chekc`. Did you mean `check`?"),
    ("config nothing-like-it", "`llamavisor config` has no command `nothing-like-it`. {help}"),
]


def help_of(line: str) -> str:
    """What helps against wrong usage, where no word is near."""
    words = line.split()
    group = words[:1] if words[0] == "config" else words[:2] if words[0] == "budgets" else words[:1]
    return f"`llamavisor {' '.join(group)} --help` says how it is used."


@pytest.mark.parametrize(("line", "sentence"), MISUSES, ids=[line for line, _ in MISUSES])
def test_wrong_usage_is_told_in_a_sentence_with_what_helps(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says(f"error: {sentence.format(help=help_of(line))}", err), err


@pytest.mark.parametrize(
    ("line", "message", "param"),
    [
        ("status --json --jsno", "`llamavisor status` has no option `--jsno`. Did you mean `--json`?", "--jsno"),
        ("start --json", "`llamavisor start` needs `NAME`. `llamavisor start --help` says how it is used.", "NAME"),
        ("statsu --json", "`llamavisor` has no command `statsu`. Did you mean `status`?", None),
        ("budgets set p --period day --json", "One of --money and --tokens must be given.", "money"),
    ],
)
def test_an_error_is_json_where_json_is_asked_for(
    line: str, message: str, param: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, json.loads(err)) == ("", {"error": {
        "message": message, "type": "invalid_request_error", "param": param, "code": "usage",
    }})  # fmt: skip


def test_json_behind_two_dashes_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "one", "--", "--json"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_group_without_a_command_gives_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["config"]):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert "Usage: llamavisor" in out + err
        assert "error:" not in out + err


def test_the_help_loads_nothing_heavy() -> None:
    code = f"import sys, supervisor.cli.app as a; a.command(); print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_module_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "supervisor", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: llamavisor" in done.stdout


def test_no_colours_into_a_pipe_or_with_no_color(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "config", "show"], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "completion", shell], capture_output=True, text=True, check=True
    )
    assert "_LLAMAVISOR_COMPLETE" in done.stdout
    assert "Traceback" not in done.stderr


def complete(words: str, folder: Path) -> list[str]:
    """What a shell is offered for the last of `words`."""
    environment = {
        **os.environ,
        "_LLAMAVISOR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    program = [sys.executable, "-m", "supervisor"]
    done = subprocess.run(
        program, capture_output=True, text=True, env={**environment, "PYTHONPATH": str(ROOT)}, cwd=folder
    )
    return done.stdout.split()


def test_commands_options_and_instances_are_completed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"instances": {"chat": {"model": "demo"}, "other": {"model": "demo"}}}')
    assert {"start", "status", "stop"} <= set(complete("llamavisor st", tmp_path))
    assert complete("llamavisor start ch", tmp_path) == ["chat"]
    assert "--follow" in complete("llamavisor logs --fo", tmp_path)


def test_completion_of_instances_survives_a_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert complete("llamavisor start ch", tmp_path) == []
