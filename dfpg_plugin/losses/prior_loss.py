"""The prior loss of DFPGNet, section 3.4, Fig. 4b, Eq. 9."""

from collections.abc import Mapping, Sequence

from basicsr.archs import build_network
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn, no_grad, stack
from torch.nn import functional as F

from dfpg_plugin.checks import UserError, check_choice, check_feature_maps

REDUCTIONS = ("mean", "mean_hw", "sum")
EPS = 1e-6  # not in the paper: keeps the gradient finite where all channels are zero


def prior_loss(estimated: Sequence[Tensor], target: Sequence[Tensor], reduction: str = "mean") -> Tensor:
    """Return the sum over layers of the squared distance between channel-normalised features (Eq. 9), a scalar.

    Both arguments are lists of (B,C_i,H_i,W_i), with or without channel attention. Every pixel's channel vector is
    scaled to length 1. The loss is computed in float32, also under autocast. ``reduction`` of a layer's squares:

    - ``sum``: sum over C, H and W, mean over B. Eq. 9 to the letter.
    - ``mean_hw``: sum over C, mean over B, H and W, as in LPIPS, which the paper cites.
    - ``mean``: mean over B, C, H and W, as in the laboratory's follow-up code (SAPPGAN). The default.

    Raises UserError for a tensor in the place of a list.
    """
    if isinstance(estimated, Tensor) or isinstance(target, Tensor):
        raise UserError(
            "PriorLoss compares lists of feature maps (B,C,H,W), not two tensors. Use it as train:prior_opt or "
            "train:feature_opt; for images there is PriorPerceptualLoss, as train:perceptual_opt."
        )
    terms = []
    for p_hat, p in zip(estimated, target, strict=True):
        squared = (normalise(p_hat) - normalise(p)).square()
        if reduction == "mean":
            terms.append(squared.mean())
        elif reduction == "mean_hw":
            terms.append(squared.sum(dim=1).mean())
        else:
            terms.append(squared.sum(dim=1).sum(dim=(1, 2)).mean())
    return stack(terms).sum()


def normalise(feature: Tensor) -> Tensor:
    """Scale every pixel's channel vector of (B,C,H,W) to length 1, in float32. A zero vector stays zero."""
    return F.normalize(feature.float(), dim=1, eps=EPS)


def _check_arguments(name: str, loss_weight: object, reduction: object) -> None:
    if isinstance(loss_weight, bool) or not isinstance(loss_weight, int | float):
        raise UserError(f"{name} loss_weight: expected a number, got {loss_weight!r}.")
    check_choice(f"{name} reduction", reduction, REDUCTIONS)


@LOSS_REGISTRY.register()
class PriorLoss(nn.Module):
    """:func:`prior_loss` times ``loss_weight``. The paper's lambda_prior (Eq. 10) is 1."""

    takes_layers = True  # the lists of all layers' features, not the features of one layer

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        _check_arguments("PriorLoss", loss_weight, reduction)
        self.loss_weight = loss_weight
        self.reduction = reduction

    def compiled_parts(self) -> list[nn.Module]:
        """Return what ``torch.compile`` compiles: the whole loss. Compiled, it reads features twice, not nine times."""
        return [self]

    def forward(self, estimated: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Return the weighted loss of two lists of (B,C_i,H_i,W_i), a scalar."""
        return self.loss_weight * prior_loss(estimated, target, self.reduction)


@LOSS_REGISTRY.register()
class PriorPerceptualLoss(nn.Module):
    """:func:`prior_loss` between an extractor's features of two images, for the ``perceptual_opt`` of any model.

    ``network_prior``: the options of a registered extractor. It maps (B,3,H,W) in [0,1] to a list of features.
    """

    def __init__(self, *, network_prior: Mapping, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        _check_arguments("PriorPerceptualLoss", loss_weight, reduction)
        self.extractor = build_network(dict(network_prior)).requires_grad_(False).eval()
        self.loss_weight = loss_weight
        self.reduction = reduction

    def forward(self, restored: Tensor, gt: Tensor) -> tuple[Tensor, None]:
        """Return the weighted loss of two (B,3,H,W) in [0,1], a scalar, and None in the place of a style loss."""
        with no_grad():
            target = self.extractor(gt)
        check_feature_maps(type(self.extractor).__name__, target)
        return self.loss_weight * prior_loss(self.extractor(restored), target, self.reduction), None
