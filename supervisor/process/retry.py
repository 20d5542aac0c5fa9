"""When to try again: pure functions of the number of crashes and the figures of the configuration."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_retries` tries after a crash; before the nth, base·2^(n−1) seconds capped at `cap_seconds`, ± `jitter` (a share of it).

    A server that was ready for `stable_seconds` on end has all its retries again (not at ready: a loop of start, ready, crash must end).
    """

    max_retries: int = 5
    base_seconds: float = 1.0
    cap_seconds: float = 30.0
    jitter: float = 0.1
    stable_seconds: float = 60.0

    def delay_seconds(self, retry: int, source: random.Random) -> float:
        """How long to wait before retry number `retry` (from 1)."""
        # The exponent is bounded because 2.0**1024 overflows, and a user may allow any number of retries.
        plain = min(self.cap_seconds, self.base_seconds * 2.0 ** min(retry - 1, 64))
        return plain * (1 + self.jitter * source.uniform(-1, 1))
