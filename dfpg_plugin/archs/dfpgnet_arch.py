"""The generator of "Deep Feature Prior Guided Face Deblurring" (WACV 2022), sections 3.1 to 3.3, Fig. 2.

    blurred -> encoder (M_E) -> E0 ------------------------------------------------> + -> sharp
                                E1 -> SSFT -> Resblocks -> P1^ -------------> SFT --/
                                E2 -> SSFT -> Resblocks -> P2^ -------> SFT -/
                                E3 -> SSFT -> Resblocks -> P3^ -> SFT -/
                                E4 ------------------------------/      decoder (M_D)

The paper does not give widths, blocks and initialisation. Their values here are those of SAPPGAN's generator (IEEE
Access 2023). The same laboratory publishes this generator and trains it under the name DFPGNet.
"""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.archs.blocks import (
    SFT,
    SSFT,
    AddPrior,
    ResBlock,
    ResGroup,
    conv3x3,
    down2,
    init_kaiming,
    pool_to_prior,
    pooling_factors,
    up2,
)
from dfpg_plugin.checks import UserError, check_choice

MIN_SIZE = 16  # px, of an image's shorter side
STRIDES = (1, 2, 4)  # of E1, E2, E3: two halvings in the encoder


class Encoder(nn.Module):
    """Encoder of the deblurring stream, M_E (section 3.1): the features E0 to E4."""

    def __init__(self, in_channels: int, widths: Sequence[int], num_block: int, squeeze_factor: int) -> None:
        super().__init__()
        c1, c2, c3 = widths
        self.head = conv3x3(in_channels, c1)
        self.scale1 = ResGroup(c1, num_block, squeeze_factor)
        self.scale2 = nn.Sequential(down2(c1, c2), ResGroup(c2, num_block, squeeze_factor))
        self.scale3 = nn.Sequential(down2(c2, c3), ResGroup(c3, num_block, squeeze_factor))
        self.middle = ResGroup(c3, num_block, squeeze_factor)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Map (B,3,H,W) to E0, [E1, E2, E3] and E4."""
        e0 = self.head(x)  # (B,64,H,W)
        e1 = self.scale1(e0)  # (B,64,H,W)
        e2 = self.scale2(e1)  # (B,128,H/2,W/2)
        e3 = self.scale3(e2)  # (B,256,H/4,W/4)
        e4 = self.middle(e3)  # (B,256,H/4,W/4)
        return e0, [e1, e2, e3], e4


class PriorEstimator(nn.Module):
    """Sub-network P_i of the prior estimation stream (section 3.2): SSFT, then Resblocks. The output is linear."""

    def __init__(
        self, width: int, prior_channels: int, num_block: int, squeeze_factor: int, feature_transform: bool
    ) -> None:
        super().__init__()
        self.ssft = SSFT(width) if feature_transform else nn.Identity()
        self.blocks = ResGroup(width, num_block, squeeze_factor)
        # not in the paper, where both widths are equal: a projection for narrower networks
        self.project = nn.Identity() if width == prior_channels else nn.Conv2d(width, prior_channels, 1)

    def forward(self, e_i: Tensor) -> Tensor:
        """Map E_i to the estimated prior P^_i of the same height and width."""
        return self.project(self.blocks(self.ssft(e_i)))


class Decoder(nn.Module):
    """Decoder of the deblurring stream, M_D (section 3.3): restores E4 and E0 under the prior's guidance."""

    def __init__(
        self,
        out_channels: int,
        widths: Sequence[int],
        prior_channels: Sequence[int] | None,
        num_block: int,
        squeeze_factor: int,
        feature_transform: bool,
    ) -> None:
        super().__init__()
        c1, c2, c3 = widths
        if prior_channels is not None:
            fuse = SFT if feature_transform else AddPrior
            self.fuse3 = fuse(c3, prior_channels[2])
            self.fuse2 = fuse(c2, prior_channels[1])
            self.fuse1 = fuse(c1, prior_channels[0])
        self.scale3 = ResGroup(c3, num_block, squeeze_factor)
        self.up3 = up2(c3, c2)
        self.scale2 = ResGroup(c2, num_block, squeeze_factor)
        self.up2 = up2(c2, c1)
        self.scale1 = ResGroup(c1, num_block, squeeze_factor)
        self.tail = nn.Conv2d(c1, out_channels, 1)

    def forward(self, e0: Tensor, e4: Tensor, priors: Sequence[Tensor] | None) -> Tensor:
        """Map E0, E4 and [P^1, P^2, P^3], or None without a prior stream, to the image before tanh, (B,3,H,W)."""
        d3 = self.scale3(e4 if priors is None else self.fuse3(e4, priors[2]))  # (B,256,H/4,W/4)
        d2 = self.up3(d3)  # (B,128,H/2,W/2)
        d2 = self.scale2(d2 if priors is None else self.fuse2(d2, priors[1]))
        d1 = self.up2(d2)  # (B,64,H,W)
        d0 = self.scale1(d1 if priors is None else self.fuse1(d1, priors[0]))
        with torch.autocast(e0.device.type, enabled=False):  # float32, because bfloat16 has fewer levels than an image
            return self.tail((d0 + e0).float())  # (B,3,H,W)


