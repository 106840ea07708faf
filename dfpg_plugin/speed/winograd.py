"""Convolutions on a CPU by Winograd's F(4x4, 3x3), two to three times as fast as direct convolutions.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. A 3x3 filter g turns 6x6 pixels d into
the 4x4 tile Y at their centre:

    Y = A^T [(G g G^T) * (B^T d B)] A        * multiplies element by element

Y takes 36 multiplications. A direct convolution takes 144 for the same tile. The sums over the channels are 36 matrix
products, one for each element of B^T d B. Each product has a row for every tile. The matrices A, B and G belong to the
interpolation points 0, 1, -1, 2, -2 and infinity. VGGFace's features in float32 have an error of 1e-6 to 3e-6 of their
norm. torch's convolutions have about the same error.
"""

from copy import deepcopy
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor

G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
TILE, PRODUCTS = 4, 36
FEWEST_CHANNELS = 64  # with fewer, the transforms cost more than they save
FEWEST_TILES = 64  # in one matrix product, unless fewer are left


class WinogradConv2d(nn.Module):
    """A 3x3 convolution with padding 1, then an optional activation, then optional 2x2 max pooling.

    ``slope``: the activation's factor on negative values: 0 for ReLU, 1 for no activation. An input (B,C,H,W) of any
    size becomes (B,K,H,W), or (B,K,H//2,W//2) with ``pool``. The result is float32. The result's channels are
    innermost in memory. No gradients pass through. Raises ValueError if pooling would leave nothing.
    """

    def __init__(self, conv: nn.Conv2d, *, slope: float, pool: bool) -> None:
        super().__init__()
        self.slope, self.pool = slope, pool
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", transform_weight(conv.weight.detach()))
        self.register_buffer("bias", conv.bias.detach().float())  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Transform some tiles, multiply them and transform them back. Then go on with the next tiles.

        Only as many tiles are taken at a time as stay in the CPU's cache.
        """
        # the transforms are imported here, because the import compiles them
        from dfpg_plugin.speed.winograd_transforms import transform, transform_back

        x = x.float()
        batch, _, height, width = x.shape
        _, inputs, outputs = self.weight.shape
        pixels = x.permute(0, 2, 3, 1).contiguous()  # (B,H,W,C)
        step = 2 if self.pool else 1
        result = x.new_empty(batch, height // step, width // step, outputs)
        if not result.numel():
            raise ValueError(f"WinogradConv2d: images of {height}x{width} are too small to be pooled.")
        tiles = batch * -(-height // TILE) * -(-width // TILE)
        # as many tiles at a time as input channels: the matrices are then nearly square and fit into the cache
        most = min(tiles, max(FEWEST_TILES, inputs))
        # memory for the tiles before and after the multiplication
        before, after = x.new_empty(PRODUCTS * most * inputs), x.new_empty(PRODUCTS * most * outputs)
        for first in range(0, tiles, most):
            count = min(most, tiles - first)
            d = before[: PRODUCTS * count * inputs].view(PRODUCTS, count, inputs)
            y = after[: PRODUCTS * count * outputs].view(PRODUCTS, count, outputs)
            transform(pixels.numpy(), first, d.numpy())
            with torch.autocast("cpu", enabled=False):
                torch.bmm(d, self.weight, out=y)
            transform_back(y.numpy(), first, height, width, self.bias.numpy(), self.slope, step, result.numpy())
        return result.permute(0, 3, 1, 2)


class DirectConv2d(nn.Module):
    """The layers of WinogradConv2d, computed by torch.

    DirectConv2d is for few channels, for which Winograd's transforms would cost more than they save.
    """

    def __init__(self, conv: nn.Conv2d, *, slope: float, pool: bool) -> None:
        super().__init__()
        self.conv, self.slope, self.pool = conv, slope, pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,H,W) to (B,K,H,W), or to (B,K,H//2,W//2) with ``pool``. The channels are innermost in memory."""
        x = self.conv(x.contiguous(memory_format=torch.channels_last))
        x = x if self.slope == 1 else F.leaky_relu_(x, self.slope)
        return F.max_pool2d(x, 2) if self.pool else x


