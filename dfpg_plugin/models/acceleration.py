"""What makes a training faster, or smaller in memory, as options under ``train``."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from dfpg_plugin.checks import UserError, check_choice, check_fields

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


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
    - ``compile``: whether the networks are compiled by ``torch.compile``.
    - ``tf32``: whether a GPU may round the factors of convolutions and matrix products to TF32; by default as torch
      does, for convolutions only.
    """

    amp: str | None = None
    accumulate: int = 1
    compile: bool = False
    tf32: bool | None = None

    @classmethod
    def read(cls, train: Mapping) -> "Acceleration":
        """Check and read ``train``'s keys; what is None is the default. Raises UserError."""
        names = [field.name for field in fields(cls)]
        given: dict[str, Any] = {name: train[name] for name in names if train.get(name) is not None}
        check_fields("train", cls, given)
        check_choice("train:amp", given.get("amp"), (None, *PRECISIONS))
        if given.get("accumulate", 1) < 1:
            raise UserError(f"train:accumulate: expected a whole number from 1, got {given['accumulate']}.")
        return cls(**given)

    def start(self) -> None:
        """Set what holds for the whole process."""
        if self.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32 = self.tf32
            torch.backends.cudnn.allow_tf32 = self.tf32

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return what scales the losses; it does nothing but for float16."""
        return torch.amp.GradScaler(device.type, enabled=self.amp == "float16")

    def compiled(self, net: nn.Module) -> nn.Module:
        """Return ``net``, its forward compiled in place where that is asked for, so that its state keeps its names."""
        if self.compile:
            net.compile()
        return net
