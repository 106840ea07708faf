"""Stop a training, or skip a step, if a loss or a gradient is not finite. The option is ``train:non_finite``."""

import math
from collections import deque
from collections.abc import Mapping

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger

from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.nonfinite import MOST_ITERATIONS, NonFiniteLossError
from dfpg_plugin.options.schema import STOP, NonFinite

MOST_NAMES = 8  # file names in a message
PATH_KEYS = ("lq_path", "gt_path")  # the first of these keys that a batch has gives the names of the batch's files


class Guard:
    """Trains step by step. A step that may be skipped is skipped and counted."""

    def __init__(self, options: NonFinite) -> None:
        self.options = options
        self.skipped = 0
        # the latest iterations and the files of their batches: an error may be about an earlier iteration
        self.files: deque[tuple[int, str]] = deque(maxlen=MOST_ITERATIONS + 1)

    def step(self, model: BaseModel, data: Mapping, current_iter: int, settle: bool = False) -> bool:
        """Train one step. Return False if this step is already known to be skipped.

        On a GPU, losses and gradients become known after the step. ``settle``: wait until they are known.

        Raises NonFiniteLossError, with the names of the batch's files, for a step that may not be skipped. Only steps
        of a MendedModel may be skipped. BasicSR's own models update their weights before the losses can be checked.
        """
        self.files.append((current_iter, _describe_files(data)))
        while True:  # an error about an earlier step leaves this step undone: try this step again
            try:
                model.optimize_parameters(current_iter)
                break
            except NonFiniteLossError as error:
                self._skip_or_stop(error)
                if error.iteration == current_iter:
                    return False
        if not isinstance(model, MendedModel):
            self._check_log(model, current_iter)
        return self.settle(model, current_iter) if settle else True

    def settle(self, model: BaseModel, current_iter: int) -> bool:
        """Wait until the losses and gradients of all steps are known. Return False if ``current_iter`` is skipped.

        Raises NonFiniteLossError as :meth:`step` does.
        """
        trained = True
        while isinstance(model, MendedModel):
            try:
                model.check.settle()
                break
            except NonFiniteLossError as error:
                self._skip_or_stop(error)
                trained = trained and error.iteration != current_iter
        return trained

    def _skip_or_stop(self, error: NonFiniteLossError) -> None:
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
                    f"weights with it. These weights are not saved. Lower the learning rate, then resume. "
                    f"{dict(self.files)[current_iter]}"
                )


def _describe_files(data: Mapping) -> str:
    names = next((list(data[key]) for key in PATH_KEYS if key in data), [])
    if not names:
        return "The batch has no file names."
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"The batch: {', '.join(map(str, names[:MOST_NAMES]))}{rest}."
