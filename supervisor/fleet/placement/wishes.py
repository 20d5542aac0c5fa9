"""Who waits for which instance: wishes, each told of a failure once at most."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from supervisor.errors import LlamavisorError

logger = logging.getLogger(__name__)

OnFailure = Callable[[LlamavisorError], None]


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """Somebody waits for an instance. `number` counts wishes, `since` is when this one came (monotonic seconds)."""

    instance: str
    number: int
    since: float
    on_failure: OnFailure


class Wishes:
    """All wishes that are neither withdrawn nor failed; of each instance the oldest first."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_instance: dict[str, dict[int, Wish]] = {}
        self.last_number = 0

    def add(self, instance: str, now: float, on_failure: OnFailure) -> Wish:
        """A new wish."""
        wish = Wish(instance, next(self._numbers), now, on_failure)
        self.last_number = wish.number
        self._by_instance.setdefault(instance, {})[wish.number] = wish
        return wish

    def withdraw(self, wish: Wish) -> bool:
        """Forget a wish, idempotently; whether it was the last for its instance."""
        wishes = self._by_instance.get(wish.instance, {})
        if wishes.pop(wish.number, None) is None or wishes:
            return False
        del self._by_instance[wish.instance]
        return True

    def names(self) -> list[str]:
        """The instances that are wished for; the one with the oldest wish first."""
        return sorted(self._by_instance, key=lambda name: next(iter(self._by_instance[name])))

    def since(self, instance: str) -> float | None:
        """When the oldest wish for an instance came; None: nobody waits."""
        first = next(iter(self._by_instance.get(instance, {}).values()), None)
        return None if first is None else first.since

    def has_any(self, instance: str, *, after: int = 0) -> bool:
        """Whether somebody waits for an instance (whose wish came after that number)."""
        wishes = self._by_instance.get(instance)
        return wishes is not None and next(reversed(wishes)) > after

    def fail(self, instance: str, error: LlamavisorError, *, up_to: int | None = None) -> None:
        """Tell everybody who waits for an instance (with a number up to this one), and forget them."""
        for wish in list(self._by_instance.get(instance, {}).values()):
            if up_to is None or wish.number <= up_to:
                self.withdraw(wish)
                _tell(wish, error)

    def fail_all(self, error: LlamavisorError) -> None:
        """Tell everybody."""
        for name in self.names():
            self.fail(name, error)


def _tell(wish: Wish, error: LlamavisorError) -> None:
    try:
        wish.on_failure(error)
    except Exception:
        # The others still have to be told.
        logger.exception("%s: a waiter could not be told of a failure", wish.instance)
