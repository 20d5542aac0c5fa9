"""Why a process died: from its exit status and its last words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from supervisor.launch import FailurePattern
from supervisor.process.states import Cause, ExitStatus, Reason

MESSAGE_CHARACTERS_MAX = 300
KILL_SIGNAL = 9
# What a shell, or our own server of a pair, exits with when that has killed its child.
KILLED_EXIT = 128 + KILL_SIGNAL

# What any program says; an engine's own patterns come first. The order is that of certainty: a failed load is what a lack of memory looks like.
GENERAL_PATTERNS = (
    FailurePattern(
        r"(?i)(?:bind|listen)\w*\b.*\b(?:in use|failed)|address already in use|EADDRINUSE|couldn't bind",
        Reason.PORT_IN_USE,
        remedy="Stop what listens there, or configure another port.",
    ),
    FailurePattern(
        r"(?i)out of memory|bad_alloc|failed to allocate|cannot allocate memory|MemoryError|cudaErrorMemoryAllocation|OutOfMemoryError",
        Reason.OOM,
        remedy="Use a smaller model, context or number of slots, fewer layers on the GPU, or free memory.",
    ),
    FailurePattern(
        r"(?i)\bCUDA error\b|GPU (?:has fallen off|is lost)|device-side assert|NCCL error|\bXid\b|hipError\w+|ROCm error|VK_ERROR_DEVICE_LOST",
        Reason.GPU_LOST,
        remedy="See the driver's messages (`dmesg`, `nvidia-smi`); a lost GPU often needs a reset.",
    ),
    FailurePattern(
        r"(?i)failed to (?:load|open) (?:the )?model|error loading model|invalid magic|unknown model architecture|tensor .* not found",
        Reason.BAD_MODEL,
        permanent=True,
        remedy="Check that the model file is complete and of a kind that this engine knows.",
    ),
    FailurePattern(
        r"(?i)(?:unknown|unrecogni[sz]ed|invalid|unexpected) (?:command.line )?(?:argument|option|flag)|error while handling argument",
        Reason.BAD_FLAGS,
        permanent=True,
        remedy="Correct `engine.extra_args`: this build of the engine does not know that argument, or not with that value.",
    ),
    FailurePattern(
        r"^(?:setpriv|env): .*(?:No such file|not found)",
        Reason.MISSING_BINARY,
        permanent=True,
        remedy="Correct `engine.binary`, or install what it needs.",
    ),
    FailurePattern(
        r"^(?:setpriv|env): .*(?:Exec format error|Permission denied)",
        Reason.NOT_EXECUTABLE,
        permanent=True,
        remedy="Install the build of the engine for this machine, and make it executable.",
    ),
    FailurePattern(
        r"error while loading shared libraries|Library not loaded|symbol lookup error",
        Reason.MISSING_BINARY,
        permanent=True,
        remedy="A library that the engine needs is missing or of another version: install it.",
    ),
)


def classify_exit(
    exit: ExitStatus,
    tail: tuple[str, ...],
    patterns: Iterable[FailurePattern],
    *,
    oom_kill: bool,
    was_ready: bool,
) -> Cause:
    """The cause of an exit that nobody asked for; exit 0 is one too.

    `tail`: the last lines of output, oldest first; `patterns`: the engine's own, tried before the general ones, and the `last` of them after those;
    `oom_kill`: the kernel has killed in our control group meanwhile. A fault of the model or the flags is permanent only before the server was ready:
    afterwards they have been proven good.
    """
    ending = str(exit) if was_ready else f"{exit!s} while loading"
    if oom_kill and (exit.signal == KILL_SIGNAL or exit.code == KILLED_EXIT):
        remedy = "The kernel killed it for want of memory: use a smaller model or context, or give the machine more."
        return Cause(Reason.OOM, f"{ending}: out of memory", remedy=remedy, exit=exit, output_tail=tail)
    match = _first_match(tail, sorted((*patterns, *GENERAL_PATTERNS), key=lambda pattern: pattern.last))
    if match is not None:
        pattern, line = match
        return Cause(
            Reason(pattern.reason),
            f"{ending}: {_shortened(line)}",
            remedy=pattern.remedy,
            permanent=pattern.permanent and not was_ready,
            exit=exit,
            output_tail=tail,
        )
    return Cause(_reason_of(exit), ending, exit=exit, output_tail=tail)


def _first_match(tail: tuple[str, ...], patterns: Iterable[FailurePattern]) -> tuple[FailurePattern, str] | None:
    """The first pattern that any line matches; of its lines the newest."""
    for pattern in patterns:
        expression = re.compile(pattern.pattern)
        for line in reversed(tail):
            if expression.search(line):
                return pattern, line
    return None


def _reason_of(exit: ExitStatus) -> Reason:
    if exit.signal is not None:
        return Reason.SIGNAL
    return Reason.EXITED_UNKNOWN if exit.code is None else Reason.EXIT_CODE


def _shortened(line: str) -> str:
    text = line.strip()
    return text if len(text) <= MESSAGE_CHARACTERS_MAX else f"{text[:MESSAGE_CHARACTERS_MAX]}…"
