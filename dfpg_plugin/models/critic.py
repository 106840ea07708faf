"""The discriminator of a DFPGModel as a whole: network, loss and optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from dfpg_plugin.models.microbatch import Losses


@dataclass(frozen=True)
class Critic:
    """D, which tells the features of sharp faces from estimated ones (Fig. 4b)."""

    net: nn.Module  # wrapped where several processes train it
    loss: nn.Module  # on logits
    optimizer: torch.optim.Optimizer

    @property
    def bare(self) -> nn.Module:
        """Return the network without the wrapper for several processes."""
        return self.net.module if isinstance(self.net, DataParallel | DistributedDataParallel) else self.net

    def losses(self, target: Sequence[Tensor], estimated: Sequence[Tensor]) -> tuple[Losses, Losses]:
        """Return the two terms of Eq. 6, and the mean logits. No gradient reaches the estimates."""
        real = self.net(target)
        fake = self.net([p.detach() for p in estimated])
        losses = {
            "l_d_real": self.loss(real, True, is_disc=True),
            "l_d_fake": self.loss(fake, False, is_disc=True),
        }
        return losses, {"out_d_real": real.mean(), "out_d_fake": fake.mean()}

    def generator_loss(self, estimated: Sequence[Tensor]) -> Tensor:
        """Return Eq. 8: how far D is from taking the estimates for real ones."""
        logits = self.bare(estimated)  # bare: D gets no gradient here that processes would have to share
        return self.loss(logits, True, is_disc=False)

    def attend(self, features: list[Tensor]) -> list[Tensor]:
        """Weight the channels with D's attention (Eq. 4), where D has one."""
        attend = getattr(self.bare, "attend", None)
        return features if attend is None else attend(features)
