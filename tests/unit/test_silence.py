"""The deadline on silence: it asks before it gives up, and it does not count the time in which nobody listened."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.gateway.silence import Silence

LIMIT_SECONDS = 0.03
LONG_SECONDS = 5 * LIMIT_SECONDS


class Engine:
    """Says whether it works, as often as it is asked."""

    def __init__(self, *answers: bool) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def still_working(self) -> bool:
        """The next of the answers; the last one for ever."""
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


async def test_an_answer_that_comes_is_passed_on() -> None:
    engine = Engine(False)
    assert await Silence(LIMIT_SECONDS, engine.still_working).until_answered(asyncio.sleep(0, "answer")) == "answer"
    assert engine.asked == 0


async def test_silence_without_work_is_given_up() -> None:
    silence = Silence(LIMIT_SECONDS, Engine(False).still_working)
    with pytest.raises(TimeoutError):
        await silence.until_answered(asyncio.sleep(60))
    assert silence.has_given_up


async def test_an_engine_that_works_is_waited_for() -> None:
    engine = Engine(True)
    answer = await Silence(LIMIT_SECONDS, engine.still_working).until_answered(asyncio.sleep(LONG_SECONDS, "late"))
    assert answer == "late"
    assert engine.asked


async def test_an_engine_that_stops_working_is_given_up() -> None:
    engine = Engine(True, True, False)
    with pytest.raises(TimeoutError):
        await Silence(LIMIT_SECONDS, engine.still_working).until_answered(asyncio.sleep(60))
    assert engine.asked == 3


async def test_a_stream_that_falls_silent_is_cut() -> None:
    cut = asyncio.Event()
    silence = Silence(LIMIT_SECONDS, Engine(False).still_working)
    silence.watch(cut.set)
    silence.listening()
    await asyncio.wait_for(cut.wait(), 20)
    assert silence.has_given_up


async def test_a_client_that_reads_slowly_is_no_silence_of_the_engine() -> None:
    engine = Engine(False)
    silence = Silence(LIMIT_SECONDS, engine.still_working)
    silence.watch(pytest.fail)
    for _ in range(3):
        silence.listening()
        silence.heard()
        await asyncio.sleep(LONG_SECONDS)
    silence.close()
    await asyncio.sleep(LONG_SECONDS)
    assert engine.asked == 0
    assert not silence.has_given_up


async def test_a_byte_that_comes_while_the_engine_is_asked_counts() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow_to_say() -> bool:
        asked.set()
        await answer.wait()
        return False

    silence = Silence(LIMIT_SECONDS, slow_to_say)
    silence.watch(pytest.fail)
    silence.listening()
    await asked.wait()
    silence.heard()
    answer.set()
    await asyncio.sleep(0)
    assert not silence.has_given_up
    silence.close()