@cache
def winograd_features(network: VGGFaceFeatureExtractor) -> VGGFaceFeatureExtractor:
    """Return a copy of a network, with faster convolutions for a CPU. The copy is made once for each network.

    The copy's float32 weights take four times the memory of the network's: 235 MB up to pool5. No gradients pass
    through the copy.
    """
    fast = deepcopy(network)
    fast.features = nn.Sequential()
    layers = list(network.features.named_children())
    while layers:
        name, layer = layers.pop(0)
        if isinstance(layer, nn.Conv2d):
            joined = []  # the types of the layers that join the convolution, up to a layer whose output is wanted
            while name not in network.layers and layers and not isinstance(layers[0][1], nn.Conv2d):
                name, following = layers.pop(0)
                joined.append(type(following))
            kind = WinogradConv2d if layer.in_channels >= FEWEST_CHANNELS else DirectConv2d
            layer = kind(layer, slope=0.0 if nn.ReLU in joined else 1.0, pool=nn.MaxPool2d in joined)
        fast.features.add_module(name, layer)
    return fast


def with_winograd(network: nn.Module) -> nn.Module:
    """Return a copy of a network, with faster convolutions for restoring on a CPU.

    A 3x3 convolution becomes a WinogradConv2d if its stride and padding are 1, if it has a bias, and if it maps at
    least 64 channels to at least 64. A ReLU or LeakyReLU behind such a convolution in an ``nn.Sequential`` becomes part
    of the convolution. The weights of a WinogradConv2d take four times the memory. No gradients pass through the copy.
    """
    fast = deepcopy(network).requires_grad_(False)
    for module in list(fast.modules()):
        children: list[tuple[str, nn.Module | None]] = [*module.named_children(), ("", None)]
        for (name, layer), (next_name, after) in pairwise(children):
            if isinstance(layer, nn.Conv2d) and _fits_winograd(layer):
                slope = _slope(after) if isinstance(module, nn.Sequential) else 1.0
                module.add_module(name, WinogradConv2d(layer, slope=slope, pool=False))
                if slope != 1:
                    module.add_module(next_name, nn.Identity())
    return fast


def _fits_winograd(layer: nn.Conv2d) -> bool:
    return (
        type(layer) is nn.Conv2d  # a subclass may compute something else; hooks may, too
        and not (layer._forward_pre_hooks or layer._forward_hooks)
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (layer.groups, layer.padding_mode) == (1, "zeros")
        and layer.bias is not None
        and min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS
    )


def _slope(activation: nn.Module | None) -> float:
    """Return the factor on negative values of a ReLU or LeakyReLU that can become part of a convolution.

    Return 1 for any other module, for None and for an activation with hooks.
    """
    if activation is None or activation._forward_pre_hooks or activation._forward_hooks:
        return 1.0
    if isinstance(activation, nn.LeakyReLU) and 0 <= activation.negative_slope <= 1:
        return activation.negative_slope
    return 0.0 if type(activation) is nn.ReLU else 1.0


def transform_weight(weight: Tensor) -> Tensor:
    """Return G g G^T of every filter g. Weights (K,C,3,3) become (36,C,K) float32, computed in float64."""
    g = torch.tensor(G, dtype=torch.float64)
    transform = torch.kron(g, g)  # (36,9)
    filters = weight.permute(2, 3, 1, 0).flatten(0, 1)  # (9,C,K)
    # FEWEST_CHANNELS channels at a time: all channels in float64 would take a gigabyte
    parts = [torch.tensordot(transform, part.double(), 1).float() for part in filters.split(FEWEST_CHANNELS, 1)]
    return torch.cat(parts, 1)
