"""The channel-attention feature discriminator D^C of DFPGNet, section 3.4, Fig. 4a, Eq. 4 and 5.

The authors' file is not public. Inferred, not in the paper: spectral norm, LeakyReLU 0.2, no biases and patch logits,
as in the discriminator of MSPL-GAN by the same laboratory; the squeeze factor 16 of SE and RCAN; the layer sizes.
"""

from collections.abc import Sequence
from itertools import pairwise

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, cat, nn
from torch.nn.utils.parametrizations import spectral_norm

from dfpg_plugin.archs.blocks import NEGATIVE_SLOPE, ChannelAttention, init_kaiming
from dfpg_plugin.checks import UserError

MIN_SIZE = 6  # px, of P3: D halves it to 3, then each of two 4x4 convolutions takes one pixel


def _sn_conv(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Module:
    padding = max(1, stride // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=padding, bias=False)
    init_kaiming(conv, scale=1)  # before spectral_norm, which replaces the weight by a computed value
    return spectral_norm(conv)


def _feature_block(in_channels: int, channels: int, stride: int = 2) -> nn.Sequential:
    """D_f,i: a convolution that mixes the concatenated features, then one that halves height and width.

    Other priors than the paper's may need another ``stride`` than 2: 1 or an even number.
    """
    return nn.Sequential(
        _sn_conv(in_channels, channels, 3, 1),
        nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
        _sn_conv(channels, channels, 3, 1) if stride == 1 else _sn_conv(channels, channels, 2 * stride, stride),
        nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
    )


def _joined(p: Tensor, d: Tensor) -> Tensor:
    """Concatenate a layer's features with ``d``, the discriminator's output for the finer layers."""
    if p.shape[-2:] != d.shape[-2:]:
        raise UserError(
            f"CAFeatureDiscriminator: features of {p.shape[-2]}x{p.shape[-1]} do not fit those of the layer before, "
            f"now {d.shape[-2]}x{d.shape[-1]}. Set gt_size to a multiple of all strides, or prior_strides."
        )
    return cat([p, d], dim=1)


@ARCH_REGISTRY.register()
class CAFeatureDiscriminator(nn.Module):
    """Tell the features of sharp faces (real) from estimated features (fake), with attention over the channels.

    The constructor's arguments:

    - ``prior_channels``, ``prior_strides``: channels and strides of the three feature layers. In training, the defaults
      are those of ``network_prior``. From layer to layer, the stride stays the same or grows by an even factor.
    - ``channel_attention``: False gives the plain feature discriminator of model B5 (Table 4).
    - ``num_feat``: channels of D_f,1, doubled in D_f,2, D_f,3 and D_h. 64 gives the channels of the prior.
    - ``squeeze_factor``: the reduction inside the channel attention.
    """

    def __init__(
        self,
        *,
        prior_channels: Sequence[int] = (64, 128, 256),
        prior_strides: Sequence[int] = (1, 2, 4),
        channel_attention: bool = True,
        num_feat: int = 64,
        squeeze_factor: int = 16,
    ) -> None:
        super().__init__()
        if len(prior_channels) != 3 or min(prior_channels) < squeeze_factor:
            raise UserError(
                f"CAFeatureDiscriminator prior_channels: expected three numbers of at least squeeze_factor "
                f"{squeeze_factor}, got {list(prior_channels)}."
            )
        c1, c2, c3 = prior_channels
        self.has_attention = channel_attention
        to_second, to_third = self._stride_factors(prior_strides)
        self.channel_attention = nn.ModuleList(
            ChannelAttention(c, squeeze_factor) if channel_attention else nn.Identity() for c in prior_channels
        )
        self.feature1 = _feature_block(c1, num_feat, to_second)
        self.feature2 = _feature_block(num_feat + c2, 2 * num_feat, to_third)
        self.feature3 = _feature_block(2 * num_feat + c3, 4 * num_feat)
        self.head = nn.Sequential(
            _sn_conv(4 * num_feat, 8 * num_feat, 4, 1),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            _sn_conv(8 * num_feat, 1, 4, 1),
        )
        init_kaiming(self.channel_attention, scale=1)

    @staticmethod
    def _stride_factors(strides: Sequence[int]) -> list[int]:
        """Return the factor by which the stride grows from each layer to the next: (1, 2, 4) gives [2, 2]."""
        fit = len(strides) == 3 and min(strides) >= 1
        if not fit or any(after != before and after % (2 * before) for before, after in pairwise(strides)):
            raise UserError(
                f"CAFeatureDiscriminator prior_strides: expected three numbers, each the same as the one before or an "
                f"even multiple of it, got {list(strides)}. Choose other layers of network_prior."
            )
        return [int(after // before) for before, after in pairwise(strides)]

    def compiled_parts(self) -> list[nn.Module]:
        """Return what ``torch.compile`` compiles: the whole network, and each attention alone for :meth:`attend`."""
        return [self, *self.channel_attention] if self.has_attention else [self]

    def attend(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Weight each feature's channels: P'_i = CA_i(P_i) (Eq. 4). Without attention, return the features."""
        return [ca(p) for ca, p in zip(self.channel_attention, features, strict=True)]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map [P1, P2, P3] of (B,64,H,W), (B,128,H//2,W//2), (B,256,H//4,W//4) to patch logits, (B,1,H//8-2,W//8-2).

        A positive logit says real. Raises UserError if no patch is left: P3 needs 6 px on each side, an image needs 24.
        """
        p1, p2, p3 = self.attend(features)
        if min(p3.shape[-2:]) < MIN_SIZE:
            raise UserError(
                f"CAFeatureDiscriminator: the coarsest features are {p3.shape[-2]}x{p3.shape[-1]}, and need {MIN_SIZE} "
                "pixels a side. Raise gt_size, or choose finer layers of network_prior."
            )
        d1 = self.feature1(p1)  # (B,64,H//2,W//2)
        d2 = self.feature2(_joined(p2, d1))  # (B,128,H//4,W//4)
        d3 = self.feature3(_joined(p3, d2))  # (B,256,H//8,W//8)
        return self.head(d3)  # (B,1,H//8-2,W//8-2)
