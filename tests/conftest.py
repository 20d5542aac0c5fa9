"""What holds for every test: how Hypothesis searches, and the event loop."""

import asyncio
import os
from collections.abc import Callable

import uvloop
from hypothesis import HealthCheck, settings

# A state machine takes up to 100 × 50 steps in a test run and 2,200 × 50 in `make soak`. Test runs repeat themselves, so that a
# red one is about the change at hand; soaking draws anew each time.
settings.register_profile(
    "house",
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("soak", settings.get_profile("house"), max_examples=2_200, derandomize=False, print_blob=True)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that Llamavisor runs on; under asyncio's debug mode on asyncio's own, which looks at more."""
    in_debug_mode = "PYTHONASYNCIODEBUG" in os.environ
    return {"loop": asyncio.new_event_loop if in_debug_mode else uvloop.new_event_loop}
