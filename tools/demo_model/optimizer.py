"""AdamW with gradient clipping, and the learning rate's course."""

from dataclasses import dataclass

import numpy as np

from .layers import Array
from .model import Parameters


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate over the run: a short warm-up, level, then a straight line down to `floor` times the peak."""

    peak: float = 3e-3
    warmup: float = 0.02
    level_until: float = 0.4
    floor: float = 0.01

    def rate(self, progress: float) -> float:
        """Return the rate at a progress of 0 to 1."""
        if progress < self.warmup:
            return self.peak * (progress / self.warmup + self.floor)
        if progress < self.level_until:
            return self.peak
        left = (1 - progress) / (1 - self.level_until)
        return self.peak * max(self.floor, left)


class AdamW:
    """Updates parameters in place. Matrices decay; norms do not."""

    FIRST_DECAY = 0.9
    SECOND_DECAY = 0.98
    WEIGHT_DECAY = 0.05
    LARGEST_NORM = 1.0
    EPSILON = 1e-8

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._means = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._squares = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._steps = 0

    def step(self, grads: Parameters, rate: float) -> float:
        """Take one step; return the norm of the gradients before clipping."""
        self._steps += 1
        size = float(np.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads.values())))
        clip = min(1.0, self.LARGEST_NORM / (size + 1e-6))
        for name, grad in grads.items():
            self._update(name, grad * grad.dtype.type(clip), rate)
        return size

    def _update(self, name: str, grad: Array, rate: float) -> None:
        value, mean, square = self._parameters[name], self._means[name], self._squares[name]
        exact = value.dtype.type
        mean *= exact(self.FIRST_DECAY)
        mean += exact(1 - self.FIRST_DECAY) * grad
        square *= exact(self.SECOND_DECAY)
        grad *= grad
        square += exact(1 - self.SECOND_DECAY) * grad
        if value.ndim > 1:
            value *= exact(1 - rate * self.WEIGHT_DECAY)
        spread = np.sqrt(square * exact(1 / (1 - self.SECOND_DECAY**self._steps))) + exact(self.EPSILON)
        value -= exact(rate / (1 - self.FIRST_DECAY**self._steps)) * (mean / spread)
