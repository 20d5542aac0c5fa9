"""Settings of the door: who waits, how long, and what is told meanwhile."""

from __future__ import annotations

from pydantic import Field

from supervisor.config.fields import Bytes, Count, GraceSeconds, Seconds, StrictModel


class GatewaySettings(StrictModel):
    """The way of a request to its engine."""

    queue_limit: Count = Field(256, description="Requests that may wait; one key has at most half of the places.")
    queue_seconds: GraceSeconds = Field(
        120.0, description="Longest wait for a place or for a model that is being loaded; 0 refuses instead of waiting."
    )
    in_flight_per_slot: Count = Field(2, description="Requests passed to an engine at once, for each of its slots.")
    status_open_seconds: Seconds = Field(
        10.0, description="Time that a waiting stream keeps its status open, so that a refusal still has its true one."
    )
    comment_seconds: Seconds = Field(5.0, description="Interval of the comments that keep a waiting stream alive.")
    resume_seconds: GraceSeconds = Field(
        60.0,
        description="Longest time that a stream is kept up without its client, who must have asked for it (`X-Llamavisor-Resume`); 0: none is.",
    )
    resume_bytes: Bytes = Field(
        4 * 1024**2, description="Events kept of each such stream; the oldest go first, and cannot be read again."
    )
    resume_streams: Count = Field(
        64, description="Such streams kept at once; beyond that, streams end with their clients."
    )
