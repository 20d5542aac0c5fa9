"""The figures of supervision: retries, probes, deadlines. Every one can be set for all instances and for each."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from supervisor.config.fields import (
    GraceSeconds,
    Misses,
    Ratio,
    Retries,
    Seconds,
    StrictModel,
    refuse,
)


class SupervisionSettings(StrictModel):
    """How an instance is watched, retried and stopped. Times are seconds on the monotonic clock."""

    max_retries: Retries = Field(5, description="Starts tried after a crash before the instance goes to `error`.")
    retry_base_seconds: Seconds = Field(
        1.0, description="Delay before the first retry; it doubles with each further one."
    )
    retry_cap_seconds: Seconds = Field(30.0, description="Longest delay before a retry.")
    retry_jitter: Ratio = Field(0.1, description="Each delay varies by up to this share, up or down.")
    stable_seconds: Seconds = Field(
        60.0, description="Time continuously ready after which the used retries are forgotten."
    )
    probe_interval_min_seconds: Seconds = Field(0.02, description="First pause between two readiness probes.")
    probe_interval_max_seconds: Seconds = Field(1.0, description="Longest pause between two readiness probes.")
    probe_deadline_seconds: Seconds = Field(5.0, description="Time within which one probe must be answered.")
    liveness_interval_seconds: Seconds = Field(
        1.0, description="Pause between two liveness probes of a ready instance."
    )
    liveness_misses: Misses = Field(
        3, description="Liveness probes missed in a row after which the instance has crashed (`unresponsive`)."
    )
    wedge_seconds: Seconds = Field(
        60.0,
        description="Time without progress, requests being active and a slot free for a canary, after which the instance "
        "has crashed (`wedged`).",
    )
    wedge_busy_seconds: Seconds = Field(
        600.0,
        description="The same while the process uses at least a tenth of a core: a long prompt read in one batch looks like that.",
    )
    progress_interval_seconds: Seconds = Field(
        5.0, description="Pause between two readings of the token counters while requests are active."
    )
    start_deadline_seconds: Seconds = Field(
        600.0, description="Time since the last sign of progress after which a start has failed (`start_timeout`)."
    )
    stop_grace_seconds: GraceSeconds = Field(
        5.0, description="Time between SIGTERM and SIGKILL when an instance is stopped."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(inconsistencies(self))
        return self


class SupervisionOverrides(StrictModel):
    """The figures that one instance sets for itself; what is left out comes from `defaults`."""

    max_retries: Retries | None = None
    retry_base_seconds: Seconds | None = None
    retry_cap_seconds: Seconds | None = None
    retry_jitter: Ratio | None = None
    stable_seconds: Seconds | None = None
    probe_interval_min_seconds: Seconds | None = None
    probe_interval_max_seconds: Seconds | None = None
    probe_deadline_seconds: Seconds | None = None
    liveness_interval_seconds: Seconds | None = None
    liveness_misses: Misses | None = None
    wedge_seconds: Seconds | None = None
    wedge_busy_seconds: Seconds | None = None
    progress_interval_seconds: Seconds | None = None
    start_deadline_seconds: Seconds | None = None
    stop_grace_seconds: GraceSeconds | None = None

    def over(self, defaults: SupervisionSettings) -> SupervisionSettings:
        """Return `defaults` with the figures of this instance put over them."""
        return defaults.model_copy(update=self.model_dump(exclude_none=True))


def inconsistencies(figures: SupervisionSettings) -> list[tuple[str, str, str]]:
    """List the pairs of figures that contradict each other (a smallest above its largest)."""
    pairs = (
        ("retry_base_seconds", "retry_cap_seconds"),
        ("probe_interval_min_seconds", "probe_interval_max_seconds"),
        ("wedge_seconds", "wedge_busy_seconds"),
    )
    return [
        (low, f"`{low}` ({first:g}) is above `{high}` ({second:g})", f"raise `{high}` or lower `{low}`")
        for low, high in pairs
        if (first := getattr(figures, low)) > (second := getattr(figures, high))
    ]
