"""Whether the losses and gradients of a step are finite, told without letting a GPU wait.

On a CPU the values are looked at before an update is made. On a GPU, torch's fused optimizers leave out an update by
themselves where they are told to. The host looks at a GPU's values when something is logged or saved.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from dfpg_plugin.models.gradient_norms import GradientNorms

MOST_OVERFLOWS = 25  # in a row: each halves a GradScaler's scale, which is 2**16 at first
MOST_ITERATIONS = 1000  # whose values wait to be looked at, where nothing is logged or saved for that long


class NonFiniteLossError(FloatingPointError):
    """A loss term or a gradient became NaN or infinite; the message names it and the iteration."""

    def __init__(self, message: str, iteration: int = 0) -> None:
        super().__init__(message)
        self.iteration = iteration


class Values(NamedTuple):
    """The values of one update, which nobody has looked at.

    The last of them is 1 where the update was left out, the one before is the norm of its gradient.
    """

    iteration: int
    names: list[str]
    values: Tensor


class StepCheck:
    """Makes the updates of a training whose values are finite, and raises for the others.

    ``waits``: whether the host looks at the values of an update before it is made. Every process of a group makes the
    same calls; where one has a value that is not finite, none makes the update. ``astray_factor``: see GradientNorms.
    """

    def __init__(self, device: torch.device, astray_factor: float, world_size: int = 1) -> None:
        self.world_size = world_size
        self.waits = device.type == "cpu"
        self.pending: list[Values] = []
        self.norms = GradientNorms(astray_factor)
        # 1 where a value of this iteration is not finite; keeps its place in memory, which a CUDA graph knows
        self.bad = torch.zeros((), device=device)
        # of each optimizer, the updates in a row that a GradScaler left out
        self.overflows: dict[int, Tensor] = defaultdict(lambda: torch.zeros((), device=device))

    def begin(self, current_iter: int) -> None:
        """Begin an iteration. Raises NonFiniteLossError for an earlier one; this one is then still to be begun."""
        if self.pending and current_iter - self.pending[0].iteration >= MOST_ITERATIONS:
            self.settle()
        self.iteration = current_iter
        self.bad.zero_()

    def factor(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return what the sum of ``losses`` is to be multiplied with before its backward pass: 1.0 or NaN.

        The factor is NaN if any value of this iteration is not finite. Then no gradient is finite, and the update is
        left out: an infinite loss alone can have a finite gradient. Computed on the device, so that a CUDA graph can
        hold it.
        """
        values = torch.stack([value.detach().float() for value in losses.values()])
        bad = (~torch.isfinite(values)).any().float()
        if self.world_size > 1:
            distributed.all_reduce(bad, distributed.ReduceOp.MAX)
        self._note(bad)
        return torch.where(self.bad > 0, torch.nan, 1.0)

    def update(
        self,
        losses: Mapping[str, Tensor],
        norm: Tensor,
        optimizer: torch.optim.Optimizer,
        step: Callable[[], object],
        scaled: bool,
    ) -> None:
        """Make an update by ``step``, unless a value of this iteration is not finite.

        ``losses`` are those of the update, ``norm`` is the norm of its gradient. ``scaled``: a GradScaler makes the
        update, and leaves it out while its scale is too large; MOST_OVERFLOWS in a row are an error. Raises
        NonFiniteLossError, at once or, on a GPU, when :meth:`settle` is called.
        """
        bad = (~torch.isfinite(norm)).float()
        if scaled:
            overflows = self.overflows[id(optimizer)].add_(bad).mul_(bad)
            bad = (overflows > MOST_OVERFLOWS).float()
        self._note(bad)
        names = [*losses, f"the gradient of {' + '.join(losses)}"]
        values = torch.stack([value.detach().float() for value in (*losses.values(), norm, self.bad)])
        self.pending.append(Values(self.iteration, names, values))
        if scaled:
            step()
        elif self.waits or not getattr(optimizer, "_step_supports_amp_scaling", False):
            self.settle()
            step()
        else:
            optimizer.found_inf = self.bad  # type: ignore[attr-defined] # as a GradScaler does
            try:
                step()
            finally:
                del optimizer.found_inf  # type: ignore[attr-defined]

    def end(self) -> None:
        """End an iteration. Raises NonFiniteLossError where the host waits and has not looked yet."""
        if self.waits:
            self.settle()

    def settle(self) -> None:
        """Look at all values that nobody has looked at.

        Raises NonFiniteLossError for the first that is not finite; what came after that iteration is looked at by the
        next call. Raises AstrayError where a gradient is far larger than those before: a save is refused then.
        """
        if not self.pending:
            return
        pending, self.pending = self.pending, []
        last = torch.stack([looked.values[-2:] for looked in pending]).tolist()
        for looked, (norm, bad) in zip(pending, last, strict=True):
            if bad:
                self.pending = [values for values in pending if values.iteration > looked.iteration]
                raise self._error(looked)
            self.norms.add(looked.names[-1], looked.iteration, norm)

    def _note(self, bad: Tensor) -> None:
        torch.maximum(self.bad, bad, out=self.bad)

    def _error(self, looked: Values) -> NonFiniteLossError:
        values = looked.values[:-1].tolist()
        bad = {name: value for name, value in zip(looked.names, values, strict=True) if not math.isfinite(value)}
        first = next((f"{name} is {value}" for name, value in bad.items()), None)
        if self.world_size > 1:
            everyone: list[str | None] = [None] * self.world_size
            distributed.all_gather_object(everyone, own := next(iter(bad), None))
            gradient = looked.names[-1]
            told = [(rank, name) for rank, name in enumerate(everyone) if name is not None]
            rank, name = min(told, key=lambda of: of[1] == gradient)  # another's loss makes this process's gradient NaN
            if own is None or (own == gradient and name != gradient):
                first = f"{name} of process {rank} is not finite"
        return NonFiniteLossError(
            f"{first} at iteration {looked.iteration}. Nothing was updated or saved with it; lower the learning rate "
            "or set train.grad_clip_norm, then resume.",
            looked.iteration,
        )
