"""Whether a training is going astray: its gradients stay finite, and become larger than they ever were."""

import math
import statistics
from collections import defaultdict, deque

LATEST = 1000  # norms that are compared with
LEAST = 100  # norms without which nothing is said


class AstrayError(FloatingPointError):
    """A gradient is so much larger than those before that the network can't be saved any more."""


class GradientNorms:
    """The norms of each update's latest gradients.

    ``far``: how many times the median a norm may be. In the one training that went astray, D's norm rose slowly to 100
    times the median and then to 1e10 times.
    """

    def __init__(self, far: float) -> None:
        self.far = far
        self.latest: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))

    def add(self, name: str, iteration: int, norm: float) -> None:
        """Add the norm of the gradient called ``name``. Raises AstrayError if it is over ``far`` times the median."""
        if not math.isfinite(norm):  # a GradScaler leaves such an update out
            return
        before = self.latest[name]
        if len(before) >= LEAST and norm > self.far * (median := statistics.median(before)) > 0:
            raise AstrayError(
                f"{name} is {norm:.1e} at iteration {iteration}, and the median of the {len(before)} before is "
                f"{median:.1e}: the training has gone astray. Go on from a checkpoint before it (path: resume_state) "
                "with a lower learning rate."
            )
        before.append(norm)
