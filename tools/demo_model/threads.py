"""How many cores the training may use; must be settled before numpy is first imported."""

import os

_POOL_SIZES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def default_threads() -> int:
    """All cores but one: the machine stays usable, and a supervisor beside the training keeps its pace."""
    return max(1, (os.cpu_count() or 1) - 1)


def limit_threads(threads: int) -> None:
    """Limit every numeric library to so many threads, and have idle ones sleep.

    Threads that spin while they wait made two trainings on two cores ten times slower than one.
    """
    os.environ.update(dict.fromkeys(_POOL_SIZES, str(threads)))
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
