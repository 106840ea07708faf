"""Losses of lists of features, one entry for each layer of the prior."""

from collections.abc import Sequence

from torch import Tensor, nn, stack


def over_layers(loss: nn.Module, estimated: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Return ``loss`` of two lists of features, a scalar.

    A loss with the attribute ``takes_layers``, such as ``PriorLoss``, gets both lists. Any other loss, such as
    BasicSR's MSELoss, gets the features of one layer (B,C_i,H_i,W_i) at a time, and its values are added up.
    """
    if getattr(loss, "takes_layers", False):
        return loss(estimated, target)
    return stack([loss(p_hat, p) for p_hat, p in zip(estimated, target, strict=True)]).sum()
