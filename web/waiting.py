"""What a stream says while its request waits: a comment for everybody, an event for who asked for it."""

from __future__ import annotations

import json
from typing import Any

from supervisor.gateway.admission.admission import Waiting

STREAM_TYPE = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
PROGRESS_HEADER = "X-Llamavisor-Progress"
"""With the value 1 the stream begins at once, and says what it waits for in events `llamavisor.waiting`."""


def waiting_data(waiting: Waiting) -> dict[str, Any]:
    """`position` (1 is next), `estimate_seconds` (null: nobody knows), the model's `state`, `progress` (0 to 1, or null) of its load, and
    the `reason` why that has not begun (null: it has, or will in a moment).
    """
    estimate = waiting.estimate_seconds
    return {
        "position": waiting.position,
        "estimate_seconds": None if estimate is None else round(estimate, 1),
        "state": waiting.state.value,
        "progress": waiting.progress,
        "reason": waiting.reason,
    }


def waiting_comment(waiting: Waiting) -> bytes:
    """A comment, which every client skips."""
    return f": waiting {json.dumps(waiting_data(waiting))}\n\n".encode()


def waiting_event(waiting: Waiting) -> bytes:
    """An event, for who asked for it."""
    return f"event: llamavisor.waiting\ndata: {json.dumps(waiting_data(waiting))}\n\n".encode()
