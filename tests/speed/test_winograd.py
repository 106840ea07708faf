"""Winograd's convolutions against torch's in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor
from dfpg_plugin.speed import winograd_transforms
from dfpg_plugin.speed.winograd import DirectConv2d, WinogradConv2d, transform_weight, winograd_features, with_winograd

# B^T and A^T for the points 0, 1, -1, 2, -2 and infinity
B = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]], dtype=torch.float64,
)  # fmt: skip
A = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return ((value - exact).norm() / exact.norm()).item()


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)


def test_the_transforms_are_those_of_the_equation() -> None:
    torch.manual_seed(1)
    tile, weight = torch.randn(6, 6, dtype=torch.float64), torch.randn(1, 1, 3, 3)
    products = transform_weight(weight).view(6, 6) * (B @ tile @ B.T)
    exact = F.conv2d(tile[None, None], weight.double())[0, 0]
    assert relative_error(A @ products @ A.T, exact) < 1e-6

    pixels, out = tile.float().view(1, 6, 6, 1), np.empty((36, 4, 1), np.float32)
    winograd_transforms.transform(pixels.numpy(), 0, out)
    padded = F.pad(tile, (1, 3, 1, 3))
    for number, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        exact = B @ padded[y : y + 6, x : x + 6] @ B.T
        assert relative_error(torch.from_numpy(out[:, number, 0]).view(6, 6), exact) < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (18, 3), (33, 20)])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (5, 130), (130, 5)])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_torchs_convolution_of_any_size(size: tuple, inputs: int, outputs: int, batch: int) -> None:
    conv = convolution(inputs, outputs)
    x = torch.randn(48, inputs, *size)  # many, for the error of a few pixels varies with the processor's order of sums
    exact = conv.double()(x.double())
    results = (WinogradConv2d(conv, slope=slope, pool=False) for slope in (1.0, 0.0))
    plain, relu = (torch.cat([result(part) for part in x.split(batch)]) for result in results)
    assert plain.shape == exact.shape
    assert relative_error(plain, exact) < 3e-6
    assert torch.equal(relu, plain.relu())
    x, plain, relu, exact = x[:batch], plain[:batch], relu[:batch], exact[:batch]
    assert torch.equal(WinogradConv2d(conv, slope=0.2, pool=False)(x), F.leaky_relu(plain, 0.2))
    if min(size) > 1:
        assert torch.equal(WinogradConv2d(conv, slope=0.0, pool=True)(x), F.max_pool2d(relu, 2))
        assert torch.equal(WinogradConv2d(conv, slope=1.0, pool=True)(x), F.max_pool2d(plain, 2))
        exact = F.max_pool2d(exact.relu(), 2)
        assert relative_error(DirectConv2d(conv.float(), slope=0.0, pool=True)(x), exact) < 3e-6


def test_an_image_that_pooling_leaves_nothing_of_is_refused() -> None:
    with pytest.raises(ValueError, match="images of 1x5 are too small to be pooled"):
        WinogradConv2d(convolution(4, 4), slope=0.0, pool=True)(torch.zeros(1, 4, 1, 5))


@pytest.mark.parametrize(
    ("layers", "input"),
    [
        (["pool5"], "rgb255"), (["relu3_3"], "pm1"), (["conv2_1"], "caffe255"),
        (["pool2", "conv1_2", "relu1_1", "relu2_2"], "pm1"),
    ],
)  # fmt: skip
def test_the_features_are_those_of_the_network(layers: list[str], input: str) -> None:
    network = VGGFaceFeatureExtractor(weights="random", layers=layers, input=input)
    torch.manual_seed(0)
    images = torch.rand(2, 3, 45, 38)
    features = winograd_features(network)(images)
    for feature, exact in zip(features, network.double()(images.double()), strict=True):
        assert feature.shape == exact.shape
        assert relative_error(feature, exact) < 1e-5


def test_it_is_made_once_and_leaves_the_network_as_it_was() -> None:
    network = VGGFaceFeatureExtractor(weights="random", layers=["relu1_2"])
    names = list(dict(network.features.named_children()))
    assert winograd_features(network) is winograd_features(network)
    assert list(dict(network.features.named_children())) == names
    assert [type(m) for m in winograd_features(network).features] == [DirectConv2d, WinogradConv2d]


def test_a_whole_network_restores_the_same() -> None:
    from dfpg_plugin.archs.dfpgnet_arch import DFPGNet

    torch.manual_seed(0)
    net = DFPGNet(num_block=1, num_prior_block=1, init_scale=0.3).eval()
    fast = with_winograd(net)
    kinds = [type(layer).__name__ for layer in fast.modules()]
    assert kinds.count("WinogradConv2d") > 20
    assert not any(isinstance(layer, WinogradConv2d) for layer in net.modules())
    image = torch.rand(2, 3, 45, 38)
    with torch.no_grad():
        (exact, priors), (image, fast_priors) = net(image, return_priors=True), fast(image, return_priors=True)
    torch.testing.assert_close(image, exact, rtol=0, atol=1e-5)
    for a, b in zip(fast_priors, priors, strict=True):
        assert relative_error(a, b) < 1e-4


def test_layers_that_compute_something_else_are_left_alone() -> None:
    class Own(nn.Conv2d):
        pass

    kept = [
        nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3, padding=1, stride=2), nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.Conv2d(64, 64, 3, padding=1, groups=2), nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2), nn.Conv2d(64, 64, 1), nn.Conv2d(3, 64, 3, padding=1),
        Own(64, 64, 3, padding=1), nn.utils.spectral_norm(convolution(64, 64)),
    ]  # fmt: skip
    assert not any(isinstance(layer, WinogradConv2d) for layer in with_winograd(nn.Sequential(*kept)).modules())


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.LeakyReLU(-0.5), nn.PReLU(64), nn.Identity()])
def test_an_activation_is_joined_or_left_alone(activation: nn.Module) -> None:
    net = nn.Sequential(convolution(64, 64), activation, convolution(64, 64))
    x = torch.randn(1, 64, 9, 13)
    with torch.no_grad():
        assert relative_error(with_winograd(net)(x), net(x)) < 1e-5


def test_an_activation_with_hooks_keeps_them() -> None:
    net = nn.Sequential(convolution(64, 64), nn.ReLU())
    net[1].register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    x = torch.randn(1, 64, 9, 13)
    with torch.no_grad():
        assert relative_error(with_winograd(net)(x), net(x)) < 1e-5


def test_under_autocast_it_stays_in_float32() -> None:
    conv = convolution(64, 64)
    x = torch.randn(1, 64, 9, 13)
    plain = WinogradConv2d(conv, slope=1.0, pool=False)(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(WinogradConv2d(conv, slope=1.0, pool=False)(x), plain)
        assert WinogradConv2d(conv, slope=1.0, pool=False)(x.bfloat16()).dtype == torch.float32
