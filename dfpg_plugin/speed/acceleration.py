"""What makes a training faster, or smaller in memory, as options under ``train``."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from shutil import which

import torch
from basicsr.utils import get_root_logger
from torch import nn

from dfpg_plugin.options.schema import Computing
from dfpg_plugin.speed.cuda_graphs import CudaRecorder

KNOWN = (__name__.partition(".")[0], "basicsr", "torch")  # packages whose networks decide nothing in Python
COMPILERS = ("cc", "gcc", "clang")
LEAST_CAPABILITY = (7, 0)  # of a GPU, that Triton needs
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@cache
def can_compile(device: torch.device) -> bool:
    """Tell whether ``torch.compile`` will work on a GPU; the log says once what is missing."""
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
    """Return the context in which networks compute in ``dtype``, a key of :data:`PRECISIONS`; None is float32."""
    return nullcontext() if dtype is None else torch.autocast(device.type, PRECISIONS[dtype])


def channels_last(net: nn.Module) -> nn.Module:
    """Lay out a network's four-dimensional weights as convolutions of images are fastest, in place.

    ``net.to(memory_format=...)`` refuses networks with five-dimensional ones, as StyleGAN2's. A network with a
    part that has ``keeps_layout`` stays as it is.
    """
    if any(getattr(module, "keeps_layout", False) for module in net.modules()):
        return net
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return net


@dataclass(frozen=True)
class Acceleration:
    """The keys of ``train`` that change how a step is computed, not which.

    - ``amp``: ``bfloat16`` or ``float16``, in which the generator computes, under torch's autocast. Its weights, the
      prior, the discriminator, losses and optimizers stay in float32, and so does DFPGNet's last layer: the step's
      losses are then those of float32 to about 1e-5. With ``float16`` the losses are scaled (torch's GradScaler).
    - ``accumulate``: parts of a batch that are computed one after the other, their gradients added: the update is
      that of the whole batch, in the memory of a part. With a discriminator the generator runs once more for each.
    - ``compile``: whether ``torch.compile`` compiles the networks for their training; by default on a GPU, those that
      have ``compiled_parts``. These parts are compiled one by one, since one compilation serves all that are alike;
      other networks are compiled whole. Validation is never compiled: its images have many sizes.
    - ``cuda_graph``: whether the kernels of a step are recorded, and launched together from then on; by default on one
      GPU where all parts of networks and losses are this package's, BasicSR's or torch's. What a network decides in
      Python, such as to leave out a layer at random, is then decided once for all steps. The log says where it can't be
      had.
    - ``tf32``: whether a GPU may round the factors of convolutions and matrix products to TF32; by default as torch
      does, for convolutions only.
    """

    amp: str | None = None
    accumulate: int = 1
    compile: bool | None = None
    cuda_graph: bool | None = None
    tf32: bool | None = None

    @classmethod
    def read(cls, train: Mapping) -> "Acceleration":
        """Check and read ``train``'s keys; what is None is the default. Raises UserError."""
        keys = Computing.read("train", train)
        return cls(keys.amp, keys.accumulate, keys.compile, keys.cuda_graph, keys.tf32)

    def start(self) -> None:
        """Set what holds for the whole process."""
        if self.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32 = self.tf32
            torch.backends.cudnn.allow_tf32 = self.tf32

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return what scales the losses; it does nothing but for float16."""
        return torch.amp.GradScaler(device.type, enabled=self.amp == "float16")

    def compiled(self, net: nn.Module, device: torch.device) -> nn.Module:
        """Return ``net``, compiled in place where that is asked for, so that its state keeps its names."""
        parts = getattr(net, "compiled_parts", None)
        by_default = parts is not None and device.type == "cuda" and can_compile(device)
        if by_default if self.compile is None else self.compile:
            for part in [net] if parts is None else parts():
                # a compilation for each size: one for all sizes would serve a training's only one worse
                part.compile(dynamic=False)
        return net

    def recorder(self, device: torch.device, processes: int, networks: Iterable[nn.Module]) -> CudaRecorder | None:
        """Return what records a step's kernels, or None where they are launched one by one; say which in the log."""
        modules = {type(module) for net in networks for module in net.modules()}
        foreign = sorted(kind.__name__ for kind in modules if kind.__module__.partition(".")[0] not in KNOWN)
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
