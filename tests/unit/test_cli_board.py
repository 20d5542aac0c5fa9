"""The table of `status`, from what the server tells."""

from typing import Any

import pytest
from rich.console import Console

from supervisor.cli.board import Board, why
from supervisor.cli.steering import Judge, NotAchievedError, Wish

NOW = 1_763_650_000.0
STARTED = "2025-11-20T14:46:20.000Z"


def instance(name: str = "chat", status: str = "ready", **more: Any) -> dict[str, Any]:
    """The wire shape of an instance, as far as the table reads it."""
    return {
        "instance": name,
        "status": status,
        "models": [{"id": "m", "name": "tiny"}],
        "pid": 42,
        "startedAt": STARTED,
        "retries": 0,
        "maxRetries": 5,
        "nextRetryAt": None,
        "lastError": None,
        "lastCrash": None,
        "progress": None,
        "adopted": False,
        "explanation": f"{name} is {status}.",
        "headline": status,
        **more,
    }


def board(*instances: dict[str, Any]) -> Board:
    """A board whose server has the same clock as we."""
    return Board({"instances": list(instances), "epoch": "e", "seq": 3, "timestamp": NOW * 1_000}, NOW)


def shown(board: Board, now: float = NOW) -> str:
    """What a wide terminal without colours shows."""
    console = Console(width=160, no_color=True)
    with console.capture() as captured:
        console.print(board.table(now))
    return captured.get()


def test_a_row_has_state_model_process_and_time() -> None:
    line = shown(board(instance())).splitlines()[1]
    assert line.split() == ["chat", "ready", "tiny", "42", "20", "s", "0/5"]


def test_the_clock_of_another_machine_is_taken_into_account() -> None:
    fast = Board({"instances": [instance()], "epoch": "e", "seq": 3, "timestamp": (NOW + 3_600) * 1_000}, NOW)
    assert fast.skew_seconds == pytest.approx(3_600)
    assert "1 h 00 min" in shown(fast)


def test_events_change_the_table() -> None:
    shows = board(instance(), instance("other"))
    assert shows.cursor == "e:3"
    shows.take(
        "llama_status",
        instance(status="crashed", lastError="killed by signal 9", nextRetryAt=(NOW + 2) * 1_000, retries=1),
    )
    shows.take("instance_removed", {"instance": "other"})
    shows.take("something_new", {})
    text = shown(shows)
    assert "killed by signal 9; next try in 2 s" in text
    assert "1/5" in text
    assert "other" not in text


def test_a_snapshot_drops_what_is_configured_no_more() -> None:
    shows = board(instance(), instance("old"))
    shows.take("snapshot", {"instances": ["chat"], "default": "chat"})
    shows.take("llama_status", instance("new"))
    text = shown(shows)
    assert "old" not in text
    assert text.index("chat") < text.index("new")


def test_a_shutdown_is_said_beneath() -> None:
    shows = board()
    shows.take("shutdown", {"message": "The supervisor is shutting down."})
    text = shown(shows)
    assert "no instance is configured" in text
    assert "shutting down" in text


@pytest.mark.parametrize(
    ("state", "more", "words"),
    [
        ("ready", {"adopted": True}, "adopted"),
        ("ready", {}, ""),
        ("starting", {"progress": 0.4}, "loading, 40%"),
        ("starting", {"retries": 1, "lastCrash": "killed by signal 9"}, "loading (after: killed by signal 9)"),
        ("crashed", {"lastError": "exited with code 1"}, "exited with code 1"),
        ("error", {}, "chat is error."),
    ],
)
def test_why(state: str, more: dict[str, Any], words: str) -> None:
    assert why(instance(status=state, **more), NOW) == words


def test_text_of_others_cannot_move_the_cursor() -> None:
    nasty = instance(models=[{"id": "m", "name": "\x1b[2Jx"}], status="error", explanation="\x1b]0;title\x07")
    assert "\x1b" not in shown(board(nasty))


def judged(wish: Wish, *states: str) -> list[bool]:
    """What the judge says to each state in turn."""
    judge = Judge(wish)
    return [judge.fulfilled(instance(status=state)) for state in states]


def test_a_start_is_waited_for_through_its_retries() -> None:
    assert judged(Wish("start", "chat"), "starting", "crashed", "starting", "ready") == [False, False, False, True]


def test_a_restart_passes_through_the_stop() -> None:
    assert judged(Wish("restart", "chat"), "stopping", "initial", "starting", "ready") == [False, False, False, True]


def test_a_stop_ends_at_initial() -> None:
    assert judged(Wish("stop", "chat"), "stopping", "initial") == [False, True]


@pytest.mark.parametrize(
    ("wish", "states"),
    [
        (Wish("start", "chat"), ("starting", "error")),
        (Wish("start", "chat"), ("starting", "stopping")),
        (Wish("start", "chat"), ("initial",)),
        (Wish("restart", "chat"), ("stopping", "initial", "starting", "initial")),
        (Wish("stop", "chat"), ("stopping", "error")),
    ],
)
def test_a_goal_out_of_reach_is_said_with_the_reason(wish: Wish, states: tuple[str, ...]) -> None:
    with pytest.raises(NotAchievedError, match=f"chat is {states[-1]}"):
        judged(wish, *states)
