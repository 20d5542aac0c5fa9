"""The command line: `python -m tools.demo_model corpus|train|export|evaluate|all`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from .reporting import report
from .threads import default_threads, limit_threads

DEFAULT_WORK = Path("build/demo-model")
DEFAULT_OUTPUT = Path("supervisor/models/demo/llamavisor-demo.gguf")
DEFAULT_TOKENS = 3_500_000
DEFAULT_CONVERSATIONS = 40_000
DEFAULT_THRESHOLD = 0.9
CASES_SEED_OFFSET = 1_000_003
"""Cases are drawn with a seed of their own, so that more conversations do not change the exam."""

DESCRIPTION = "Make the demo model: text from a grammar, training in numpy, export to GGUF, evaluation on the engine."
EPILOG = f"""Everything between the steps is kept in the work folder (default {DEFAULT_WORK}).
Progress is written as JSON lines. Exit codes: 0 done, 1 the evaluation is below its threshold, 2 bad arguments."""

STEPS = {
    "corpus": "write the conversations to train on and the held-out cases",
    "train": "train tokenizer and model",
    "export": "write the GGUF file",
    "evaluate": "ask the held-out cases of the real engine and print a table",
    "all": "all of these, one after the other",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("demo_model", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter)
    commands = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for step, summary in STEPS.items():
        _add_options(commands.add_parser(step, help=summary, description=summary))
    return parser


def _add_options(command: argparse.ArgumentParser) -> None:
    option = command.add_argument
    option("--work", type=Path, default=DEFAULT_WORK, metavar="FOLDER", help="kept between steps (%(default)s)")
    option("--output", type=Path, default=DEFAULT_OUTPUT, metavar="GGUF", help="the model file (%(default)s)")
    option("--seed", type=int, default=0, metavar="N", help="of corpus and training (%(default)s)")
    option("--conversations", type=_positive, default=DEFAULT_CONVERSATIONS, metavar="N", help="size (%(default)s)")
    option("--tokens", type=_positive, default=DEFAULT_TOKENS, metavar="N", help="training budget (%(default)s)")
    option("--threads", type=_positive, default=default_threads(), metavar="N", help="cores to use (%(default)s)")
    option("--threshold", type=_share, default=DEFAULT_THRESHOLD, metavar="SHARE", help="to pass (%(default)s)")
    option("--mistakes", action="store_true", help="print every wrong answer of the evaluation")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def run_corpus(options: argparse.Namespace) -> int:
    """Write `corpus.jsonl` and `cases.jsonl` into the work folder."""
    from .corpus import write_cases, write_corpus

    write_corpus(options.work / "corpus.jsonl", options.seed, options.conversations)
    write_cases(options.work / "cases.jsonl", options.seed + CASES_SEED_OFFSET)
    report("corpus written", folder=str(options.work))
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train on `corpus.jsonl`; write `model.npz` and `tokenizer.json`."""
    from .train import TrainingSettings, train

    settings = TrainingSettings(tokens=options.tokens, seed=options.seed)
    train(_made(options, "corpus"), options.work / "model.npz", options.work / "tokenizer.json", settings)
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Write the trained model as GGUF to the output path."""
    from .export import export
    from .model import Llama
    from .tokenizer import load_tokenizer

    export(Llama.load(_made(options, "train")), load_tokenizer(options.work / "tokenizer.json"), options.output)
    report("exported", file=str(options.output), bytes=options.output.stat().st_size)
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """Ask the held-out cases; return 1 when fewer than the threshold are right."""
    from .corpus import read_cases
    from .evaluate import evaluate, mistakes, share_right, table

    cases = read_cases(_made(options, "corpus").with_name("cases.jsonl"))
    verdicts = asyncio.run(evaluate(options.output, cases, options.threads))
    sys.stdout.write(table(verdicts) + "\n" + (mistakes(verdicts) + "\n" if options.mistakes else ""))
    passed = share_right(verdicts) >= options.threshold
    report("evaluated", right=round(share_right(verdicts), 4), threshold=options.threshold, passed=passed)
    return 0 if passed else 1


PRODUCTS = {"corpus": "corpus.jsonl", "train": "model.npz"}
RUNNERS = {"corpus": run_corpus, "train": run_train, "export": run_export, "evaluate": run_evaluate}


class MissingProductError(Exception):
    """A step needs what an earlier step makes."""


def _made(options: argparse.Namespace, step: str) -> Path:
    path: Path = options.work / PRODUCTS[step]
    if not path.exists():
        raise MissingProductError(f"{path} is not there: run `python -m tools.demo_model {step}` first")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step, or all; return the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    limit_threads(options.threads)
    for step in RUNNERS if options.step == "all" else (options.step,):
        try:
            code = RUNNERS[step](options)
        except MissingProductError as error:
            parser.error(str(error))
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
