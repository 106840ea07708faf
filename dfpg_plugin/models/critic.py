"""The discriminator of a DFPGModel as a whole: network, loss and optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from dfpg_plugin.models.microbatch import Losses


@dataclass(frozen=True)
class Critic:
    """The discriminator D, which tells the features of sharp faces from estimated features (Fig. 4b)."""

    net: nn.Module  # in a wrapper if several processes or GPUs train it
    loss: nn.Module  # on logits
    optimizer: torch.optim.Optimizer

    @property
    def bare(self) -> nn.Module:
        """Return the network without its wrapper."""
        return self.net.module if isinstance(self.net, DataParallel | DistributedDataParallel) else self.net

    def losses(self, target: Sequence[Tensor], estimated: Sequence[Tensor]) -> tuple[Losses, Losses]:
        """Return the two terms of Eq. 6, and the mean logits of both kinds. No gradient reaches the estimates."""
        real = self.net(target)
        fake = self.net([p.detach() for p in estimated])
        losses = {
            "l_d_real": self.loss(real, True, is_disc=True),
            "l_d_fake": self.loss(fake, False, is_disc=True),
        }
        return losses, {"out_d_real": real.mean(), "out_d_fake": fake.mean()}

    def generator_loss(self, estimated: Sequence[Tensor]) -> Tensor:
        """Return the loss of Eq. 8, which is small if D takes the estimates for features of sharp faces."""
        logits = self.bare(estimated)  # bare: D gets no gradient here, so processes have none to exchange
        return self.loss(logits, True, is_disc=False)

    def attend(self, features: list[Tensor]) -> list[Tensor]:
        """Weight the channels by D's attention (Eq. 4). Return the features unchanged if D has no ``attend``."""
        attend = getattr(self.bare, "attend", None)
        return features if attend is None else attend(features)
