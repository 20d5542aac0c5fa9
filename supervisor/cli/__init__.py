"""The command `llamavisor`. Nothing heavy is imported until a command needs it: its help must come at once."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`sys.argv` when `arguments` is None); the exit code."""
    from supervisor.cli.app import run

    return run(arguments)
