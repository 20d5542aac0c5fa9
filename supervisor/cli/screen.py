"""Answers on a terminal: Markdown, block by block as each is complete, with the unfinished one live below."""

from __future__ import annotations

import re
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from supervisor.cli.output import printable

REDRAWS_A_SECOND = 12
ROWS_KEPT_FREE = 2
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class BlockSplitter:
    """Cuts growing Markdown at blank lines outside of fenced code. Pure."""

    def __init__(self) -> None:
        self._block = ""
        self._line = ""
        self._fence: str | None = None

    @property
    def tail(self) -> str:
        """What has come of the block that is not complete."""
        return self._block + self._line

    def feed(self, text: str) -> list[str]:
        """The blocks that `text` completes."""
        *lines, self._line = (self._line + text).split("\n")
        blocks = []
        for line in lines:
            self._note_fence(line)
            if line.strip() or self._fence is not None:
                self._block += line + "\n"
            elif self._block:
                blocks.append(self._block)
                self._block = ""
        return blocks

    def _note_fence(self, line: str) -> None:
        found = _FENCE.match(line)
        if found is None:
            return
        if self._fence is None:
            self._fence = found[1]
        elif found[1].startswith(self._fence) and not line.strip().strip(found[1][0]):
            self._fence = None


class LastRows:
    """Renders text as Markdown, and of that only as many of the last rows as the screen has: what is new must be seen."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See `rich.protocol`."""
        rows = console.render_lines(markdown(self._text), options, pad=False)
        for row in rows[-max(1, console.height - ROWS_KEPT_FREE) :]:
            yield from row
            yield Segment.line()


class AnswerScreen:
    """A context manager that shows one answer as it grows. Blocks that are complete scroll away and are never drawn again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._splitter = BlockSplitter()
        self._live = Live(
            Text("…", "dim"),
            console=console,
            transient=True,
            refresh_per_second=REDRAWS_A_SECOND,
            vertical_overflow="crop",
        )

    def __enter__(self) -> AnswerScreen:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tail = self._splitter.tail
        self._live.__exit__(kind, error, traceback)
        if tail.strip():
            self._print(tail)

    def wait(self, words: str) -> None:
        """Show what is waited for, in place of what was said of it before."""
        self._live.update(Text(f"… {printable(words)}", "dim"))

    def add(self, text: str) -> None:
        """Show `text` after what is there."""
        for block in self._splitter.feed(text):
            self._print(block)
        self._live.update(LastRows(self._splitter.tail))

    def _print(self, block: str) -> None:
        self._console.print(markdown(block))
        self._console.print()


def markdown(text: str) -> Markdown:
    """`text` of a model, rendered safely: no control characters, and links with their true address beside them."""
    return Markdown(printable(text), hyperlinks=False)
