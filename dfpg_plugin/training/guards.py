"""What a training does about a step whose losses or gradients are not finite: ``train:non_finite``."""

import math
from collections import deque
from collections.abc import Mapping

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger

from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.nonfinite import MOST_ITERATIONS, NonFiniteLossError
from dfpg_plugin.options.schema import STOP, NonFinite

MOST_NAMES = 8
PATHS = ("lq_path", "gt_path")


class Guard:
    """Trains steps, and counts those that were left out."""

    def __init__(self, options: NonFinite) -> None:
        self.options = options
        self.skipped = 0
        self.files: deque[tuple[int, str]] = deque(maxlen=MOST_ITERATIONS + 1)  # those that may have to be named

    def step(self, model: BaseModel, data: Mapping, current_iter: int, settle: bool = False) -> bool:
        """Train one step; return whether it was, or was skipped. Raises NonFiniteLossError, naming the batch's files.

        ``settle``: wait until that is known, which on a GPU it is later. A model of BasicSR updates its weights before
        anybody can look at its losses: it can only be stopped.
        """
        self.files.append((current_iter, _files(data)))
        while True:  # again where it was an earlier iteration that turned out not to be finite
            try:
                model.optimize_parameters(current_iter)
                break
            except NonFiniteLossError as error:
                self._skip(error)
                if error.iteration == current_iter:
                    return False
        if not isinstance(model, MendedModel):
            self._check_log(model, current_iter)
        return self.settle(model, current_iter) if settle else True

    def settle(self, model: BaseModel, current_iter: int) -> bool:
        """Wait for all that is not yet known to be finite; return whether this step was. Raises as ``step``."""
        trained = True
        while isinstance(model, MendedModel):
            try:
                model.check.settle()
                break
            except NonFiniteLossError as error:
                self._skip(error)
                trained = trained and error.iteration != current_iter
        return trained

    def _skip(self, error: NonFiniteLossError) -> None:
        files = dict(self.files).get(error.iteration, "")
        self.skipped += 1
        if self.options.action == STOP or self.skipped > self.options.limit:
            raise NonFiniteLossError(f"{error} {files}") from error
        get_root_logger().warning(f"Skipped, {self.skipped} of at most {self.options.limit}: {error} {files}")

    def _check_log(self, model: BaseModel, current_iter: int) -> None:
        for name, value in model.get_current_log().items():
            if not math.isfinite(value):
                raise NonFiniteLossError(
                    f"{name} is {value} at iteration {current_iter}, and {type(model).__name__} has updated its "
                    f"weights with it. Nothing of it is saved; lower the learning rate, then resume. "
                    f"{dict(self.files)[current_iter]}"
                )


def _files(data: Mapping) -> str:
    names = next((list(data[key]) for key in PATHS if key in data), [])
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"The batch: {', '.join(map(str, names[:MOST_NAMES]))}{rest}." if names else "The batch has no names."
