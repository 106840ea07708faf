"""Arguments of networks act: sizes by their weights, counted by hand; factors and ranges by what they change."""

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from kit import register
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.archs.ca_discriminator_arch import CAFeatureDiscriminator
from dfpg_plugin.archs.dfpgnet_arch import DFPGNet
from dfpg_plugin.archs.extractors_arch import TorchvisionFeatureExtractor


def conv(kernel: int, inputs: int, outputs: int) -> int:
    """The weights and biases of a convolution."""
    return kernel**2 * inputs * outputs + outputs


def attention(channels: int, squeeze: int) -> int:
    return conv(1, channels, channels // squeeze) + conv(1, channels // squeeze, channels)


def resblocks(count: int, channels: int, squeeze: int) -> int:
    return count * (2 * conv(3, channels, channels) + attention(channels, squeeze))


def transform(channels: int, condition: int) -> int:
    """SFT: two branches of two convolutions."""
    return 2 * (conv(3, condition, channels) + conv(3, channels, channels))


def estimator(channels: int, prior: int, blocks: int, squeeze: int) -> int:
    """SSFT, Resblocks, and a projection where the widths differ."""
    return (
        transform(channels, channels)
        + resblocks(blocks, channels, squeeze)
        + (channels != prior) * conv(1, channels, prior)
    )


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("feat", "blocks", "prior_blocks", "squeeze"), [(12, 2, 3, 4), (12, 3, 2, 6), (9, 1, 4, 3), (10, 4, 1, 5)]
)
def test_dfpgnet_has_the_widths_blocks_and_squeezes_asked_for(
    feat: int, blocks: int, prior_blocks: int, squeeze: int
) -> None:
    net = DFPGNet(num_feat=feat, num_block=blocks, num_prior_block=prior_blocks, squeeze_factor=squeeze)
    widths, priors = (feat, 2 * feat, 4 * feat), (64, 128, 256)
    groups = [resblocks(blocks, width, squeeze) for width in widths]
    resized = conv(4, feat, 2 * feat) + conv(4, 2 * feat, 4 * feat)
    assert count(net.encoder) == conv(3, 3, feat) + sum(groups) + resized + groups[2]
    estimators = [estimator(w, p, prior_blocks, squeeze) for w, p in zip(widths, priors, strict=True)]
    assert [count(part) for part in net.prior] == estimators
    fused = sum(transform(w, p) for w, p in zip(widths, priors, strict=True))
    resized = conv(4, 4 * feat, 2 * feat) + conv(4, 2 * feat, feat)
    assert count(net.decoder) == sum(groups) + fused + resized + conv(1, feat, 3)


@pytest.mark.parametrize(("feat", "squeeze"), [(5, 4), (6, 2)])
def test_the_discriminator_has_the_widths_and_squeezes_asked_for(feat: int, squeeze: int) -> None:
    c1, c2, c3 = priors = (8, 12, 20)
    net = CAFeatureDiscriminator(prior_channels=priors, num_feat=feat, squeeze_factor=squeeze)
    convs = [(3, c1, feat), (4, feat, feat), (3, feat + c2, 2 * feat), (4, 2 * feat, 2 * feat)]
    convs += [(3, 2 * feat + c3, 4 * feat), (4, 4 * feat, 4 * feat), (4, 4 * feat, 8 * feat), (4, 8 * feat, 1)]
    without_biases = sum(kernel**2 * a * b for kernel, a, b in convs)
    assert count(net) == without_biases + sum(attention(c, squeeze) for c in priors)


class Chain(nn.Module):
    """Six convolutions: three to encode, three to decode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 1), *(nn.Conv2d(6, 6, 1) for _ in range(4)), nn.Conv2d(6, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def guided(**options: object) -> nn.Module:
    torch.manual_seed(0)
    points = {"encoder": ["layers.0", "layers.1", "layers.2"], "decoder": ["layers.5", "layers.4", "layers.3"]}
    sizes = {"prior_channels": [5, 6, 7], "prior_strides": [1, 1, 1], "squeeze_factor": 2}
    return build_network({"type": "PriorGuidedNet", "network": {"type": "Chain"}, **points, **sizes, **options})


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ARCH_REGISTRY, Chain)


@pytest.mark.parametrize(("blocks", "squeeze"), [(2, 3), (3, 2), (0, 6)])
def test_a_guide_has_the_blocks_and_squeezes_asked_for(blocks: int, squeeze: int) -> None:
    net = guided(num_prior_block=blocks, squeeze_factor=squeeze)
    assert [count(part) for part in net.estimators] == [estimator(6, p, blocks, squeeze) for p in (5, 6, 7)]
    assert [count(part) for part in net.transforms] == [transform(6, p) for p in (5, 6, 7)]


def test_init_scale_is_a_factor_on_what_a_guide_adds() -> None:
    small, large = (guided(num_prior_block=1, init_scale=scale) for scale in (0.2, 0.6))
    for added in ("estimators", "transforms"):
        for a, b in zip(getattr(small, added).parameters(), getattr(large, added).parameters(), strict=True):
            torch.testing.assert_close(3 * a, b)
    torch.testing.assert_close(small.network.state_dict(), large.network.state_dict())


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-2, 6), (0, 255), (0.5, 1)])
def test_an_adapted_network_takes_and_returns_its_own_range(low: float, high: float, residual: bool) -> None:
    net = build_network(
        {"type": "AdaptedNet", "network": {"type": "Chain"}, "value_range": [low, high], "residual": residual}
    )
    x = torch.rand(2, 3, 5, 4)
    returned = net.network(low + (high - low) * x)
    expected = x + returned / (high - low) if residual else (returned - low) / (high - low)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"type": "ArcFaceFeatureExtractor", "layers": ["input_layer.0", "input_layer.2"]},
        {"type": "TimmFeatureExtractor", "model": "test_convnext", "out_indices": [2, 0]},
        {"type": "VGGFaceFeatureExtractor", "layers": ["relu1_2", "conv1_1"], "input": "rgb255"},
    ],
    ids=lambda options: options["type"],
)
def test_each_layer_has_its_own_feature_scale(options: dict) -> None:
    net = build_network({**options, "weights": "random", "feature_scale": [0.25, 3]})
    x = torch.rand(1, 3, 64, 64)
    scaled = net(x)
    net.feature_scale = [1.0, 1.0]
    for factor, plain, got in zip((0.25, 3), net(x), scaled, strict=True):
        torch.testing.assert_close(got, factor * plain)


def test_mean_and_std_are_those_given_of_red_green_and_blue() -> None:
    mean, std = [0.1, 0.2, 0.7], [0.5, 0.25, 2.0]
    net = TorchvisionFeatureExtractor(model="resnet18", layers=["conv1"], weights="random", mean=mean, std=std)
    x = torch.rand(1, 3, 64, 64)
    seen = (x.double() - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1)
    expected = F.conv2d(seen, net.net.conv1.weight.double(), stride=2, padding=3)
    torch.testing.assert_close(net(x)[0].double(), expected, rtol=1e-4, atol=1e-5)
