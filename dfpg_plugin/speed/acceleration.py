"""Options under ``train`` that make a training faster, or smaller in memory."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from shutil import which

import torch
from basicsr.utils import get_root_logger
from torch import nn

from dfpg_plugin.options.schema import TrainingStep
from dfpg_plugin.speed.cuda_graphs import CudaRecorder

RECORDABLE = (__name__.partition(".")[0], "basicsr", "torch")  # packages whose networks decide nothing in Python
COMPILERS = ("cc", "gcc", "clang")
LEAST_CAPABILITY = (7, 0)  # the compute capability of a GPU that Triton needs
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@cache
def can_compile(device: torch.device) -> bool:
    """Tell whether ``torch.compile`` will work on a GPU. If not, the log says once what is missing."""
    if find_spec("triton") is None:
        missing = "the package triton"
    elif not any(map(which, COMPILERS)):
        missing = f"a C compiler ({', '.join(COMPILERS)})"
    elif torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        missing = "a GPU of compute capability 7.0 or more"
    else:
        return True
    get_root_logger().info(f"Nothing is compiled, which makes training slower: {missing} is missing.")
    return False


def autocast(dtype: str | None, device: torch.device) -> AbstractContextManager:
    """Return the context in which networks compute in ``dtype``, a key of :data:`PRECISIONS`. None means float32."""
    return nullcontext() if dtype is None else torch.autocast(device.type, PRECISIONS[dtype])


def channels_last(net: nn.Module) -> nn.Module:
    """Lay out a network's four-dimensional weights, in place, in the order that is fastest for images: channels last.

    ``net.to(memory_format=...)`` refuses networks with five-dimensional weights, such as StyleGAN2's. A network stays
    as it is if any of its modules has ``keeps_layout``.
    """
    if any(getattr(module, "keeps_layout", False) for module in net.modules()):
        return net
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return net


@dataclass(frozen=True)
class Acceleration:
    """The keys of ``train`` that change how a step is computed, not which step.

    - ``amp``: the type in which the generator computes, ``bfloat16`` or ``float16``, under torch's autocast. The
      weights, the prior, the discriminator, losses and optimizers stay in float32. DFPGNet's last layer stays in
      float32 too, so that the step's losses differ from those of float32 by about 1e-5. With ``float16``, torch's
      GradScaler scales the losses.
    - ``accumulate``: into how many parts a batch is cut. The parts are computed one after the other, and their
      gradients are added. The update is that of the whole batch, but takes the memory of one part. With a
      discriminator, the generator runs once more for each part.
    - ``compile``: whether ``torch.compile`` compiles the networks for training. By default, networks with
      ``compiled_parts`` are compiled on a GPU. These parts are compiled one by one, since one compilation serves all
      parts that are alike. Other networks are compiled whole. Validation runs uncompiled: its images have many sizes.
    - ``cuda_graph``: whether the kernels of a step are recorded, and launched together from then on. The default is
      True on one GPU, if all parts of networks and losses are this package's, BasicSR's or torch's. A decision that a
      network takes in Python, such as to leave out a layer at random, is then taken once for all steps. The log says
      why kernels are not recorded.
    - ``tf32``: whether a GPU may round the factors of convolutions and matrix products to TF32. By default torch
      decides: for convolutions only.
    """

    amp: str | None = None
    accumulate: int = 1
    compile: bool | None = None
    cuda_graph: bool | None = None
    tf32: bool | None = None

    @classmethod
    def read(cls, train: Mapping) -> "Acceleration":
        """Check and read ``train``'s keys; None stands for a key's default. Raises UserError for wrong values."""
        keys = TrainingStep.read("train", train)
        return cls(keys.amp, keys.accumulate, keys.compile, keys.cuda_graph, keys.tf32)

    def start(self) -> None:
        """Set the options that hold for the whole process."""
        if self.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32 = self.tf32
            torch.backends.cudnn.allow_tf32 = self.tf32

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return the scaler of the losses, which changes them only for float16."""
        return torch.amp.GradScaler(device.type, enabled=self.amp == "float16")

    def compiled(self, net: nn.Module, device: torch.device) -> nn.Module:
        """Return ``net``, compiled in place if that is wanted. The names in its state stay the same."""
        parts = getattr(net, "compiled_parts", None)
        by_default = parts is not None and device.type == "cuda" and can_compile(device)
        wanted = by_default if self.compile is None else self.compile
        if wanted:
            for part in [net] if parts is None else parts():
                # one compilation for each size: code for all sizes would be slower, and a training has one size
                part.compile(dynamic=False)
        return net

    def recorder(self, device: torch.device, processes: int, networks: Iterable[nn.Module]) -> CudaRecorder | None:
        """Return a recorder of a step's kernels, or None if they are launched one by one.

        The log says which, and why kernels are not recorded. Without a GPU, it does so only if ``cuda_graph`` is true.
        """
        modules = {type(module) for net in networks for module in net.modules()}
        foreign = sorted(kind.__name__ for kind in modules if kind.__module__.partition(".")[0] not in RECORDABLE)
        if device.type != "cuda":
            reason = "there is no GPU" if self.cuda_graph else None
        elif self.cuda_graph is False:
            reason = "train:cuda_graph is false"
        elif processes > 1:
            reason = "there are several processes or GPUs"
        elif foreign and self.cuda_graph is None:
            reason = (
                f"{foreign[0]} is of another package. If it draws and decides nothing in Python, set "
                "train:cuda_graph: true"
            )
        else:
            get_root_logger().info("The step is recorded as CUDA graphs in its fourth iteration.")
            return CudaRecorder()
        if reason is not None:
            get_root_logger().info(f"The step's kernels are launched one by one: {reason}.")
        return None
