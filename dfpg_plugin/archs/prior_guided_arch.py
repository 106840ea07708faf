"""DFPGNet's prior estimation stream around another encoder-decoder (sections 3.2 and 3.3, Fig. 2).

Outputs of the encoder, E_i, go through SSFT and Resblocks to the estimated prior P^_i; by that, SFT transforms inputs
of the decoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.archs.blocks import SFT, compared, init_kaiming, means_over
from dfpg_plugin.archs.dfpgnet_arch import PriorEstimator
from dfpg_plugin.archs.wrapping import take_bare_weights
from dfpg_plugin.checks import UserError, close_names

TRIAL_SIZE = 128  # px
Size = tuple[int, int]  # channels and stride


@ARCH_REGISTRY.register()
class PriorGuidedNet(nn.Module):
    """Guide any registered encoder-decoder by an estimated prior, trained as DFPGNet's is.

    The constructor's arguments:

    - ``network``: the options of the network, ``type`` and its arguments; it maps (B,3,H,W) in [0,1] to the same.
    - ``encoder``: the names of three of its modules (as in ``named_modules``), whose outputs are E1, E2 and E3.
    - ``decoder``: the names of three, whose inputs (the first, where there are several) SFT transforms, guided by P^1,
      P^2 and P^3. An E_i and the input that it guides have the same height and width.
    - ``prior_channels``, ``prior_strides``, ``num_prior_block``, ``squeeze_factor``, ``init_scale``: as of
      :class:`dfpg_plugin.archs.dfpgnet_arch.DFPGNet`. The initialisation is that of the added layers only.

    The network's weights keep their names, below ``network.``; with ``strict_load_g: false`` files of the network
    itself are loaded, too, and what is added starts untrained. Not for several threads, nor for several GPUs in one
    process. Raises UserError for names that the network does not have, that it never passes or not in this order, for
    points whose sizes do not fit, and for strides of the prior that are no multiples of those of E_i.
    """

    def __init__(
        self,
        *,
        network: Mapping,
        encoder: Sequence[str],
        decoder: Sequence[str],
        prior_channels: Sequence[int] = (64, 128, 256),
        prior_strides: Sequence[int] = (1, 2, 4),
        num_prior_block: int = 10,
        squeeze_factor: int = 16,
        init_scale: float = 0.1,
    ) -> None:
        super().__init__()
        for key, value in (("encoder", encoder), ("decoder", decoder), ("prior_channels", prior_channels)):
            if len(value) != 3:
                raise UserError(f"PriorGuidedNet {key}: expected three, got {list(value)}.")
        self.network = build_network(dict(network))
        take_bare_weights(self)
        self.encoder, self.decoder = list(encoder), list(decoder)
        sizes = self._sizes()
        if min(width for width, _ in sizes[:3]) < squeeze_factor:
            widths = [width for width, _ in sizes[:3]]
            raise UserError(f"PriorGuidedNet squeeze_factor: {squeeze_factor} is above a width of {widths}. Lower it.")
        self.strides = [stride for _, stride in sizes[:3]]
        self.means = means_over("PriorGuidedNet", prior_strides, self.strides)
        self.estimators = nn.ModuleList(
            PriorEstimator(width, channels, num_prior_block, squeeze_factor, feature_transform=True)
            for (width, _), channels in zip(sizes[:3], prior_channels, strict=True)
        )
        self.transforms = nn.ModuleList(
            SFT(width, channels) for (width, _), channels in zip(sizes[3:], prior_channels, strict=True)
        )
        for added in (self.estimators, self.transforms):
            init_kaiming(added, init_scale)
        self.priors: dict[int, Tensor] = {}  # of the forward under way, by layer
        for i, name in enumerate(self.encoder):
            self.network.get_submodule(name).register_forward_hook(partial(self._estimate, i))
        for i, name in enumerate(self.decoder):
            self.network.get_submodule(name).register_forward_pre_hook(partial(self._guide, i))

    def forward(self, x: Tensor, return_priors: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Restore RGB images (B,3,H,W) in [0,1]; with ``return_priors`` also [P^1, P^2, P^3], in the prior's sizes.

        Where the network pads its input at the right and bottom, that part of the estimates is cut off.
        """
        if getattr(self, "_is_replica", False):
            raise UserError("PriorGuidedNet: needs one process for each GPU. Start with torchrun, or set num_gpu: 1.")
        image = self.network(x)
        priors = [self.priors[i] for i in range(len(self.encoder))]
        self.priors.clear()
        if not return_priors:
            return image
        return image, compared(priors, (x.shape[-2], x.shape[-1]), self.strides, self.means)

    def _estimate(self, i: int, module: nn.Module, inputs: tuple, e_i: Tensor) -> None:
        self.priors[i] = self.estimators[i](e_i)

    def _guide(self, i: int, module: nn.Module, inputs: tuple) -> tuple:
        return self.transforms[i](inputs[0], self.priors[i]), *inputs[1:]

    @torch.no_grad()
    def _sizes(self) -> list[Size]:
        """Return the channels and strides of E1 to E3 and of the decoder's three inputs, by a look at a black image."""
        found: dict[str, Tensor] = {}
        self.network.eval()  # for norms, which would count it
        with self._watched(found):
            self.network(torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE))
        self.network.train()
        order = list(found)
        sizes: list[Size] = []
        for role, names in (("encoder", self.encoder), ("decoder", self.decoder)):
            for name in names:
                feature = found.get(f"{role} {name}")
                if not isinstance(feature, Tensor) or feature.dim() != 4:
                    raise UserError(f"PriorGuidedNet {role}: {name} gives no feature map when the network runs.")
                if any(side == 0 or TRIAL_SIZE % side for side in feature.shape[-2:]):
                    raise UserError(
                        f"PriorGuidedNet {role}: {name} has {feature.shape[-2]}x{feature.shape[-1]} px of an image of "
                        f"{TRIAL_SIZE}x{TRIAL_SIZE}, no whole fraction. Name another point."
                    )
                sizes.append((feature.shape[1], TRIAL_SIZE // feature.shape[-1]))
        for e, d, (_, e_stride), (_, d_stride) in zip(self.encoder, self.decoder, sizes[:3], sizes[3:], strict=True):
            if e_stride != d_stride:
                raise UserError(
                    f"PriorGuidedNet: the output of {e} has stride {e_stride}, the input of {d} stride {d_stride}. "
                    "Name points of the same size."
                )
            if order.index(f"encoder {e}") > order.index(f"decoder {d}"):
                raise UserError(f"PriorGuidedNet: {d} comes before {e}, which is to guide it. Exchange the points.")
        return sizes

    @contextmanager
    def _watched(self, found: dict[str, Tensor]) -> Iterator[None]:
        """Collect what passes the points, in the order in which it does."""
        modules = dict(self.network.named_modules())
        for name in (*self.encoder, *self.decoder):
            if name not in modules:
                raise UserError(f"PriorGuidedNet: the network has no module {name!r}.{close_names(name, modules)}")

        def of_encoder(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
            found[f"encoder {name}"] = output

        def of_decoder(name: str, module: nn.Module, inputs: tuple) -> None:
            if not inputs:
                raise UserError(f"PriorGuidedNet decoder: {name} gets its input by keyword. Name another module.")
            found[f"decoder {name}"] = inputs[0]

        handles = [modules[name].register_forward_hook(partial(of_encoder, name)) for name in self.encoder]
        handles += [modules[name].register_forward_pre_hook(partial(of_decoder, name)) for name in self.decoder]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
