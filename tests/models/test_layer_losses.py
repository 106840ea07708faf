"""A loss of two lists of features, whether the loss takes lists or tensors."""

import torch

from dfpg_plugin.losses.prior_loss import PriorLoss, prior_loss
from dfpg_plugin.models.layer_losses import over_layers


def test_a_loss_of_single_tensors_is_summed_over_the_layers() -> None:
    estimated, target = ([torch.rand(2, c, 4, 4) for c in (3, 5)] for _ in range(2))
    expected = sum((a - b).square().mean() for a, b in zip(estimated, target, strict=True))
    torch.testing.assert_close(over_layers(torch.nn.MSELoss(), estimated, target), expected)
    assert over_layers(PriorLoss(), estimated, target) == prior_loss(estimated, target)
