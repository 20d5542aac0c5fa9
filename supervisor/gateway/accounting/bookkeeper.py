"""The books of the door: who calls, may they, what is held back for it, and what it came to. In memory; the journal behind it is another's.

Each request is opened once and settled once, and leaves exactly one usage record. Nothing here waits, and every step takes the same time however
many keys, projects and requests there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypedDict, Unpack

from supervisor.clock import Clock
from supervisor.config.accounting_settings import AccountingSettings, LimitSettings, ReservationSettings
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import DEFAULT_PROJECT, Caller
from supervisor.gateway.accounting.estimate import Assumptions, Estimator
from supervisor.gateway.accounting.keys import Keyring
from supervisor.gateway.accounting.ledger import Ledger, Reservation
from supervisor.gateway.accounting.limits import Admission, LimitBook
from supervisor.gateway.calls import new_request_id
from supervisor.gateway.traffic import Outcome
from supervisor.storage.accounts import Budget, KeyRecord, Limits, Project, UsedInDay
from supervisor.storage.money import cost_micros, tokens_micros
from supervisor.storage.records import AcceptedRequest, Price, Settlement, TokenSource, TokenUsage, UsageRecord

MILLISECONDS = 1_000
NOTHING = TokenUsage()
# A look-up in an enumeration takes as long as a call.
OK, FROM_ENGINE = Outcome.OK, TokenSource.ENGINE

_log = logging.getLogger(__name__)

Listener = Callable[[UsageRecord], None]


class Journal(Protocol):
    """Where requests are written down. None of these waits; what cannot be written is the journal's to keep and to tell."""

    def accept(self, request: AcceptedRequest) -> None:
        """A request is let in; it survives a SIGKILL from here on."""

    def note(self, request_id: str, usage: TokenUsage) -> None:
        """What an accepted request has used so far, for the record of one that is never settled."""

    def settle(self, settlement: Settlement) -> None:
        """An accepted request has ended."""


class Facts(TypedDict, total=False):
    """What else is known of how a request ended; see `Settlement`."""

    error_code: str | None
    model: str | None
    instance: str | None
    revision: int | None
    route_reason: str | None
    queued_ms: float | None
    first_byte_ms: float | None
    energy_millijoules: int | None
    co2_micrograms: int | None
    energy_method: str | None


class Booking:
    """A request that was let in. It is settled exactly once: the first word counts.

    `fallback`: the model that stands in for the one that was asked for, and why (`NAME; CODE`).
    """

    __slots__ = (
        "_admission",
        "_answers",
        "_body_length",
        "_books",
        "_prompt_tokens",
        "_reservation",
        "_started_at",
        "fallback",
        "request",
        "settlement",
    )

    def __init__(
        self,
        books: Bookkeeper,
        request: AcceptedRequest,
        admission: Admission,
        reservation: Reservation,
        body_length: int,
        prompt_tokens: int,
        started_at: float,
        answers: int,
    ) -> None:
        self.request = request
        self.settlement: Settlement | None = None
        self.fallback: str | None = None
        self._books = books
        self._admission = admission
        self._reservation = reservation
        self._body_length = body_length
        self._prompt_tokens = prompt_tokens
        self._started_at = started_at
        self._answers = answers

    def with_prompt(self, usage: TokenUsage) -> TokenUsage:
        """What was counted; with the prompt as it was estimated, where nobody has told its length."""
        if usage.prompt_tokens:
            return usage
        return TokenUsage(self._prompt_tokens, usage.completion_tokens, usage.cached_tokens, TokenSource.COUNTED)

    def note(self, usage: TokenUsage) -> None:
        """What was counted of it so far; for the record, should it never be settled."""
        if self.settlement is None:
            self._books.journal.note(self.request.id, self.with_prompt(usage))

    def settle(self, outcome: str, usage: TokenUsage = NOTHING, **facts: Unpack[Facts]) -> Settlement:
        """It has ended so, and used this: count it in budgets and limits, learn from it, write it down, tell the listeners. Returns what is written.

        The cost is that of the tokens at the price of the time when it was let in. Later calls change nothing and return the first settlement.
        """
        if self.settlement is not None:
            return self.settlement
        books, request = self._books, self.request
        now, tokens = books.clock.monotonic(), usage.prompt_tokens + usage.completion_tokens
        cost = None if request.price is None else cost_micros(usage, request.price)
        settlement = self.settlement = Settlement(
            request.id,
            outcome,
            usage,
            cost,
            int(books.clock.wall() * MILLISECONDS),
            total_ms=round((now - self._started_at) * MILLISECONDS, 3),
            **facts,
        )
        self._admission.settle(tokens, now)
        self._reservation.settle(cost, tokens)
        if usage.source is FROM_ENGINE and outcome == OK:
            books.estimator.learn(
                request.project, request.endpoint, request.surface, self._body_length, usage, self._answers
            )
        books.journal.settle(settlement)
        if books.on_settled:
            books.tell(UsageRecord(request, settlement))
        return settlement

    def headers(self) -> dict[str, str]:
        """See `Bookkeeper.headers`."""
        request, books = self.request, self._books
        return books.limits.headers(request.project, request.key_id, books.clock.monotonic())


