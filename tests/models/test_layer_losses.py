"""A loss of two lists of features, whether the loss takes lists or tensors."""

import torch

from dfpg_plugin.losses.prior_loss import PriorLoss, prior_loss
from dfpg_plugin.models.layer_losses import over_layers


def test_a_loss_of_single_tensors_is_summed_over_the_layers() -> None:
    estimated, target = ([torch.rand(2, c, 4, 4) for c in (3, 5)] for _ in range(2))
    expected = sum((a - b).square().mean() for a, b in zip(estimated, target, strict=True))
    torch.testing.assert_close(over_layers(torch.nn.MSELoss(), estimated, target), expected)
    assert over_layers(PriorLoss(), estimated, target) == prior_loss(estimated, target)


class Theirs(torch.nn.Module):
    """A loss of another package, which counts what it gets."""

    def forward(self, estimated: object, target: object) -> torch.Tensor:
        return torch.tensor(100.0 if isinstance(estimated, list) else 1.0)


def test_a_loss_of_another_package_gets_lists_where_others_do_or_its_attribute_says_so() -> None:
    features = [torch.zeros(2, c, 4, 4) for c in (3, 5)]
    loss = Theirs()
    assert [over_layers(loss, features, features, others=others).item() for others in (False, True)] == [2, 100]
    assert over_layers(torch.nn.MSELoss(), features, features, others=True) == 0
    for takes_layers, value in ((True, 100), (False, 2)):
        loss.takes_layers = takes_layers
        assert over_layers(loss, features, features, others=not takes_layers) == value
