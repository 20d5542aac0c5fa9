"""What holds for every test: how Hypothesis searches."""

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