class Bookkeeper:
    """See the module. All methods are for the loop's thread.

    `on_settled` are called with each complete record, in order; one that fails is logged and stands in nobody's way. `on_refused` are called with the
    project, and the code of the refusal, of each request that is refused at a limit or a budget. `key_labels` are what people
    call the keys, by id; revoked ones too. `projects` are the names of those that there are.
    """

    def __init__(
        self, settings: AccountingSettings, journal: Journal, clock: Clock, server_key: str | None = None
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.keyring = Keyring(clock, server_key)
        self.ledger = Ledger(settings.currency)
        self.limits = LimitBook(_limits(settings.limits.key), _limits(settings.limits.project))
        self.estimator = Estimator(_assumptions(settings.reservation))
        self.on_settled: list[Listener] = []
        self.on_refused: list[Callable[[str, str], None]] = []
        self.key_labels: Mapping[str, str] = {}
        self.projects = frozenset({DEFAULT_PROJECT})
        self._prices = _prices(settings)

    def retune(self, settings: AccountingSettings) -> None:
        """Take new settings, for requests from now on; those on their way cost what they would have cost."""
        self.ledger.currency = settings.currency
        self.estimator.assumptions = _assumptions(settings.reservation)
        self._prices = _prices(settings)
        for_key, for_project = _limits(settings.limits.key), _limits(settings.limits.project)
        self.limits.set_defaults(for_key, for_project, self.clock.monotonic())

    def set_accounts(self, keys: Iterable[KeyRecord], projects: Iterable[Project], budgets: Iterable[Budget]) -> None:
        """Take these in place of all that was known: at boot, and after each change."""
        known, paying = tuple(keys), tuple(projects)
        self.keyring.replace(known)
        self.key_labels = {key.id: key.label for key in known}
        self.projects = frozenset(project.name for project in paying)
        self.limits.set_own(known, paying, self.clock.monotonic())
        self.ledger.set_budgets(budgets)

    def restore(self, used: Iterable[UsedInDay]) -> None:
        """Count what the books hold, once at boot, after what was on its way at the end of the last run was settled."""
        self.ledger.restore(used)

    def now_ms(self) -> int:
        """The wall clock, which names the period of budgets and stamps records."""
        return int(self.clock.wall() * MILLISECONDS)

    def price(self, names: Iterable[str]) -> Price | None:
        """The price by the first of these names that has one."""
        if self._prices:
            for name in names:
                if (price := self._prices.get(name)) is not None:
                    return price
        return None

    def identify(self, presented: str | None) -> Caller:
        """See `Keyring.identify`."""
        return self.keyring.identify(presented)

    def headers(self, caller: Caller) -> dict[str, str]:
        """The rate-limit headers of a caller as it stands now, for answers and refusals; none where no limit is set."""
        return self.limits.headers(caller.project, caller.key_id, self.clock.monotonic())

    def open(
        self,
        caller: Caller,
        endpoint: str,
        surface: str,
        *,
        stream: bool = False,
        body_length: int = 0,
        max_tokens: int | None = None,
        answers: int = 1,
        is_free: bool = False,
        names: Iterable[str] | None = None,
        client_request_id: str | None = None,
        batch_id: str | None = None,
        request_id: str | None = None,
    ) -> Booking:
        """Let a request in, hold its estimate back, and write it down; or refuse: RateLimitedError, BudgetExceededError, PriceUnknownError.

        `max_tokens` bounds all `answers` that it asks for together (0: it uses none), `is_free` says that no tokens are used, so that no budget
        is asked. `names` are those by which its price may be known (None: `endpoint`), the one that counts most first; `request_id` is a new id for
        the record (None: one is made up). A refused request counts nowhere and leaves no record.
        """
        now, now_ms = self.clock.monotonic(), int(self.clock.wall() * MILLISECONDS)
        project, key_id = caller.project, caller.key_id
        prompt, completion = (
            (0, 0) if is_free else self.estimator.estimate(project, endpoint, surface, body_length, max_tokens, answers)
        )
        tokens = prompt + completion
        price = self.price((endpoint,) if names is None else names)
        micros = None if price is None else tokens_micros(prompt, completion, price)
        request = AcceptedRequest(
            request_id or new_request_id(),
            project,
            key_id,
            endpoint,
            surface,
            stream,
            now_ms,
            client_request_id,
            batch_id,
            price,
            micros or 0,
            tokens,
        )
        # Whoever refuses, refuses before anything is counted.
        try:
            meters = self.limits.check(project, key_id, tokens, now)
            reservation = (
                Reservation((), 0, 0) if is_free else self.ledger.reserve(project, key_id, micros, tokens, now_ms)
            )
        except LlamavisorError as error:
            for listener in self.on_refused:
                listener(project, error.code)
            raise
        admission = Admission(meters, tokens, now)
        try:
            self.journal.accept(request)
        except BaseException:
            reservation.release()
            admission.settle(0, now)
            raise
        return Booking(self, request, admission, reservation, body_length, prompt, now, answers)

    def tell(self, record: UsageRecord) -> None:
        """Tell the listeners of a complete record."""
        for listener in self.on_settled:
            try:
                listener(record)
            except Exception:
                _log.exception("a listener failed on the usage record %s", record.request.id)


def _limits(settings: LimitSettings) -> Limits:
    return Limits(settings.requests_per_minute, settings.tokens_per_minute, settings.concurrency)


def _assumptions(settings: ReservationSettings) -> Assumptions:
    return Assumptions(
        settings.completion_tokens, settings.bytes_per_token, settings.most_prompt_tokens, settings.percentile
    )


def _prices(settings: AccountingSettings) -> dict[str, Price]:
    return {name: Price(price.input_micros, price.output_micros) for name, price in settings.prices.items()}
