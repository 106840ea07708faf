"""Notice that a training goes astray: its gradients stay finite, but become far larger than before."""

import math
import statistics
from collections import defaultdict, deque

LATEST = 1000  # norms whose median a new norm is compared with
LEAST = 100  # norms that a comparison needs


class AstrayError(FloatingPointError):
    """A gradient is far larger than the gradients before it: the training can't recover."""


class GradientNorms:
    """The norms of the latest gradients, for D's update and for G's.

    ``far``: the largest factor between a norm and the median of the norms before it. In the one known training that
    went astray, D's norm rose slowly to 100 times the median, and then to 1e10 times.
    """

    def __init__(self, far: float) -> None:
        self.far = far
        self.latest: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))

    def add(self, name: str, iteration: int, norm: float) -> None:
        """Add a norm of the gradient called ``name``.

        Raises AstrayError if there are LEAST norms before it and the norm is over ``far`` times their median.
        """
        if not math.isfinite(norm):  # a GradScaler skips such an update
            return
        before = self.latest[name]
        median = statistics.median(before) if len(before) >= LEAST else 0
        if norm > self.far * median > 0:
            raise AstrayError(
                f"{name} is {norm:.1e} at iteration {iteration}, and the median of the {len(before)} before is "
                f"{median:.1e}: the training has gone astray. Resume from an earlier checkpoint (path: resume_state) "
                "with a lower learning rate."
            )
        before.append(norm)
