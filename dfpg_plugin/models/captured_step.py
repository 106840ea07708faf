"""Record the losses and gradients of a training step as CUDA graphs, then replay the graphs without Python.

A step of DFPGNet launches several thousand kernels. A GPU waits half of the time for these launches. A CUDA graph
launches all kernels at once. Optimizers, averaged weights and learning rates stay outside of the graphs, so that the
rest of a training need not know about graphs.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from dfpg_plugin.models.microbatch import Part
from dfpg_plugin.speed.cuda_graphs import Recorder, Result

WARM_UP = 3  # iterations of a shape before the recording: meanwhile, libraries choose and compile their kernels


@dataclass
class Recorded:
    """The recorded computation of one update's losses and gradients."""

    replay: Callable[[], None]
    result: Result
    gradients: list[tuple[nn.Parameter, Tensor | None]]

    def again(self) -> Result:
        """Return the losses of the batch that the recorded inputs hold now, and set the parameters' gradients."""
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.result


@dataclass
class CapturedStep:
    """Computes the losses and gradients of a training's updates, from recorded graphs where possible.

    The first shape of batches that comes more than WARM_UP times is recorded. Batches of another shape are computed
    without graphs. ``recorder``: None to record nothing.
    """

    recorder: Recorder | None
    warmed_up: Counter = field(default_factory=Counter)  # iterations of each shape
    inputs: tuple[Tensor, Tensor] | None = None
    parts: list[Part] = field(default_factory=list)
    recorded: dict[str, Recorded] = field(default_factory=dict)
    is_recording: bool = False

    def begin(self, lq: Tensor, gt: Tensor, count: int) -> list[Part]:
        """Begin a step, and return its batch in at most ``count`` parts.

        For a recorded step, the batch is copied into the recorded inputs, and the parts are views of these inputs.
        """
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
        """Return the losses of the update called ``name``, and set the gradients of the parameters of ``net``.

        ``compute`` does both, and must not read a tensor's numbers on the CPU. If ``compute`` can't be recorded, the
        log says so once, and every step is computed without graphs.
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
        except Exception as error:  # a component may do anything that a graph can't hold
            self._give_up(error)
            return False
        self.recorded[name] = Recorded(replay, result, [(p, p.grad) for p in net.parameters()])
        return True

    def _give_up(self, error: Exception) -> None:
        """Compute this step and all later ones without graphs."""
        self.recorder, self.inputs, self.is_recording = None, None, False
        self.recorded.clear()
        for part in self.parts:
            part.estimate = None  # the recording has stored tensors there that were never computed
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        get_root_logger().warning(
            f"train:cuda_graph: the step can't be recorded ({reason}). Its kernels are launched one by one, which is "
            "slower. `cuda_graph: false` saves the attempt."
        )