@ARCH_REGISTRY.register()
class DFPGNet(nn.Module):
    """Deep feature prior guided network: a face deblurring generator with 44.66 M parameters at the defaults.

    The constructor's arguments, with the ablations of Table 4:

    - ``num_in_ch``, ``num_out_ch``: channels of the blurred and of the restored image.
    - ``num_feat``: channels at full size, doubled at 1/2 and again at 1/4. 64 gives the channels of the prior.
    - ``num_block``, ``num_prior_block``: Resblocks per group in the deblurring and in the prior estimation stream.
    - ``prior_channels``, ``prior_strides``: channels and strides of the prior's three layers. The defaults are those of
      VGG-16's relu1_2, relu2_2 and relu3_3; in training, those of ``network_prior``. A stride may be a multiple of
      E_i's stride. The estimate then guides the decoder at E_i's size, and is returned averaged to the prior's size.
    - ``prior_stream``: False leaves out P, SSFT and SFT (models B1, B2).
    - ``feature_transform``: False leaves out SSFT, and adds the prior instead of SFT (model B3).
    - ``squeeze_factor``: the reduction of the channel attention in every Resblock.
    - ``init_scale``: a factor on the Kaiming initialisation. Not in the paper: 0.1, as in the laboratory's code.
    - ``use_checkpoint``: True saves memory (``benchmarks/memory.py``). The values inside a Resblock are not kept: the
      backward pass computes them again.
    """

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 5,
        num_prior_block: int = 10,
        prior_channels: Sequence[int] = (64, 128, 256),
        prior_strides: Sequence[int] = STRIDES,
        prior_stream: bool = True,
        feature_transform: bool = True,
        squeeze_factor: int = 16,
        init_scale: float = 0.1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_choice("DFPGNet prior_stream", prior_stream, (True, False))
        check_choice("DFPGNet feature_transform", feature_transform, (True, False))
        check_choice("DFPGNet use_checkpoint", use_checkpoint, (True, False))
        if num_feat < squeeze_factor:
            raise UserError(f"DFPGNet num_feat: {num_feat} is below squeeze_factor {squeeze_factor}. Lower the latter.")
        if len(prior_channels) != 3:
            raise UserError(f"DFPGNet prior_channels: expected three numbers, got {list(prior_channels)}.")
        self.pooling = pooling_factors("DFPGNet", prior_strides, STRIDES)
        widths = (num_feat, 2 * num_feat, 4 * num_feat)
        self.encoder = Encoder(num_in_ch, widths, num_block, squeeze_factor)
        self.prior: nn.ModuleList | None = None
        if prior_stream:
            self.prior = nn.ModuleList(
                PriorEstimator(w, p, num_prior_block, squeeze_factor, feature_transform)
                for w, p in zip(widths, prior_channels, strict=True)
            )
        self.decoder = Decoder(
            num_out_ch, widths, prior_channels if prior_stream else None, num_block, squeeze_factor, feature_transform
        )
        init_kaiming(self, init_scale)
        for module in self.modules():
            if isinstance(module, ResGroup):
                module.use_checkpoint = use_checkpoint

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that ``torch.compile`` compiles one by one: nearly the whole network, in three widths."""
        encoder, decoder = self.encoder, self.decoder
        between: list[nn.Module] = [encoder.head, encoder.scale2[0], encoder.scale3[0], decoder.up3, decoder.up2]
        return between + [module for module in self.modules() if isinstance(module, ResBlock | SFT)]

    def forward(self, x: Tensor, return_priors: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Deblur RGB images.

        ``x`` is float (B,3,H,W) in [0,1] with H, W >= 16. The result has the same shape and range. If H or W is not a
        multiple of 4, the image is padded at the right and bottom by reflection, and the result is cropped. With
        ``return_priors``, [P^1, P^2, P^3] is returned, too. Their sizes are those of relu1_2, relu2_2 and relu3_3:
        (B,64,H,W), (B,128,H//2,W//2), (B,256,H//4,W//4). Other ``prior_channels`` or ``prior_strides`` change them.

        Raises UserError for smaller images, and for ``return_priors`` on a network without a prior stream.
        """
        height, width = x.shape[-2:]
        self._check_input(height, width, return_priors)
        x = F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]), mode="reflect")
        e0, e_prior, e4 = self.encoder(2 * x - 1)
        priors = None if self.prior is None else [p(e) for p, e in zip(self.prior, e_prior, strict=True)]
        image = self.decoder(e0, e4, priors).tanh()  # (B,3,H,W) in [-1,1], the range that the network works in
        image = ((image + 1) / 2)[..., :height, :width]
        if not return_priors:
            return image
        return image, pool_to_prior(priors or [], (height, width), STRIDES, self.pooling)

    def _check_input(self, height: int, width: int, return_priors: bool) -> None:
        if min(height, width) < MIN_SIZE:
            raise UserError(f"DFPGNet input: {height}x{width} px is too small, each side needs at least {MIN_SIZE} px.")
        if return_priors and self.prior is None:
            raise UserError(
                "DFPGNet prior_stream: the network was built without one, so it can't return priors. Set it to true, "
                "or in a training's options train:estimated_prior: restored."
            )
