"""Layers of DFPGNet: the residual group of RCAN's blocks, the transforms of Fig. 3, the sizes of estimates."""

from collections.abc import Sequence

import torch
from basicsr.archs import rcan_arch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dfpg_plugin.checks import UserError

NEGATIVE_SLOPE = 0.2  # not in the paper: the laboratory's follow-up network (SAPPGAN) uses it throughout


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def down2(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a convolution (kernel 4, stride 2) that halves height and width."""
    return nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)


def up2(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution (kernel 4, stride 2) that doubles height and width."""
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)


class ChannelAttention(rcan_arch.ChannelAttention):
    """RCAN's channel attention, (B,C,H,W) -> (B,C,H,W). ``torch.compile`` computes it in another form.

    A 1x1 convolution of one pixel equals a product of a matrix and a vector. A GPU computes the product much faster,
    but rounds it differently. Uncompiled networks therefore keep RCAN's convolutions.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Weight each channel by a number in [0,1], computed from the means of all channels."""
        if not torch.compiler.is_compiling():
            return super().forward(x)
        _, squeeze, relu, excite, sigmoid = self.attention
        means = x.mean(dim=(2, 3))  # (B,C)
        squeezed = relu(F.linear(means, squeeze.weight.flatten(1), squeeze.bias))  # (B,C/16)
        weights = sigmoid(F.linear(squeezed, excite.weight.flatten(1), excite.bias))  # (B,C)
        return x * weights[:, :, None, None]


class ResBlock(nn.Module):
    """The residual block with channel attention of RCAN ("Resblocks used in [47]"), (B,C,H,W) -> (B,C,H,W).

    Not in the paper: LeakyReLU instead of RCAN's ReLU, as in the laboratory's follow-up network (SAPPGAN).
    """

    def __init__(self, channels: int, squeeze_factor: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, channels),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            conv3x3(channels, channels),
            ChannelAttention(channels, squeeze_factor),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus its residual."""
        return x + self.body(x)


class ResGroup(nn.Module):
    """``num_block`` residual blocks with a skip around all of them, (B,C,H,W) -> (B,C,H,W).

    Not in the paper: the group ends without a convolution, as in SAPPGAN (RCAN has one). With ``use_checkpoint``, the
    values inside a block are not kept for the backward pass: the backward pass computes them again.
    """

    def __init__(self, channels: int, num_block: int, squeeze_factor: int = 16) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResBlock(channels, squeeze_factor) for _ in range(num_block)))
        self.use_checkpoint = False

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the output of the blocks."""
        out = x
        for block in self.blocks:
            if self.use_checkpoint and torch.is_grad_enabled():
                out = checkpoint(block, out, use_reentrant=False, preserve_rng_state=False)  # no block is random
            else:
                out = block(out)
        return x + out


def _affine_branch(condition_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(condition_channels, channels),
        nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
        conv3x3(channels, channels),
    )


class SFT(nn.Module):
    """Spatial feature transform (Fig. 3b, Eq. 2): ``alpha * x + beta``. A condition gives alpha and beta.

    x is (B,C,H,W), the condition is (B,K,H,W). Not in the paper: alpha is 1 plus the branch's output, as in SFTGAN and
    SAPPGAN. The transform then starts near the identity, whatever the initialisation.
    """

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        self.scale = _affine_branch(condition_channels, channels)
        self.shift = _affine_branch(condition_channels, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the transformed ``x``, (B,C,H,W)."""
        alpha = 1 + self.scale(condition)
        beta = self.shift(condition)
        return alpha * x + beta


class SSFT(SFT):
    """Self spatial feature transform (Fig. 3a, Eq. 1): an SFT whose condition is its own input, (B,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return the transformed ``x``, (B,C,H,W)."""
        return super().forward(x, x)


class AddPrior(nn.Module):
    """Replaces SFT in model B3 of Table 4: ``x + condition``. A 1x1 convolution adapts differing channels.

    Not in the paper: the paper does not say how B3 joins the two streams.
    """

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        same = channels == condition_channels
        self.project = nn.Identity() if same else nn.Conv2d(condition_channels, channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the sum, (B,C,H,W)."""
        return x + self.project(condition)


@torch.no_grad()
def init_kaiming(module: nn.Module, scale: float) -> None:
    """Initialise every convolution below ``module``: Kaiming normal (fan in) times ``scale``, biases zero.

    Not in the paper: the laboratory's code uses scale 0.1 for the generator and 1 for the discriminator.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, a=0, mode="fan_in")
            layer.weight.mul_(scale)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def pooling_factors(name: str, prior_strides: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return, for each layer, the prior's stride divided by E_i's stride: 8 and 4 give 2.

    Raises UserError, naming the network, if a prior's stride is not a multiple of E_i's.
    """
    if len(prior_strides) != len(strides) or any(s < e or s % e for s, e in zip(prior_strides, strides, strict=True)):
        raise UserError(
            f"{name} prior_strides: expected multiples of {list(strides)}, got {list(prior_strides)}. "
            "Choose layers of network_prior that are as coarse."
        )
    return [s // e for s, e in zip(prior_strides, strides, strict=True)]


def pool_to_prior(
    estimates: Sequence[Tensor], size: tuple[int, int], strides: Sequence[int], factors: Sequence[int]
) -> list[Tensor]:
    """Bring the estimates from E_i's sizes to the prior's sizes, for an image of ``size`` (height, width).

    Padding at the right and bottom is cut off. Then each square is averaged into one pixel. ``factors``: the squares'
    sides, of :func:`pooling_factors`.
    """
    height, width = size
    cut = [p[..., : height // s, : width // s] for p, s in zip(estimates, strides, strict=True)]
    return [p if factor == 1 else F.avg_pool2d(p, factor) for p, factor in zip(cut, factors, strict=True)]
