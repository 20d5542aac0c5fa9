"""A batch as a value: what was asked for, how far it is, and which way it may go. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from supervisor.errors import MalformedRequestError, StateConflictError
from supervisor.gateway.calls import CHAT, COMPLETIONS, EMBEDDINGS
from supervisor.request_fields import refuse, shown

ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS)
WINDOW = "24h"
WINDOW_SECONDS = 24 * 3600.0
METADATA_PAIRS_MAX = 16
METADATA_KEY_CHARACTERS_MAX = 64
METADATA_VALUE_CHARACTERS_MAX = 512


class BatchStatus(StrEnum):
    """OpenAI's states of a batch."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


_NEXT: Mapping[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.VALIDATING: frozenset({BatchStatus.IN_PROGRESS, BatchStatus.FAILED, BatchStatus.CANCELLING}),
    BatchStatus.IN_PROGRESS: frozenset({BatchStatus.FINALIZING, BatchStatus.FAILED, BatchStatus.CANCELLING}),
    BatchStatus.FINALIZING: frozenset({BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.FAILED}),
    BatchStatus.CANCELLING: frozenset({BatchStatus.CANCELLED, BatchStatus.FAILED}),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an input file; `line` counts from 1, None when it is the file as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for when it creates a batch."""

    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. `project` and `key_id` pay for it. `stamps` holds when it entered each state, Unix seconds, by the state's name.

    `seconds_left` is what is left of its window, which runs while the supervisor does, so that no jump of the wall clock ends a batch; 0: it ran out.
    `total`, `completed` and `failed` are lines; `output_file_id` and `error_file_id` are there once the files are.
    """

    id: str
    project: str
    key_id: str | None
    order: Order
    status: BatchStatus = BatchStatus.VALIDATING
    stamps: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    seconds_left: float = WINDOW_SECONDS
    total: int = 0
    completed: int = 0
    failed: int = 0
    faults: tuple[Fault, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def is_over(self) -> bool:
        """It is in a state that it does not leave."""
        return self.status not in _NEXT

    @property
    def was_validated(self) -> bool:
        """Its lines are known to be good."""
        return BatchStatus.IN_PROGRESS in self.stamps

    @property
    def has_expired(self) -> bool:
        """Its window ran out before its lines were answered."""
        return self.seconds_left <= 0

    def entered(self, status: BatchStatus, now_seconds: int, **changes: Any) -> Batch:
        """The batch in its next state. StateConflictError when that is not one that follows."""
        if status not in _NEXT.get(self.status, frozenset()):
            raise StateConflictError(
                f"The batch is {self.status.value}: it cannot become {status.value}.",
                param="batch_id",
                details={"state": self.status.value},
            )
        return replace(self, status=status, stamps={**self.stamps, status.value: now_seconds}, **changes)

    def to_wire(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        at = self.stamps.get
        created_at = self.stamps["created"]
        errors = {"object": "list", "data": [asdict(fault) for fault in self.faults]} if self.faults else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.order.endpoint,
            "errors": errors,
            "input_file_id": self.order.input_file_id,
            "completion_window": WINDOW,
            "status": self.status.value,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": created_at,
            "in_progress_at": at("in_progress"),
            "expires_at": created_at + int(WINDOW_SECONDS),
            "finalizing_at": at("finalizing"),
            "completed_at": at("completed"),
            "failed_at": at("failed"),
            "expired_at": at("expired"),
            "cancelling_at": at("cancelling"),
            "cancelled_at": at("cancelled"),
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": None if self.order.metadata is None else dict(self.order.metadata),
        }

    def to_stored(self) -> dict[str, Any]:
        """What is written to disk: every field, as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Batch:
        """The batch that `to_stored` wrote. ValueError, TypeError or KeyError for anything else."""
        order = Order(**stored["order"])
        faults = tuple(Fault(**fault) for fault in stored["faults"])
        return cls(**{**stored, "order": order, "faults": faults, "status": BatchStatus(stored["status"])})


def read_order(document: Mapping[str, Any]) -> Order:
    """What the body of `POST /v1/batches` asks for. MalformedRequestError that names the field."""
    endpoint, input_file_id = document.get("endpoint"), document.get("input_file_id")
    if endpoint not in ENDPOINTS:
        raise refuse("endpoint", f"must be one of {', '.join(ENDPOINTS)}, not {shown(endpoint)}.")
    if not isinstance(input_file_id, str):
        raise refuse("input_file_id", f"must be the id of an uploaded file, not {shown(input_file_id)}.")
    if document.get("completion_window") != WINDOW:
        raise refuse("completion_window", f'must be "{WINDOW}", not {shown(document.get("completion_window"))}.')
    if document.get("output_expires_after") is not None:
        raise refuse("output_expires_after", "is not supported: files stay until they are deleted.")
    return Order(str(endpoint), input_file_id, _metadata(document.get("metadata")))


def _metadata(given: object) -> Mapping[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) > METADATA_PAIRS_MAX:
        raise refuse("metadata", f"must be an object of at most {METADATA_PAIRS_MAX} pairs.")
    for key, value in given.items():
        is_good = isinstance(value, str) and len(value) <= METADATA_VALUE_CHARACTERS_MAX
        if not is_good or len(key) > METADATA_KEY_CHARACTERS_MAX:
            raise MalformedRequestError(
                f"`metadata` may hold text of {METADATA_VALUE_CHARACTERS_MAX} characters under names of "
                f"{METADATA_KEY_CHARACTERS_MAX}, no more.",
                param="metadata",
            )
    return given
