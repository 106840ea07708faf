"""Whether the losses and gradients of a step are finite, told without letting a GPU wait.

On a CPU the values are looked at before an update is made. On a GPU, torch's fused optimizers leave out an update by
themselves where they are told to, and the host looks at the values of an iteration when the next but one begins.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, distributed

MOST_OVERFLOWS = 25  # in a row: each halves a GradScaler's scale, which is 2**16 at first
LAG = 2  # iterations: while the host looks at the first, the GPU still has the second to do


class NonFiniteLossError(FloatingPointError):
    """A loss term or a gradient became NaN or infinite; the message names it and the iteration."""

    def __init__(self, message: str, iteration: int = 0) -> None:
        super().__init__(message)
        self.iteration = iteration


class Values(NamedTuple):
    """What is to be looked at: the values of some names, and last whether any process has a bad one."""

    iteration: int
    names: list[str]
    values: Tensor
    copied: torch.cuda.Event | None


class StepCheck:
    """Makes the updates of a training whose values are finite, and raises for the others.

    ``waits``: whether the host looks at the values of an update before it is made. Every process of a group makes the
    same calls; where one has a value that is not finite, none makes the update.
    """

    def __init__(self, device: torch.device, world_size: int = 1) -> None:
        self.device = device
        self.world_size = world_size
        self.waits = device.type == "cpu"
        self.pending: deque[Values] = deque()
        self.bad = torch.zeros((), device=device)
        self.overflows = torch.zeros((), device=device)  # updates in a row that a GradScaler left out

    def begin(self, current_iter: int) -> None:
        """Begin an iteration. Raises NonFiniteLossError for an earlier one; this one is then still to be begun."""
        self.settle(LAG - 1)
        self.iteration = current_iter
        self.bad = torch.zeros((), device=self.device)

    def factor(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Note losses; return what their sum is to be multiplied with before its backward pass.

        1, or NaN where a value of this iteration is not finite, for then no gradient of it may be: an infinite loss can
        have a finite one.
        """
        values = torch.stack([value.detach().float() for value in losses.values()])
        bad = (~torch.isfinite(values)).any().float()
        if self.world_size > 1:
            distributed.all_reduce(bad, distributed.ReduceOp.MAX)
        self._note(list(losses), values, bad)
        return torch.where(self.bad > 0, torch.nan, 1.0)

    def update(
        self, what: str, norm: Tensor, optimizer: torch.optim.Optimizer, step: Callable[[], object], scaled: bool
    ) -> None:
        """Make an update by ``step`` unless the norm of its gradient, called ``what``, is not finite.

        Nor where another value of this iteration is not. ``scaled``: a GradScaler makes the update, and leaves it out
        while its scale is too large; MOST_OVERFLOWS in a row are an error. Raises NonFiniteLossError, at once or, on a
        GPU, later.
        """
        bad = (~torch.isfinite(norm)).float()
        if scaled:
            self.overflows = (self.overflows + bad) * bad
            bad = (self.overflows > MOST_OVERFLOWS).float()
        self._note([what], norm.detach().float().view(1), bad)
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

    def settle(self, leave: int = 0) -> None:
        """Look at what is left to be looked at, except the last ``leave`` iterations. Raises NonFiniteLossError."""
        kept = sorted({values.iteration for values in self.pending})[-leave:] if leave else []
        while self.pending and self.pending[0].iteration not in kept:
            looked = self.pending.popleft()
            if looked.copied is not None:
                looked.copied.synchronize()
            if looked.values[-1]:
                self.pending = deque(values for values in self.pending if values.iteration != looked.iteration)
                raise self._error(looked)

    def _note(self, names: list[str], values: Tensor, bad: Tensor) -> None:
        self.bad = torch.maximum(self.bad, bad)
        self.pending.append(self._start_copy(names, torch.cat([values, bad.view(1)])))

    def _start_copy(self, names: list[str], values: Tensor) -> Values:
        if values.device.type != "cuda":
            return Values(self.iteration, names, values, None)
        host = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return Values(self.iteration, names, host, copied)

    def _error(self, looked: Values) -> NonFiniteLossError:
        values = looked.values[:-1].tolist()
        bad = {name: value for name, value in zip(looked.names, values, strict=True) if not math.isfinite(value)}
        first = next((f"{name} is {value}" for name, value in bad.items()), None)
        if self.world_size > 1:
            everyone: list[str | None] = [None] * self.world_size
            distributed.all_gather_object(everyone, next(iter(bad), None))
            rank, name = next((rank, name) for rank, name in enumerate(everyone) if name is not None)
            first = first or f"{name} of process {rank} is not finite"
        return NonFiniteLossError(
            f"{first} at iteration {looked.iteration}. Nothing was updated or saved with it; lower the learning rate "
            "or set train.grad_clip_norm, then resume.",
            looked.iteration,
        )
