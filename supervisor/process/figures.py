"""The figures of supervision, as the process layer takes them. `config/settings.py` documents each for users; the names are the same."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.process.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Figures:
    """Every deadline, interval and limit of one instance; seconds unless the name says otherwise. Defaults: `contracts.md` §1."""

    max_retries: int = 5
    retry_base_seconds: float = 1.0
    retry_cap_seconds: float = 30.0
    retry_jitter: float = 0.1
    stable_seconds: float = 60.0
    probe_interval_min_seconds: float = 0.02
    probe_interval_max_seconds: float = 1.0
    probe_deadline_seconds: float = 5.0
    liveness_interval_seconds: float = 1.0
    liveness_misses: int = 3
    wedge_seconds: float = 60.0
    wedge_busy_seconds: float = 600.0
    progress_interval_seconds: float = 5.0
    start_deadline_seconds: float = 600.0
    stop_grace_seconds: float = 5.0

    @property
    def retry_policy(self) -> RetryPolicy:
        """The part that decides about retries."""
        return RetryPolicy(
            max_retries=self.max_retries,
            base_seconds=self.retry_base_seconds,
            cap_seconds=self.retry_cap_seconds,
            jitter=self.retry_jitter,
            stable_seconds=self.stable_seconds,
        )
