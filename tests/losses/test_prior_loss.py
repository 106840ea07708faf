"""The prior loss against Eq. 9, written out in float64 loops."""

import numpy as np
import pytest
import torch
from basicsr.losses import build_loss

from dfpg_plugin.checks import UserError
from dfpg_plugin.losses.prior_loss import PriorLoss, PriorPerceptualLoss, prior_loss

SHAPES = [(2, 5, 4, 3), (2, 7, 2, 2)]


def features() -> list[torch.Tensor]:
    return [torch.randn(shape) for shape in SHAPES]


def equation_9(estimated: list, target: list) -> list[np.ndarray]:
    """The squared distance of unit vectors at every position, (B,H,W) a layer."""
    distances = []
    for p_hat, p in zip(estimated, target, strict=True):
        a, b = p_hat.double().numpy(), p.double().numpy()
        out = np.zeros((a.shape[0], *a.shape[2:]))
        for n, h, w in np.ndindex(*out.shape):
            u, v = a[n, :, h, w], b[n, :, h, w]
            out[n, h, w] = np.sum((u / np.sqrt(np.sum(u**2)) - v / np.sqrt(np.sum(v**2))) ** 2)
        distances.append(out)
    return distances


@pytest.mark.parametrize("reduction", ["sum", "mean_hw", "mean"])
def test_reductions_are_those_of_equation_9(reduction: str) -> None:
    estimated, target = features(), features()
    distances = equation_9(estimated, target)
    expected = {
        "sum": sum(d.sum((1, 2)).mean() for d in distances),
        "mean_hw": sum(d.mean() for d in distances),
        "mean": sum(d.mean() / shape[1] for d, shape in zip(distances, SHAPES, strict=True)),
    }[reduction]
    assert prior_loss(estimated, target, reduction).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1000, 1e-4])
def test_prior_loss_ignores_scale(scale: float) -> None:
    estimated, target = features(), features()
    scaled = [[scale * p for p in features_of] for features_of in (estimated, target)]
    expected = prior_loss(estimated, target)
    torch.testing.assert_close(prior_loss(scaled[0], target), expected)
    torch.testing.assert_close(prior_loss(estimated, scaled[1]), expected)
    torch.testing.assert_close(prior_loss(*scaled), expected)


def test_each_position_adds_at_most_four() -> None:
    p = features()
    positions = sum(shape[2] * shape[3] for shape in SHAPES)
    assert prior_loss(p, [-x for x in p], "sum").item() == pytest.approx(4 * positions, rel=1e-5)
    assert prior_loss(p, p, "sum").item() == pytest.approx(0, abs=1e-10)


def test_gradient_is_finite_where_all_channels_are_zero() -> None:
    estimated = [torch.zeros(s, requires_grad=True) for s in SHAPES]
    prior_loss(estimated, [torch.zeros(s) for s in SHAPES]).backward()
    assert all(torch.isfinite(p.grad).all() for p in estimated)


def test_gradient_is_that_of_finite_differences() -> None:
    target = [p.double() for p in features()]
    estimated = [p.double().requires_grad_() for p in features()]
    loss = prior_loss(estimated, target)
    loss.backward()
    direction = torch.randn_like(estimated[0])
    step = 1e-3
    with torch.no_grad():
        up = prior_loss([estimated[0] + step * direction, estimated[1]], target)
        down = prior_loss([estimated[0] - step * direction, estimated[1]], target)
    numeric = (up - down) / (2 * step)
    assert numeric.item() == pytest.approx((estimated[0].grad * direction).sum().item(), rel=1e-2)


def test_half_precision_is_normalised_in_float32() -> None:
    large = [torch.full(s, 3e4, dtype=torch.float16) for s in SHAPES]  # the squares overflow float16
    assert prior_loss(large, large).item() == pytest.approx(0, abs=1e-6)
    assert prior_loss(large, large).dtype == torch.float32


def test_registered_class_weights_the_function() -> None:
    estimated, target = features(), features()
    loss = PriorLoss(loss_weight=0.5, reduction="sum")
    torch.testing.assert_close(loss(estimated, target), 0.5 * prior_loss(estimated, target, "sum"))


def test_the_perceptual_loss_is_the_prior_loss_of_an_extractors_features() -> None:
    options = {"type": "VGGFaceFeatureExtractor", "weights": "random", "layers": ["relu1_1", "relu1_2"]}
    loss = build_loss({"type": "PriorPerceptualLoss", "network_prior": options, "loss_weight": 0.5, "reduction": "sum"})
    restored, gt = (torch.rand(2, 3, 8, 6, requires_grad=True) for _ in range(2))
    value, style = loss(restored, gt)
    value.backward()
    assert style is None  # BasicSR's models expect one, or None
    with torch.no_grad():
        features_of = [loss.extractor(image) for image in (restored, gt)]
    expected = sum(d.sum(axis=(1, 2)).mean() for d in equation_9(*features_of))
    assert value.item() == pytest.approx(0.5 * expected, rel=1e-5)
    assert restored.grad.abs().max() > 0 and gt.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())
    with pytest.raises(UserError, match="PriorLoss loss_weight: expected a number, got None"):
        PriorLoss(loss_weight=None)
    with pytest.raises(UserError, match="PriorPerceptualLoss reduction"):
        PriorPerceptualLoss(network_prior=options, reduction="all")


def test_unknown_reduction_and_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="mean_hw"):
        PriorLoss(reduction="mean_wh")
    with pytest.raises(ValueError, match="shorter"):
        prior_loss(features(), features()[:1])


def test_images_are_refused_in_the_place_of_lists() -> None:
    image = torch.rand(2, 3, 4, 4)
    with pytest.raises(UserError, match="PriorLoss compares lists of feature maps"):
        PriorLoss()(image, image)
