"""Which instance a name means, and what is said when it cannot serve: as tables, without a process."""

from __future__ import annotations

import dataclasses

import pytest

from supervisor.config.settings import InstanceSettings
from supervisor.errors import MalformedRequestError, ModelNotFoundError, NotAvailableError
from supervisor.gateway.resolve import Candidate, check_ready, check_speaks_openai, choose, configured_id
from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import Cause, ExitStatus, Reason, State

NOW = 1_000_000.0
BIG = Candidate("big", frozenset({"qwen", "shared"}), State.READY)
SMALL = Candidate("small", frozenset({"demo", "shared"}), State.READY)


@pytest.mark.parametrize(
    ("model", "candidates", "names"),
    [
        ("small", [BIG, SMALL], ["small"]),
        ("qwen", [BIG, SMALL], ["big"]),
        ("shared", [BIG, SMALL], ["big", "small"]),
        (
            "big",
            [Candidate("other", frozenset({"big"}), State.READY), dataclasses.replace(BIG, state=State.ERROR)],
            ["big"],
        ),
    ],
)
def test_a_name_means_an_instance_else_all_that_serve_it(
    model: str, candidates: list[Candidate], names: list[str]
) -> None:
    assert choose(model, candidates) == names


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("smal", "Did you mean `small`?"),
        ("Qwen_", "Did you mean `qwen`?"),
        ("gpt-5", "Known here: `big`, `qwen`, `shared`, `small`, `demo`."),
    ],
)
def test_an_unknown_name_is_told_what_is_known(model: str, hint: str) -> None:
    with pytest.raises(ModelNotFoundError) as refusal:
        choose(model, [BIG, SMALL])
    assert refusal.value.remedy == hint
    assert refusal.value.param == "model"
    assert repr(model) in refusal.value.message


def test_a_monstrous_name_is_not_repeated_at_length() -> None:
    with pytest.raises(ModelNotFoundError) as refusal:
        choose("x" * 1_000_000, [BIG])
    assert len(str(refusal.value)) < 1_000


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model": "/models/qwen-7b.Q8_0.gguf"}, "qwen-7b.Q8_0"),
        ({"model": "demo"}, "demo"),
        ({"engine": {"kind": "vllm"}, "model": "Qwen/Qwen3-8B"}, "Qwen/Qwen3-8B"),
        ({"engine": {"kind": "vllm", "served_model_name": "qwen"}, "model": "Qwen/Qwen3-8B"}, "qwen"),
        ({"url": "http://127.0.0.1:9"}, None),
    ],
)
def test_the_models_name_is_known_before_the_engine_runs(settings: dict[str, object], name: str | None) -> None:
    assert configured_id(InstanceSettings.model_validate(settings)) == name


def test_an_engine_without_the_routes_is_refused_by_name() -> None:
    silent = {"engine": {"kind": "command", "argv": ["serve", "${PORT}"], "openai": False}}
    with pytest.raises(MalformedRequestError) as refusal:
        check_speaks_openai("tts", InstanceSettings.model_validate(silent))
    assert refusal.value.code == "engine_without_openai"
    assert "tts" in refusal.value.message
    speaking = {"engine": {"kind": "command", "argv": ["serve", "${PORT}"]}}
    check_speaks_openai("own", InstanceSettings.model_validate(speaking))


def snapshot(state: State, **more: object) -> InstanceSnapshot:
    """An instance in a state."""
    values: dict[str, object] = {field.name: None for field in dataclasses.fields(InstanceSnapshot)}
    values |= {"name": "one", "engine": "embedded", "state": state, "models": (), "retries": 1, "max_retries": 5}
    values |= {"uptime_seconds": 1.0, "adopted": False, "requests_active": 0, **more}
    return InstanceSnapshot(**values)  # type: ignore[arg-type]


KILLED = Cause(Reason.SIGNAL, "killed by signal 9 (SIGKILL)", exit=ExitStatus(signal=9))


@pytest.mark.parametrize(
    ("shot", "code", "retry_after"),
    [
        (snapshot(State.STARTING, pid=7), "starting", 1.0),
        (snapshot(State.STARTING, pid=7, uptime_seconds=60.0), "starting", 5.0),
        (snapshot(State.CRASHED, cause=KILLED, next_retry_at_ms=int((NOW + 8) * 1000)), "signal", 8.0),
        (snapshot(State.CRASHED, cause=KILLED, next_retry_at_ms=int((NOW - 1) * 1000)), "signal", 1.0),
        (snapshot(State.STOPPING), "stopping", 2.0),
        (snapshot(State.INITIAL), "initial", None),
        (snapshot(State.ERROR, cause=Cause(Reason.BAD_MODEL, "bad", permanent=True)), "bad_model", None),
    ],
)
def test_what_is_not_ready_says_why_and_when_to_come_back(
    shot: InstanceSnapshot, code: str, retry_after: float | None
) -> None:
    with pytest.raises(NotAvailableError) as refusal:
        check_ready(shot, NOW)
    assert refusal.value.status == 503
    assert refusal.value.code == code
    assert refusal.value.retry_after_seconds == retry_after
    assert refusal.value.message == shot.explanation()


def test_what_is_ready_is_let_through() -> None:
    check_ready(snapshot(State.READY, pid=7), NOW)
