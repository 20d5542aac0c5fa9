"""Limits of keys and projects: requests a minute, tokens a minute, requests at a time.

A limit a minute is a bucket that holds a minute's worth and fills evenly, a sixtieth of it each second. So a client that was quiet may use
a minute's worth at once; over any time it gets no more than that and what has flowed in since. Tokens are taken in two phases: the estimate when
a request is let in, the difference when it is settled, which may leave the bucket in debt until time has filled it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from supervisor.errors import RateLimitedError
from supervisor.storage.accounts import NO_LIMITS, KeyRecord, Limits, Project

MINUTE_SECONDS = 60.0
CONCURRENCY_RETRY_SECONDS = 1.0
"""When to come back to a key all of whose places are taken: nobody knows when one becomes free."""

MILLISECONDS = 1_000
_HeaderNames = tuple[str, str, str]
REQUEST_HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
TOKEN_HEADERS = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")
ROUNDING = 1e-6
"""What is added up of fractions may end this far from a whole number."""


class Bucket:
    """Holds up to `capacity`, which also flows in each minute. Times are monotonic seconds. All it needs to know is when it will be full."""

    __slots__ = ("_full_at", "_seconds_each", "capacity", "text")

    def __init__(self, capacity: int, full_at: float) -> None:
        self.capacity = capacity
        self.text = str(capacity)
        self._seconds_each = MINUTE_SECONDS / capacity
        self._full_at = full_at

    def resized(self, capacity: int, now: float) -> Bucket:
        """One of another capacity, in which as much is missing."""
        return Bucket(capacity, now + self.full_seconds(now) * self.capacity / capacity)

    def left(self, now: float) -> int:
        """What can be taken out."""
        level = self.capacity - self.full_seconds(now) / self._seconds_each
        return max(0, math.floor(level + ROUNDING))

    def full_seconds(self, now: float) -> float:
        """How long until it is full; more than a minute when more was used than was estimated."""
        return self._full_at - now if self._full_at > now else 0.0

    def lacks_seconds(self, amount: int, now: float) -> float:
        """How long until `amount` can be taken; 0.0: now. What is larger than the bucket can be taken when it is full."""
        full_at = self._full_at if self._full_at > now else now
        seconds = full_at - now + (amount if amount < self.capacity else self.capacity) * self._seconds_each
        return seconds - MINUTE_SECONDS if seconds > MINUTE_SECONDS + ROUNDING else 0.0

    def take(self, amount: int, now: float) -> None:
        """Take an amount out; a negative one is given back."""
        self._full_at = (self._full_at if self._full_at > now else now) + amount * self._seconds_each


class Meter:
    """What one key or project has in flight, and its buckets."""

    __slots__ = ("_limits", "_owner", "in_flight", "requests", "tokens")

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._limits = NO_LIMITS
        self.in_flight = 0
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None

    def retune(self, limits: Limits, now: float) -> None:
        """Take other limits from now on; what was used counts on."""
        self._limits = limits
        self.requests = _resized(self.requests, limits.requests_per_minute, now)
        self.tokens = _resized(self.tokens, limits.tokens_per_minute, now)

    def check(self, tokens: int, now: float) -> None:
        """Raise RateLimitedError unless one more request with so many tokens may come in; one that uses none passes while others pay a debt off."""
        most = self._limits.concurrency
        if most is not None and self.in_flight >= most:
            raise self._refused("concurrency", f"{most} requests at a time", CONCURRENCY_RETRY_SECONDS)
        if self.requests is not None and (seconds := self.requests.lacks_seconds(1, now)):
            raise self._refused("requests", f"{self.requests.capacity} requests a minute", seconds)
        if tokens and self.tokens is not None and (seconds := self.tokens.lacks_seconds(tokens, now)):
            raise self._refused("tokens", f"{self.tokens.capacity} tokens a minute", seconds)

    def _refused(self, limit: str, figure: str, seconds: float) -> RateLimitedError:
        return RateLimitedError(
            f"Rate limit exceeded: {self._owner} is allowed {figure}.",
            remedy="Send fewer or smaller requests, or have the limit raised.",
            retry_after_seconds=seconds,
            details={"limit": limit},
        )


class Admission:
    """A request that is let in, after `LimitBook.check` and with nothing awaited since. It is settled exactly once; later words change nothing."""

    __slots__ = ("_is_open", "_meters", "tokens")

    def __init__(self, meters: tuple[Meter, ...], tokens: int, now: float) -> None:
        self.tokens = tokens
        self._meters = meters
        self._is_open = True
        for meter in meters:
            meter.in_flight += 1
            if (requests := meter.requests) is not None:
                requests.take(1, now)
            if (bucket := meter.tokens) is not None:
                bucket.take(tokens, now)

    def settle(self, tokens: int, now: float) -> None:
        """The request has ended, and used so many tokens."""
        if not self._is_open:
            return
        self._is_open = False
        for meter in self._meters:
            meter.in_flight -= 1
            if (bucket := meter.tokens) is not None:
                bucket.take(tokens - self.tokens, now)


class LimitBook:
    """The meters of all keys and projects, and the limits that hold for them: their own over the defaults."""

    def __init__(self, for_key: Limits, for_project: Limits) -> None:
        self._for_key = for_key
        self._for_project = for_project
        self._own_of_keys: dict[str, Limits] = {}
        self._own_of_projects: dict[str, Limits] = {}
        self._keys: dict[str, Meter] = {}
        self._projects: dict[str, Meter] = {}

    def set_defaults(self, for_key: Limits, for_project: Limits, now: float) -> None:
        """Take other defaults from now on."""
        self._for_key, self._for_project = for_key, for_project
        self._retune(now)

    def set_own(self, keys: Iterable[KeyRecord], projects: Iterable[Project], now: float) -> None:
        """Replace what keys and projects have of their own."""
        self._own_of_keys = {key.id: key.limits for key in keys if key.limits != NO_LIMITS}
        self._own_of_projects = {project.name: project.limits for project in projects if project.limits != NO_LIMITS}
        self._retune(now)

    def check(self, project: str, key_id: str | None, tokens: int, now: float) -> tuple[Meter, ...]:
        """Raise RateLimitedError unless a request of an estimated number of tokens may come in; else return what an `Admission` of it is made of."""
        meters = self._meters(project, key_id, now)
        try:
            for meter in meters:
                meter.check(tokens, now)
        except RateLimitedError as error:
            error.standing = self.headers(project, key_id, now)
            raise
        return meters

    def in_flight(self, project: str, key_id: str | None = None) -> int:
        """Requests of the project (or the key) that are on their way."""
        meter = self._projects.get(project) if key_id is None else self._keys.get(key_id)
        return 0 if meter is None else meter.in_flight

    def headers(self, project: str, key_id: str | None, now: float) -> dict[str, str]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` as OpenAI writes them, of the tighter limit; none where none is set."""
        meters = self._meters(project, key_id, now)
        headers: dict[str, str] = {}
        _add_headers(headers, REQUEST_HEADERS, [meter.requests for meter in meters], now)
        _add_headers(headers, TOKEN_HEADERS, [meter.tokens for meter in meters], now)
        return headers

    def _meters(self, project: str, key_id: str | None, now: float) -> tuple[Meter, ...]:
        whole = self._projects.get(project) or self._add_project(project, now)
        if key_id is None:
            return (whole,)
        return (self._keys.get(key_id) or self._add_key(key_id, now), whole)

    def _add_key(self, key_id: str, now: float) -> Meter:
        meter = self._keys[key_id] = Meter(f"key `{key_id}`")
        meter.retune(self._own_of_keys.get(key_id, NO_LIMITS).over(self._for_key), now)
        return meter

    def _add_project(self, name: str, now: float) -> Meter:
        meter = self._projects[name] = Meter(f"project `{name}`")
        meter.retune(self._own_of_projects.get(name, NO_LIMITS).over(self._for_project), now)
        return meter

    def _retune(self, now: float) -> None:
        for key_id, meter in self._keys.items():
            meter.retune(self._own_of_keys.get(key_id, NO_LIMITS).over(self._for_key), now)
        for name, meter in self._projects.items():
            meter.retune(self._own_of_projects.get(name, NO_LIMITS).over(self._for_project), now)


def _add_headers(headers: dict[str, str], names: _HeaderNames, buckets: Iterable[Bucket | None], now: float) -> None:
    tighter: Bucket | None = None
    least = 0
    for bucket in buckets:
        if bucket is None:
            continue
        left = bucket.left(now)
        if tighter is None or left < least:
            tighter, least = bucket, left
    if tighter is not None:
        limit, remaining, reset = names
        headers[limit] = tighter.text
        headers[remaining] = str(least)
        headers[reset] = duration_text(tighter.full_seconds(now))


def duration_text(seconds: float) -> str:
    """A time as OpenAI writes it: `20ms`, `1s`, `6m0s`, `1h0m0s`; rounded up, so that who waits so long does not come too early."""
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{math.ceil(seconds * MILLISECONDS)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _resized(bucket: Bucket | None, capacity: int | None, now: float) -> Bucket | None:
    if capacity is None:
        return None
    return Bucket(capacity, now) if bucket is None else bucket.resized(capacity, now)
