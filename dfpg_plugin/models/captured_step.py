"""A training step's losses and gradients as CUDA graphs: recorded once, replayed without Python.

A step of DFPGNet launches several thousand kernels, for which a GPU waits half of the time. A CUDA graph launches them
all at once. Optimizers, averages and learning rates stay outside of the graphs, so that nothing else of a training has
to know about them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from dfpg_plugin.models.microbatch import Part
from dfpg_plugin.speed.cuda_graphs import Recorder, Result

WARM_UP = 3  # iterations of a shape before the recording, in which libraries choose and compile their kernels


@dataclass
class Recorded:
    """One update's losses and gradients, as they were recorded."""

    replay: Callable[[], None]
    result: Result
    gradients: list[tuple[nn.Parameter, Tensor | None]]

    def again(self) -> Result:
        """Compute the losses and gradients of the batch that is in the recorded inputs now."""
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.result


@dataclass
class CapturedStep:
    """Runs the updates of a training's steps, and records those of the shape of batches that first came often enough.

    Batches of another shape are computed as they come. ``recorder`` is None where nothing is to be recorded.
    """

    recorder: Recorder | None
    warmed_up: Counter = field(default_factory=Counter)  # iterations of each shape
    inputs: tuple[Tensor, Tensor] | None = None
    parts: list[Part] = field(default_factory=list)
    recorded: dict[str, Recorded] = field(default_factory=dict)
    is_recording: bool = False

    def begin(self, lq: Tensor, gt: Tensor, count: int) -> list[Part]:
        """Begin a step; return its batch in ``count`` parts, of the recorded inputs where the step is recorded."""
        shape = (lq.shape, gt.shape)
        self.warmed_up[shape] += 1
        if self.recorder is not None and self.inputs is None and self.warmed_up[shape] > WARM_UP:
            self.inputs = (torch.empty_like(lq), torch.empty_like(gt))
            self.parts = Part.of(*self.inputs, count)
        self.is_recording = self.inputs is not None and shape == tuple(static.shape for static in self.inputs)
        if self.inputs is None or not self.is_recording:
            return Part.of(lq, gt, count)
        for static, given in zip(self.inputs, (lq, gt), strict=True):
            static.copy_(given)
        return self.parts

    def gradients(self, name: str, net: nn.Module, compute: Callable[[], Result]) -> Result:
        """Return the losses of the update called ``name``, and leave its gradients in the parameters of ``net``.

        ``compute`` does both, without a look at a tensor's numbers. Where it can't be recorded, the log says so once
        and every step is computed as it comes.
        """
        if not self.is_recording or self.recorder is None:
            return compute()
        if name not in self.recorded and not self._record(self.recorder, name, net, compute):
            return compute()
        return self.recorded[name].again()

    def _record(self, recorder: Recorder, name: str, net: nn.Module, compute: Callable[[], Result]) -> bool:
        try:
            replay, result = recorder.record(compute)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a component does that a graph can't hold
            self._give_up(error)
            return False
        self.recorded[name] = Recorded(replay, result, [(p, p.grad) for p in net.parameters()])
        return True

    def _give_up(self, error: Exception) -> None:
        """Compute this and all later steps as they come."""
        self.recorder, self.inputs, self.is_recording = None, None, False
        self.recorded.clear()
        for part in self.parts:
            part.estimate = None  # what the recording left there was never computed
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        get_root_logger().warning(
            f"train:cuda_graph: the step can't be recorded ({reason}), so that each of its kernels is launched alone, "
            "which is slower. `cuda_graph: false` leaves out the attempt."
        )
