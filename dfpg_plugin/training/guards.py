"""What a training does about a step whose losses or gradients are not finite: ``train:non_finite``."""

import math
from collections import deque
from collections.abc import Mapping

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger

from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.nonfinite import MOST_ITERATIONS, NonFiniteLossError
from dfpg_plugin.options.schema import STOP, NonFinite

MOST_NAMES = 8  # names of files in a message
PATH_KEYS = ("lq_path", "gt_path")  # keys of a batch; the first that is there holds the files' names


class Guard:
    """Trains steps, and counts the skipped ones."""

    def __init__(self, options: NonFinite) -> None:
        self.options = options
        self.skipped = 0
        # iterations whose values may not be known yet, each with the names of its batch's files for an error
        self.files: deque[tuple[int, str]] = deque(maxlen=MOST_ITERATIONS + 1)

    def step(self, model: BaseModel, data: Mapping, current_iter: int, settle: bool = False) -> bool:
        """Train one step. Return False if this step is known to be skipped.

        A GPU's losses and gradients become known after the step. ``settle``: wait until they are known.

        Raises NonFiniteLossError, naming the batch's files, for a step that may not be skipped. Only a MendedModel's
        step may be skipped. A model of BasicSR's own updates its weights before anybody can look at the losses.
        """
        self.files.append((current_iter, _files(data)))
        while True:  # try this step again if the error is about an earlier step
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
        """Wait until the losses and gradients of all steps are known. Return False if this step is skipped.

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
                    f"weights with it. Nothing of it is saved; lower the learning rate, then resume. "
                    f"{dict(self.files)[current_iter]}"
                )


def _files(data: Mapping) -> str:
    names = next((list(data[key]) for key in PATH_KEYS if key in data), [])
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"The batch: {', '.join(map(str, names[:MOST_NAMES]))}{rest}." if names else "The batch has no names."
