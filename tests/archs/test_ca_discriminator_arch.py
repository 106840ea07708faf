"""The discriminator against Eq. 4 and 5 in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.archs.ca_discriminator_arch import CAFeatureDiscriminator
from dfpg_plugin.checks import UserError

CHANNELS = (32, 48, 64)


def features(size: int = 32) -> list[Tensor]:
    return [torch.randn(2, c, size // s, size // s).double() for c, s in zip(CHANNELS, (1, 2, 4), strict=True)]


def attention_reference(attention: nn.Module, p: Tensor) -> Tensor:
    """Squeeze by the mean over positions, excite by two layers and a sigmoid, weight the channels."""
    squeeze, excite = attention.attention[1], attention.attention[3]
    hidden = (p.mean((2, 3)) @ squeeze.weight[..., 0, 0].T + squeeze.bias).clamp(min=0)
    weights = 1 / (1 + torch.exp(-(hidden @ excite.weight[..., 0, 0].T + excite.bias)))
    return p * weights[:, :, None, None]


def conv_reference(layer: nn.Module, x: Tensor, leaky: bool = True) -> Tensor:
    """Convolve with the weight over its largest singular value, found by SVD."""
    original = layer.parametrizations.weight.original
    weight = original / torch.linalg.svdvals(original.flatten(1))[0]
    y = F.conv2d(x, weight, stride=layer.stride, padding=1)
    return torch.where(y > 0, y, 0.2 * y) if leaky else y


def converged(net: CAFeatureDiscriminator) -> CAFeatureDiscriminator:
    """Let the power iterations of the spectral norm converge."""
    net.train()
    with torch.no_grad():
        for _ in range(500):
            for layer in net.modules():
                if isinstance(layer, nn.Conv2d):
                    _ = layer.weight
    return net.eval()


def test_attend_is_equation_4() -> None:
    net = CAFeatureDiscriminator(prior_channels=CHANNELS).double()
    p = features()
    expected = [attention_reference(ca, x) for ca, x in zip(net.channel_attention, p, strict=True)]
    for got, want in zip(net.attend(p), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_forward_is_equation_5() -> None:
    net = converged(CAFeatureDiscriminator(prior_channels=CHANNELS, num_feat=4).double())
    p = features()
    p1, p2, p3 = (attention_reference(ca, x) for ca, x in zip(net.channel_attention, p, strict=True))

    def block(layers: nn.Sequential, x: Tensor) -> Tensor:
        return conv_reference(layers[2], conv_reference(layers[0], x))

    d = block(net.feature1, p1)
    d = block(net.feature2, torch.cat([p2, d], 1))
    d = block(net.feature3, torch.cat([p3, d], 1))
    expected = conv_reference(net.head[2], conv_reference(net.head[0], d), leaky=False)
    torch.testing.assert_close(net(p), expected, rtol=1e-4, atol=1e-6)


def test_each_input_gets_its_own_weights() -> None:
    net = CAFeatureDiscriminator(prior_channels=CHANNELS).double()
    p = features()
    ratio = net.attend([3 * x for x in p])[0] / (3 * net.attend(p)[0])
    assert (ratio - 1).abs().max() > 1e-3


def test_without_attention_features_pass_unchanged_and_no_attention_is_left() -> None:
    net = CAFeatureDiscriminator(prior_channels=CHANNELS, channel_attention=False).double()
    p = features()
    assert all(got is given for got, given in zip(net.attend(p), p, strict=True))
    assert not [name for name, _ in net.named_parameters() if "attention" in name]
    assert net(p).shape == (2, 1, 2, 2)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (128, 128), (49, 51), (30, 37), (24, 24)])
def test_sizes_that_halve_unevenly_fit(height: int, width: int) -> None:
    p = [torch.randn(1, c, height // s, width // s) for c, s in zip(CHANNELS, (1, 2, 4), strict=True)]
    assert CAFeatureDiscriminator(prior_channels=CHANNELS)(p).shape == (1, 1, height // 8 - 2, width // 8 - 2)


def test_every_parameter_gets_a_gradient() -> None:
    net = CAFeatureDiscriminator(prior_channels=CHANNELS).double()
    net(features()).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(UserError, match="squeeze_factor"):
        CAFeatureDiscriminator(prior_channels=(8, 16, 32))
