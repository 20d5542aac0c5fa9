"""Answers kept by the key that the client gave its request, so that sending it again does the work once (`contracts.md` §6).

They are in memory, and gone when the supervisor ends: then a request that is sent again is done again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError, MalformedRequestError

KEPT_SECONDS = 24 * 3600.0
KEPT_BYTES = 64 * 1024**2
ANSWER_BYTES_MAX = 4 * 1024**2
KEPT_MAX = 50_000
KEY_CHARACTERS_MAX = 255
RETRY_SECONDS = 1.0
_ENTRY_BYTES = 512
_FIRST_REFUSAL = 300


class RequestInFlightError(LlamavisorError):
    """A request with the same key is being answered."""

    code, status = "idempotency_in_flight", 409


class KeyReusedError(LlamavisorError):
    """The key was given to a request with another body."""

    code, status = "idempotency_key_reused", 422


class Scope(NamedTuple):
    """Within what a key means one request: a caller's own, on one route."""

    project: str
    key_id: str | None
    path: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was sent: of a stream, all of its events."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    begun_at: float
    answer: KeptAnswer | None = None

    @property
    def size(self) -> int:
        return _ENTRY_BYTES + (len(self.answer.body) if self.answer is not None else 0)


class IdempotencyStore:
    """The answers. When there are too many, those that were asked for least recently go; requests on their way stay. Pure but for the clock."""

    def __init__(self, clock: Clock, *, most_bytes: int = KEPT_BYTES, most: int = KEPT_MAX) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._most = most
        self._entries: OrderedDict[tuple[Scope, str], _Entry] = OrderedDict()
        self._bytes = 0

    def begin(self, scope: Scope, key: str, *parts: bytes) -> KeptAnswer | Keeping:
        """The answer to give again; or, for a new request, where its answer goes: `complete` or `abandon` it. `parts` are what makes it the same.

        RequestInFlightError while the first is on its way, KeyReusedError for other parts, MalformedRequestError for a key that is none.
        """
        if not (0 < len(key) <= KEY_CHARACTERS_MAX and key.isascii() and key.isprintable()):
            message = f"`Idempotency-Key` must be 1 to {KEY_CHARACTERS_MAX} printable ASCII characters."
            raise MalformedRequestError(message, param="Idempotency-Key")
        name, fingerprint = (scope, key), _fingerprint(parts)
        self._forget_old()
        entry = self._entries.get(name)
        if entry is not None and self._is_old(entry):
            self.abandon(name)
            entry = None
        if entry is None:
            self._entries[name] = entry = _Entry(fingerprint, self._clock.monotonic())
            self._bytes += entry.size
            return Keeping(self, name)
        if entry.fingerprint != fingerprint:
            remedy = "Give each request a key of its own."
            raise KeyReusedError("This key was given to another request.", param="Idempotency-Key", remedy=remedy)
        if entry.answer is None:
            message = "The request with this key is being answered."
            raise RequestInFlightError(message, param="Idempotency-Key", retry_after_seconds=RETRY_SECONDS)
        self._entries.move_to_end(name)
        return entry.answer

    # For `Keeping`

    def complete(self, name: tuple[Scope, str], answer: KeptAnswer) -> None:
        """Keep the answer to a request that is on its way."""
        entry = self._entries[name]
        entry.answer = answer
        self._bytes += len(answer.body)
        self._entries.move_to_end(name)
        self._forget_surplus()

    def abandon(self, name: tuple[Scope, str]) -> None:
        """Forget a request that is on its way: who sends it again has it done again."""
        self._bytes -= self._entries.pop(name).size

    def _forget_old(self) -> None:
        # Those in use move to the end however old they are: what is found first is near enough the oldest.
        while self._entries:
            name, entry = next(iter(self._entries.items()))
            if not self._is_old(entry):
                return
            self.abandon(name)

    def _is_old(self, entry: _Entry) -> bool:
        return entry.answer is not None and self._clock.monotonic() - entry.begun_at >= KEPT_SECONDS

    def _forget_surplus(self) -> None:
        surplus_bytes, surplus = self._bytes - self._most_bytes, len(self._entries) - self._most
        doomed = []
        for name, entry in self._entries.items():
            if surplus_bytes <= 0 and surplus <= 0:
                break
            if entry.answer is not None:
                doomed.append(name)
                surplus_bytes, surplus = surplus_bytes - entry.size, surplus - 1
        for name in doomed:
            self.abandon(name)


def _fingerprint(parts: Iterable[bytes]) -> bytes:
    """Of each its own, so that nothing can move from one to the next."""
    return b"".join(hashlib.sha256(part).digest() for part in parts)


class Keeping:
    """Where the answer to one request goes as it is sent. Without `complete`, nothing of it is kept; use it in `with`."""

    def __init__(self, store: IdempotencyStore, name: tuple[Scope, str]) -> None:
        self._store = store
        self._name = name
        self._parts: list[bytes] = []
        self._size = 0
        self._is_open = True

    def __enter__(self) -> Keeping:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._is_open:
            self._is_open = False
            self._store.abandon(self._name)

    def add(self, data: bytes) -> None:
        """So much more of the answer was sent."""
        self._size += len(data)
        if self._size <= ANSWER_BYTES_MAX:
            self._parts.append(data)
        else:
            self._parts.clear()

    def complete(self, status: int, headers: Mapping[str, str]) -> None:
        """That was all of it, and it is good. Refusals and failures are not kept, nor what exceeds `ANSWER_BYTES_MAX`: they may be tried again."""
        if self._is_open and status < _FIRST_REFUSAL and self._size <= ANSWER_BYTES_MAX:
            self._is_open = False
            self._store.complete(self._name, KeptAnswer(status, dict(headers), b"".join(self._parts)))
