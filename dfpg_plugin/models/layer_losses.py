"""Losses of lists of features, one entry for each layer of the prior."""

from collections.abc import Sequence

from torch import Tensor, nn, stack


def over_layers(loss: nn.Module, estimated: Sequence[Tensor], target: Sequence[Tensor], others: bool = False) -> Tensor:
    """Return ``loss`` of two lists of features, a scalar.

    A loss whose attribute ``takes_layers`` is true, such as ``PriorLoss``, gets both lists. Losses of BasicSR and torch
    get the features of one layer (B,C_i,H_i,W_i) at a time, and the values are added up. ``others``: whether losses of
    other packages that have no such attribute get both lists.
    """
    is_known = type(loss).__module__.split(".")[0] in ("basicsr", "torch")
    if getattr(loss, "takes_layers", others and not is_known):
        return loss(estimated, target)
    return stack([loss(p_hat, p) for p_hat, p in zip(estimated, target, strict=True)]).sum()
