"""Some images of a batch, what the networks make of them, and which gradients are computed meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Estimate:
    """What the networks make of some images."""

    restored: Tensor  # (B,3,H,W)
    estimated: list[Tensor]  # [P^1, P^2, P^3]; empty where no loss needs them
    target: list[Tensor]  # [P1, P2, P3]; empty likewise

    @property
    def has_graph(self) -> bool:
        """Tell whether gradients can flow back to the generator."""
        return self.restored.requires_grad


@dataclass
class Part:
    """Some images of a batch, and what the networks have made of them so far."""

    lq: Tensor
    gt: Tensor
    estimate: Estimate | None = None

    @classmethod
    def of(cls, lq: Tensor, gt: Tensor, count: int) -> list["Part"]:
        """Cut a batch into ``count`` parts."""
        return [cls(*pair) for pair in zip(lq.chunk(count), gt.chunk(count), strict=True)]

    @property
    def restored(self) -> Tensor:
        """Return the restored faces, which have been computed before."""
        if self.estimate is None:
            raise RuntimeError("The networks have not seen this part yet.")
        return self.estimate.restored.detach()


class Cosines(nn.Module):
    """The mean cosine between the channel vectors of each P_i and its estimate, a module so that it can be compiled."""

    def compiled_parts(self) -> list[nn.Module]:
        """Return what ``torch.compile`` compiles."""
        return [self]

    @torch.no_grad()
    def forward(self, estimated: Sequence[Tensor], target: Sequence[Tensor]) -> Losses:
        """Return the means for two lists of (B,C_i,H_i,W_i), as ``cos_p1`` and so on; nothing without estimates."""
        pairs = enumerate(zip(estimated, target, strict=False), start=1)
        return {f"cos_p{i}": F.cosine_similarity(p_hat, p, dim=1).mean() for i, (p_hat, p) in pairs}


def gathering(net: nn.Module, last: bool) -> AbstractContextManager:
    """Let processes exchange the gradients of the last part only, which are then those of all parts."""
    return nullcontext() if last or not isinstance(net, DistributedDataParallel) else net.no_sync()


@contextmanager
def frozen(net: nn.Module | None) -> Iterator[None]:
    """Keep gradients out of a network, while they still flow through it (D and CA in Fig. 4b)."""
    if net is None:
        yield
        return
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)
