"""Parts of a batch with the networks' outputs for them, and contexts that control the gradients."""

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
    """The networks' outputs for some images."""

    restored: Tensor  # (B,3,H,W)
    estimated: list[Tensor]  # [P^1, P^2, P^3], each (B,C_i,H_i,W_i); empty if no loss needs a prior
    target: list[Tensor]  # [P1, P2, P3] of the sharp images; empty if no loss needs a prior

    @property
    def has_graph(self) -> bool:
        """Tell whether gradients can flow back to the generator."""
        return self.restored.requires_grad


@dataclass
class Part:
    """Some images of a batch, and the networks' latest outputs for them."""

    lq: Tensor  # (B,3,H,W)
    gt: Tensor
    estimate: Estimate | None = None

    @classmethod
    def of(cls, lq: Tensor, gt: Tensor, count: int) -> list["Part"]:
        """Cut a batch into at most ``count`` parts of equal size. The last part may be smaller."""
        return [cls(*pair) for pair in zip(lq.chunk(count), gt.chunk(count), strict=True)]

    @property
    def restored(self) -> Tensor:
        """Return the restored faces without a graph. Raises RuntimeError if the networks have not computed them yet."""
        if self.estimate is None:
            raise RuntimeError("The networks have not seen this part yet.")
        return self.estimate.restored.detach()


class Cosines(nn.Module):
    """The mean cosine between the channel vectors of each P_i and its estimate, as a module that torch can compile."""

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that ``torch.compile`` compiles."""
        return [self]

    @torch.no_grad()
    def forward(self, estimated: Sequence[Tensor], target: Sequence[Tensor]) -> Losses:
        """Return ``cos_p1``, ``cos_p2`` and so on, for two lists of features (B,C_i,H_i,W_i). Both may be empty."""
        pairs = enumerate(zip(estimated, target, strict=False), start=1)
        return {f"cos_p{i}": F.cosine_similarity(p_hat, p, dim=1).mean() for i, (p_hat, p) in pairs}


def gathering(net: nn.Module, last: bool) -> AbstractContextManager:
    """Let processes exchange gradients only at the last part. By then, each has added up those of all its parts."""
    return nullcontext() if last or not isinstance(net, DistributedDataParallel) else net.no_sync()


@contextmanager
def frozen(net: nn.Module | None) -> Iterator[None]:
    """Give a network's parameters no gradients. Gradients still flow through to its inputs (D and CA in Fig. 4b)."""
    if net is None:
        yield
        return
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)
