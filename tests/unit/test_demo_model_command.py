"""The command line of the demo model's maker: help, refusals, and the judgement of answers."""

import os
from pathlib import Path

import pytest

from tools.demo_model.__main__ import STEPS, build_parser, main
from tools.demo_model.corpus import Case
from tools.demo_model.evaluate import Verdict, mistakes, share_right, table
from tools.demo_model.threads import default_threads, limit_threads

EXACT = Case("sum", "exact", ({"role": "user", "content": "1 + 1"},), "1 plus 1 is 2.")
UNKNOWN = Case("unknown sum", "refusal", ({"role": "user", "content": "99 + 1"},), "Sorry, I cannot.")


def test_help_names_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args(["--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert all(step in printed for step in STEPS)
    assert "Exit codes" in printed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "STEP"),
        (["train", "--tokens", "0"], "'0' is not a whole number above 0"),
        (["train", "--threads", "many"], "'many' is not a whole number above 0"),
        (["evaluate", "--threshold", "2"], "'2' is not a share from 0 to 1"),
        (["evaluate", "--threshold", "x"], "'x' is not a share from 0 to 1"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args(arguments)
    assert left.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(("step", "missing"), [("train", "corpus"), ("export", "train"), ("evaluate", "corpus")])
def test_a_step_without_its_input_says_which_step_makes_it(
    step: str, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(SystemExit) as left:
        main([step, "--work", str(tmp_path), "--output", str(tmp_path / "model.gguf")])
    assert left.value.code == 2
    assert f"run `python -m tools.demo_model {missing}` first" in capsys.readouterr().err


def test_threads_are_limited_and_idle_ones_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = dict(os.environ)
    monkeypatch.setattr(os, "environ", environment)
    limit_threads(1)
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert default_threads() >= 1


def test_exact_answers_match_in_every_character_and_refusals_only_refuse() -> None:
    assert Verdict(EXACT, "1 plus 1 is 2.").right
    assert not Verdict(EXACT, "1 plus 1 is 2").right
    assert Verdict(UNKNOWN, "Sorry, I do not know that.").right
    assert not Verdict(UNKNOWN, "99 plus 1 is 10.").right


def test_the_table_counts_by_intent_and_mistakes_are_shown() -> None:
    verdicts = [Verdict(EXACT, "1 plus 1 is 2."), Verdict(EXACT, "1 plus 1 is 3."), Verdict(UNKNOWN, "Sorry, no.")]
    assert share_right(verdicts) == pytest.approx(2 / 3)
    assert "| sum | 1 of 2 |" in table(verdicts)
    assert "| **all** | **2 of 3 (66.7%)** |" in table(verdicts)
    assert mistakes(verdicts) == "sum: '1 + 1' → '1 plus 1 is 3.'"
