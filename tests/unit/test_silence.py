"""The deadline on silence: it asks before it gives up, and it does not count the time in which nobody listened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from supervisor.gateway.silence import Watchman

LIMIT_SECONDS = 0.03
LONG_SECONDS = 5 * LIMIT_SECONDS
GENEROUS_SECONDS = 20


class Waiting:
    """Waits for an engine that says whether it works, as often as it is asked: the next of the answers; the last one for ever."""

    def __init__(self, *answers: bool) -> None:
        self.listening_since: float | None = asyncio.get_running_loop().time()
        self.asked = 0
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.gave_up = asyncio.Event()
        self._answers = list(answers)

    async def still_working(self) -> bool:
        """See `Listener`."""
        self.asked += 1
        self.is_asked.set()
        await self.may_answer.wait()
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def give_up(self) -> None:
        """See `Listener`."""
        self.gave_up.set()

    def hear(self) -> None:
        """A byte."""
        self.listening_since = asyncio.get_running_loop().time()


@pytest_asyncio.fixture
async def watchman() -> AsyncIterator[Watchman]:
    """Somebody who watches."""
    watchman = Watchman(LIMIT_SECONDS)
    yield watchman
    watchman.close()


async def test_silence_without_work_is_given_up(watchman: Watchman) -> None:
    waiting = Waiting(False)
    watchman.watch(waiting)
    await asyncio.wait_for(waiting.gave_up.wait(), GENEROUS_SECONDS)


async def test_an_engine_that_works_is_waited_for(watchman: Watchman) -> None:
    waiting = Waiting(True)
    watchman.watch(waiting)
    await asyncio.sleep(LONG_SECONDS)
    assert waiting.asked
    assert not waiting.gave_up.is_set()


async def test_an_engine_that_stops_working_is_given_up(watchman: Watchman) -> None:
    waiting = Waiting(True, True, False)
    watchman.watch(waiting)
    await asyncio.wait_for(waiting.gave_up.wait(), GENEROUS_SECONDS)
    assert waiting.asked == 3


async def test_one_that_is_silent_does_not_wait_for_one_that_speaks(watchman: Watchman) -> None:
    silent, speaking = Waiting(False), Waiting(False)
    watchman.watch(speaking)
    watchman.watch(silent)
    while not silent.gave_up.is_set():
        speaking.hear()
        await asyncio.sleep(0)
    assert speaking.asked == 0


async def test_a_client_that_reads_slowly_is_no_silence_of_the_engine(watchman: Watchman) -> None:
    waiting = Waiting(False)
    waiting.listening_since = None
    watchman.watch(waiting)
    await asyncio.sleep(LONG_SECONDS)
    assert waiting.asked == 0


async def test_a_byte_that_comes_while_the_engine_is_asked_counts(watchman: Watchman) -> None:
    waiting = Waiting(False)
    waiting.may_answer.clear()
    watchman.watch(waiting)
    await asyncio.wait_for(waiting.is_asked.wait(), GENEROUS_SECONDS)
    await asyncio.sleep(0)
    waiting.hear()
    waiting.may_answer.set()
    await asyncio.sleep(0)
    assert not waiting.gave_up.is_set()


async def test_who_has_left_is_not_told(watchman: Watchman) -> None:
    waiting = Waiting(False)
    waiting.may_answer.clear()
    watchman.watch(waiting)
    await asyncio.wait_for(waiting.is_asked.wait(), GENEROUS_SECONDS)
    watchman.forget(waiting)
    waiting.may_answer.set()
    await asyncio.sleep(LONG_SECONDS)
    assert not waiting.gave_up.is_set()
