"""Check that the losses and gradients of a step are finite, without letting a GPU wait.

On a CPU, the values are read before an update is made. On a GPU, a flag in the GPU's memory tells torch's fused
optimizers to skip an update. The values of a GPU are read when something is logged or saved.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from dfpg_plugin.models.gradient_norms import GradientNorms

MOST_OVERFLOWS = 25  # skipped updates in a row: each halves a GradScaler's scale, which is 2**16 at first
MOST_ITERATIONS = 1000  # iterations after which values are read if nothing was logged or saved


class NonFiniteLossError(FloatingPointError):
    """A loss term or a gradient became NaN or infinite. The message names the term and the iteration."""

    def __init__(self, message: str, iteration: int = 0) -> None:
        super().__init__(message)
        self.iteration = iteration


class UnreadValues(NamedTuple):
    """The values of one update that the host has not read yet."""

    iteration: int
    names: list[str]  # of the losses and of the gradient, such as l_a, l_b, the gradient of l_a + l_b
    values: Tensor  # the losses, the norm of the gradient, and StepCheck.bad at the time of the update


class StepCheck:
    """Makes each update of a training whose values are finite, and raises an error about any other.

    Every process of a group makes the same calls. If one process has a value that is not finite, no process makes the
    update. ``waits``: whether the host reads the values of an update before it is made. ``astray_factor``: see
    GradientNorms.
    """

    def __init__(self, device: torch.device, astray_factor: float, world_size: int = 1) -> None:
        self.world_size = world_size
        self.waits = device.type == "cpu"
        self.pending: list[UnreadValues] = []
        self.norms = GradientNorms(astray_factor)
        # 1 if a value of this iteration is not finite, else 0; always the same tensor: a CUDA graph keeps its address
        self.bad = torch.zeros((), device=device)
        # for each optimizer, how many updates in a row a GradScaler has skipped
        self.overflows: dict[int, Tensor] = defaultdict(lambda: torch.zeros((), device=device))

    def begin(self, current_iter: int) -> None:
        """Begin an iteration. Raises NonFiniteLossError about an earlier iteration; then call ``begin`` again."""
        if self.pending and current_iter - self.pending[0].iteration >= MOST_ITERATIONS:
            self.settle()
        self.iteration = current_iter
        self.bad.zero_()

    def factor(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return 1.0, or NaN if any value of this iteration is not finite.

        Multiply the sum of ``losses`` by this factor before the backward pass. NaN makes the gradient NaN, so that the
        update is skipped. Without the factor, an infinite loss can have a finite gradient. The factor is computed on
        the device, so that a CUDA graph can hold the computation.
        """
        values = torch.stack([value.detach().float() for value in losses.values()])
        bad = (~torch.isfinite(values)).any().float()
        if self.world_size > 1:
            distributed.all_reduce(bad, distributed.ReduceOp.MAX)
        torch.maximum(self.bad, bad, out=self.bad)
        return torch.where(self.bad > 0, torch.nan, 1.0)

    def update(
        self,
        losses: Mapping[str, Tensor],
        norm: Tensor,
        optimizer: torch.optim.Optimizer,
        step: Callable[[], object],
        scaled: bool,
    ) -> None:
        """Call ``step`` to make an update. No weight changes if a value of this iteration is not finite.

        ``losses`` are the losses of the update, ``norm`` is the norm of its gradient. ``scaled``: ``step`` is a
        GradScaler's. A GradScaler skips updates while its scale is too large. More than MOST_OVERFLOWS skipped updates
        in a row are an error. Raises NonFiniteLossError, at once or at a later call of :meth:`settle`.
        """
        bad = (~torch.isfinite(norm)).float()
        if scaled:
            overflows = self.overflows[id(optimizer)].add_(bad).mul_(bad)
            bad = (overflows > MOST_OVERFLOWS).float()
        torch.maximum(self.bad, bad, out=self.bad)
        names = [*losses, f"the gradient of {' + '.join(losses)}"]
        values = torch.stack([value.detach().float() for value in (*losses.values(), norm, self.bad)])
        self.pending.append(UnreadValues(self.iteration, names, values))
        if scaled:
            step()
        elif self.waits or not getattr(optimizer, "_step_supports_amp_scaling", False):
            self.settle()  # before the update, which this optimizer can't skip by itself
            step()
        else:  # a fused optimizer skips the update if found_inf is 1; a GradScaler uses the same attribute
            optimizer.found_inf = self.bad  # type: ignore[attr-defined]
            try:
                step()
            finally:
                del optimizer.found_inf  # type: ignore[attr-defined]

    def end(self) -> None:
        """End an iteration. On a CPU, read all unread values, which raises as :meth:`settle` does."""
        if self.waits:
            self.settle()

    def settle(self) -> None:
        """Read the unread values.

        Raises NonFiniteLossError about the first update with a value that is not finite. The values of later iterations
        stay unread until the next call. Raises AstrayError if a gradient is far larger than the gradients before it.
        """
        if not self.pending:
            return
        pending, self.pending = self.pending, []
        norms_and_flags = torch.stack([update.values[-2:] for update in pending]).tolist()
        for update, (norm, bad) in zip(pending, norms_and_flags, strict=True):
            if bad:
                self.pending = [later for later in pending if later.iteration > update.iteration]
                raise self._error(update)
            self.norms.add(update.names[-1], update.iteration, norm)

    def _error(self, update: UnreadValues) -> NonFiniteLossError:
        values = update.values[:-1].tolist()
        bad = {name: value for name, value in zip(update.names, values, strict=True) if not math.isfinite(value)}
        own = next(iter(bad), None)
        cause = "" if own is None else f"{own} is {bad[own]}"
        if self.world_size > 1:
            everyone: list[str | None] = [None] * self.world_size
            distributed.all_gather_object(everyone, own)
            gradient = update.names[-1]
            found = [(rank, name) for rank, name in enumerate(everyone) if name is not None]
            # a loss rather than a gradient: another process's loss makes this process's gradient NaN
            rank, name = min(found, key=lambda pair: pair[1] == gradient)
            if own is None or (own == gradient and name != gradient):
                cause = f"{name} of process {rank} is not finite"
        return NonFiniteLossError(
            f"{cause} at iteration {update.iteration}. Nothing was updated or saved with this value. Lower the "
            "learning rate or set train.grad_clip_norm, then resume.",
            update.iteration,
        )
