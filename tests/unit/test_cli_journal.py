"""The supervisor's own log tells each change of state once, whatever else is published."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from supervisor.cli.journal import Journal
from supervisor.events import EventLog
from supervisor.testing import FakeClock


class Told:
    """An event log with a journal, and the lines that the journal wrote."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="supervisor.cli.journal")
        self._caplog = caplog
        self.events = EventLog(FakeClock())
        self.journal = Journal(self.events)

    def publish(self, status: str, headline: str | None = None, **more: Any) -> None:
        """One `llama_status` of the instance `one`."""
        data = {
            "instance": "one",
            "status": status,
            "headline": headline or status,
            "retries": 0,
            "pid": None,
            "remedy": None,
        }
        self.events.publish("llama_status", {**data, **more}, instance="one")

    def lines(self) -> list[tuple[str, str]]:
        """Level and text of what has been written up to now."""
        self.journal.catch_up()
        return [(record.levelname, record.getMessage()) for record in self._caplog.records]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog)


def test_a_crash_is_told_even_when_it_is_long_over(told: Told) -> None:
    told.publish("ready", pid=7)
    told.publish("crashed", "crashed — killed by signal 9 — retry 1/5", retries=1)
    told.publish("starting", "starting — retry 1/5", retries=1)
    told.publish("ready", pid=8, retries=1)
    assert told.lines() == [
        ("INFO", "one: ready (pid 7)"),
        ("WARNING", "one: crashed — killed by signal 9 — retry 1/5"),
        ("INFO", "one: starting — retry 1/5"),
        ("INFO", "one: ready (pid 8)"),
    ]


def test_progress_is_no_news(told: Told) -> None:
    told.publish("starting")
    told.publish("starting", "starting — loading, 40%", progress=0.4)
    assert told.lines() == told.lines() == [("INFO", "one: starting")]


def test_what_was_given_up_is_an_error_with_its_remedy(told: Told) -> None:
    told.publish("error", "error — no such model", remedy="Check `model`.")
    assert told.lines() == [("ERROR", "one: error — no such model. Check `model`.")]


def test_an_instance_that_is_gone_and_comes_back_is_told_again(told: Told) -> None:
    told.publish("starting")
    told.events.publish("instance_removed", {"instance": "one"}, instance="one")
    told.publish("starting")
    assert told.lines() == [("INFO", "one: starting"), ("INFO", "one: removed"), ("INFO", "one: starting")]


def test_only_a_return_to_initial_is_told(told: Told) -> None:
    told.publish("initial")
    told.publish("stopping")
    told.publish("initial")
    assert told.lines() == [("INFO", "one: stopping"), ("INFO", "one: initial")]


def test_words_of_an_engine_cannot_look_like_a_line_of_ours(told: Told) -> None:
    told.publish("error", "error — \x1b[2Jbad\n12:00:00 INFO one: ready")
    ((_, line),) = told.lines()
    assert line.isprintable()
