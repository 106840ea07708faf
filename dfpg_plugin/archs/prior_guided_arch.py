"""DFPGNet's prior estimation stream around another encoder-decoder (sections 3.2 and 3.3, Fig. 2).

The encoder's outputs E_i go through SSFT and Resblocks and become the estimated prior P^_i. SFT transforms inputs of
the decoder by the estimated prior.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.archs.blocks import SFT, init_kaiming, pool_to_prior, pooling_factors
from dfpg_plugin.archs.dfpgnet_arch import PriorEstimator
from dfpg_plugin.archs.wrapping import take_bare_weights
from dfpg_plugin.checks import UserError, close_names

TRIAL_SIZE = 128  # px


@ARCH_REGISTRY.register()
class PriorGuidedNet(nn.Module):
    """Guide any registered encoder-decoder by an estimated prior, which is trained as DFPGNet's is.

    The constructor's arguments:

    - ``network``: the network's options, ``type`` and its arguments. It maps (B,3,H,W) in [0,1] to the same.
    - ``encoder``: the names of three modules, as in ``named_modules``. Their outputs are E1, E2 and E3.
    - ``decoder``: the names of three modules. SFT transforms the first input of each, guided by P^1, P^2 and P^3. The
      input that P^_i guides has the same height and width as E_i.
    - ``prior_channels``, ``prior_strides``, ``num_prior_block``, ``squeeze_factor``, ``init_scale``: as in
      :class:`dfpg_plugin.archs.dfpgnet_arch.DFPGNet`. ``init_scale`` concerns the added layers only.

    The network's weights keep their names, below ``network.``. With ``strict_load_g: false``, files of the bare network
    are loaded, too, and the added layers start untrained. Several threads, or several GPUs in one process, are not
    supported. Raises UserError for modules that the network does not have, never runs or runs in another order, for
    modules whose sizes do not fit, and for strides of the prior that are no multiples of E_i's.
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
        channels, strides = self._channels_and_strides()
        widths, self.strides = channels[:3], strides[:3]
        if min(widths) < squeeze_factor:
            raise UserError(f"PriorGuidedNet squeeze_factor: {squeeze_factor} is above a width of {widths}. Lower it.")
        self.pooling = pooling_factors("PriorGuidedNet", prior_strides, self.strides)
        self.estimators = nn.ModuleList(
            PriorEstimator(width, p, num_prior_block, squeeze_factor, feature_transform=True)
            for width, p in zip(widths, prior_channels, strict=True)
        )
        self.transforms = nn.ModuleList(SFT(width, p) for width, p in zip(channels[3:], prior_channels, strict=True))
        for added in (self.estimators, self.transforms):
            init_kaiming(added, init_scale)
        self.priors: dict[int, Tensor] = {}  # of the current forward pass, by the number of the layer
        for i, name in enumerate(self.encoder):
            self.network.get_submodule(name).register_forward_hook(partial(self._estimate, i))
        for i, name in enumerate(self.decoder):
            self.network.get_submodule(name).register_forward_pre_hook(partial(self._guide, i))

    def forward(self, x: Tensor, return_priors: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Restore RGB images (B,3,H,W) in [0,1]. With ``return_priors``, also return [P^1, P^2, P^3].

        The estimates have the prior's sizes. If the network pads its input at the right and bottom, this part of the
        estimates is cut off. Raises UserError if one process runs the network on several GPUs.
        """
        if getattr(self, "_is_replica", False):
            raise UserError("PriorGuidedNet: needs one process for each GPU. Start with torchrun, or set num_gpu: 1.")
        image = self.network(x)
        priors = [self.priors[i] for i in range(len(self.encoder))]
        self.priors.clear()
        if not return_priors:
            return image
        return image, pool_to_prior(priors, (x.shape[-2], x.shape[-1]), self.strides, self.pooling)

    def _estimate(self, i: int, module: nn.Module, inputs: tuple, e_i: Tensor) -> None:
        self.priors[i] = self.estimators[i](e_i)

    def _guide(self, i: int, module: nn.Module, inputs: tuple) -> tuple:
        return self.transforms[i](inputs[0], self.priors[i]), *inputs[1:]

    @torch.no_grad()
    def _channels_and_strides(self) -> tuple[list[int], list[int]]:
        """Run on a black image. Return the channels and strides of E1 to E3, then of the decoder's three inputs."""
        found: dict[str, Tensor] = {}
        self.network.eval()  # in training mode, the black image would change the statistics of norms
        with self._watched(found):
            self.network(torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE))
        self.network.train()
        channels: list[int] = []
        strides: list[int] = []
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
                channels.append(feature.shape[1])
                strides.append(TRIAL_SIZE // feature.shape[-1])
        self._check_pairs(strides, list(found))
        return channels, strides

    def _check_pairs(self, strides: Sequence[int], order: Sequence[str]) -> None:
        """Check that each E_i has its decoder input's stride and comes before it in ``order``."""
        for e, d, e_stride, d_stride in zip(self.encoder, self.decoder, strides[:3], strides[3:], strict=True):
            if e_stride != d_stride:
                raise UserError(
                    f"PriorGuidedNet: the output of {e} has stride {e_stride}, the input of {d} stride {d_stride}. "
                    "Name points of the same size."
                )
            if order.index(f"encoder {e}") > order.index(f"decoder {d}"):
                raise UserError(f"PriorGuidedNet: {d} comes before {e}, which is to guide it. Exchange the points.")

    @contextmanager
    def _watched(self, found: dict[str, Tensor]) -> Iterator[None]:
        """Collect the encoder's outputs and the decoder's inputs in ``found``, in the order in which they occur."""
        modules = dict(self.network.named_modules())
        for name in (*self.encoder, *self.decoder):
            if name not in modules:
                raise UserError(f"PriorGuidedNet: the network has no module {name!r}.{close_names(name, modules)}")

        def keep_output(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
            found[f"encoder {name}"] = output

        def keep_input(name: str, module: nn.Module, inputs: tuple) -> None:
            if not inputs:
                raise UserError(f"PriorGuidedNet decoder: {name} gets its input by keyword. Name another module.")
            found[f"decoder {name}"] = inputs[0]

        handles = [modules[name].register_forward_hook(partial(keep_output, name)) for name in self.encoder]
        handles += [modules[name].register_forward_pre_hook(partial(keep_input, name)) for name in self.decoder]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
