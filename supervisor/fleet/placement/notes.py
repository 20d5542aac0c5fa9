"""What is remembered of each instance between two looks: when it was used, who began or ended it, and how it fared."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.process.states import State


@dataclass(slots=True)
class Notes:
    """Times are monotonic seconds; numbers are those of wishes (`Wishes.last_number`) at the time.

    `used_at`: when its last request ended, or it became ready. `begun_at`: when we began the load that is under way; `is_demanded`: because
    somebody waited. `is_leaving`: the stop that is under way is ours. `failed_number`, `failed_at`: it went to `error`, where it is.
    `stopped_number`: somebody else stopped it, and nobody has started it since.
    """

    used_at: float = 0.0
    ready_since: float | None = None
    begun_at: float | None = None
    is_demanded: bool = False
    is_leaving: bool = False
    failed_number: int = 0
    failed_at: float | None = None
    stopped_number: int | None = None

    def enter(self, state: State, now: float, number: int) -> float | None:
        """Take note of a state that was entered; when a load of ours has come to its end, the seconds that it took."""
        took = None
        if state is State.READY and self.ready_since is None:
            took = None if self.begun_at is None else now - self.begun_at
            self.ready_since = self.used_at = now
            self.begun_at = None
        elif state is not State.READY:
            self.ready_since = None
        if state is State.STARTING:
            self.stopped_number, self.failed_at, self.is_leaving = None, None, False
        elif state is State.STOPPING:
            self.begun_at = None
            self.stopped_number = None if self.is_leaving else number
        elif state is State.INITIAL:
            self.is_leaving = False
        elif state is State.ERROR:
            self.begun_at, self.is_leaving = None, False
            # It is told again when nothing is left of the process; that is no second failure.
            if self.failed_at is None:
                self.failed_number, self.failed_at = number, now
        return took

    def begin(self, now: float, *, is_demanded: bool) -> None:
        """A load of ours begins."""
        self.begun_at, self.is_demanded = now, is_demanded
