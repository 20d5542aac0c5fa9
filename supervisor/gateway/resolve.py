"""Which instance a model's name means, and whether it can serve now. Pure: decisions over what is known of the instances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from supervisor.config.engine_settings import CommandEngine, VllmEngine
from supervisor.config.settings import InstanceSettings
from supervisor.config.suggestions import remedy_for
from supervisor.engines.base import model_id_of
from supervisor.errors import MalformedRequestError, ModelNotFoundError, NotAvailableError
from supervisor.process.snapshot import MILLISECONDS, InstanceSnapshot
from supervisor.process.states import State

RETRY_AFTER_STOP_SECONDS = 2.0
RETRY_SOON_SECONDS = 1.0
RETRY_LATER_SECONDS = 5.0
# A small model is there within this time; who waits longer may as well ask less often.
SOON_UPTIME_SECONDS = 10.0
READIEST_FIRST = (State.READY, State.STARTING, State.CRASHED, State.STOPPING, State.INITIAL, State.ERROR)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that a name may mean: `ids` are the models that it serves, or served or is configured to serve."""

    name: str
    ids: frozenset[str]
    state: State
    active: int = 0


def choose(model: str, candidates: Sequence[Candidate]) -> str:
    """The name of the instance that `model` means: the one of that name, else of those that serve it the readiest, then the least busy.

    `ModelNotFoundError` with the nearest name when there is none.
    """
    if any(candidate.name == model for candidate in candidates):
        return model
    serving = [candidate for candidate in candidates if model in candidate.ids]
    if serving:
        return min(serving, key=lambda candidate: (READIEST_FIRST.index(candidate.state), candidate.active)).name
    raise not_found(model, candidates)


def not_found(model: str, candidates: Iterable[Candidate]) -> ModelNotFoundError:
    """The refusal of a name that means nothing here."""
    known: dict[str, None] = {}
    for candidate in candidates:
        known[candidate.name] = None
        # The model of an instance that cannot run is no help to anybody.
        known |= dict.fromkeys(sorted(candidate.ids) if candidate.state is not State.ERROR else ())
    hint = remedy_for(model, known) if known else "no instance is configured"
    remedy = hint[:1].upper() + hint[1:] + ("" if hint.endswith("?") else ".")
    return ModelNotFoundError(f"There is no model named {model[:200]!r}.", param="model", remedy=remedy)


def configured_id(settings: InstanceSettings) -> str | None:
    """The model's name in the engine's API as far as the settings tell; known also while the instance does not run."""
    if isinstance(settings.engine, VllmEngine):
        return settings.engine.served_model_name or settings.model
    return model_id_of(settings, settings.model) if settings.model is not None else None


def speaks_openai(settings: InstanceSettings) -> bool:
    """Whether the engine has the OpenAI routes."""
    return not isinstance(settings.engine, CommandEngine) or settings.engine.openai


def check_speaks_openai(name: str, settings: InstanceSettings) -> None:
    """Raise MalformedRequestError for an instance that has no OpenAI routes."""
    if not speaks_openai(settings):
        raise MalformedRequestError(
            f"The engine of {name} does not speak the OpenAI API.",
            code="engine_without_openai",
            param="model",
            remedy="Name another model, or set `engine.openai` of the instance if it does.",
        )


def check_ready(snapshot: InstanceSnapshot, now_wall: float) -> None:
    """Raise `why_not_ready` unless the instance is ready."""
    if snapshot.state is not State.READY:
        raise why_not_ready(snapshot, now_wall)


def why_not_ready(snapshot: InstanceSnapshot, now_wall: float) -> NotAvailableError:
    """What is said of an instance that is not ready: the reason as the code, a sentence, and when to come back, if ever by itself."""
    failed = snapshot.state in (State.CRASHED, State.ERROR) and snapshot.cause is not None
    return NotAvailableError(
        snapshot.explanation(),
        code=snapshot.cause.reason.value if failed and snapshot.cause is not None else snapshot.state.value,
        param="model",
        retry_after_seconds=retry_after_seconds(snapshot, now_wall),
        details={"instance": snapshot.name, "state": snapshot.state.value},
    )


def retry_after_seconds(snapshot: InstanceSnapshot, now_wall: float) -> float | None:
    """When the instance may be ready again; None when it stays as it is until somebody acts."""
    if snapshot.state is State.STARTING:
        return RETRY_SOON_SECONDS if snapshot.uptime_seconds < SOON_UPTIME_SECONDS else RETRY_LATER_SECONDS
    if snapshot.state is State.CRASHED:
        due = (snapshot.next_retry_at_ms or 0) / MILLISECONDS - now_wall
        return max(RETRY_SOON_SECONDS, due)
    return RETRY_AFTER_STOP_SECONDS if snapshot.state is State.STOPPING else None
