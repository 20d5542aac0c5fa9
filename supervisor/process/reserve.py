"""A descriptor kept back for the hour when there are none: without one a process can neither be seen nor be signalled."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
Result = TypeVar("Result")

_lock = threading.Lock()
_held: list[int] = []


def with_reserve(action: Callable[[], Result]) -> Result:
    """Do what needs a descriptor for a moment; when there is none, do it again with the one kept back.

    Raises what `action` raises: OSError too, when somebody else was quicker. `action` must be fit to be done twice.
    """
    try:
        result = action()
    except OSError as failure:
        if failure.errno not in OUT_OF_DESCRIPTORS:
            raise
        return _with_the_last_one(action)
    if not _held:
        _refill()
    return result


def _with_the_last_one(action: Callable[[], Result]) -> Result:
    with _lock:
        while _held:
            os.close(_held.pop())
        try:
            return action()
        finally:
            _take()


def _refill() -> None:
    with _lock:
        _take()


def _take() -> None:
    if not _held:
        with contextlib.suppress(OSError):
            _held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
