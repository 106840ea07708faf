"""Use another registered network as a restorer: a wrapper fits its sizes, its value range and its outputs."""

from collections.abc import Mapping, Sequence

from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.archs.wrapping import take_bare_weights
from dfpg_plugin.checks import UserError, check_choice


@ARCH_REGISTRY.register()
class AdaptedNet(nn.Module):
    """Run a registered network on images (B,3,H,W) in [0,1] and return images of the same size and range.

    The constructor's arguments:

    - ``network``: the network's options, ``type`` and its arguments.
    - ``multiple``: the network needs heights and widths that are multiples of this number. Images are padded at the
      right and bottom by reflection. Images too small for this are padded by their edge. The result is cropped.
    - ``value_range``: the lowest and highest value that the network takes and returns, such as ``[-1, 1]``.
    - ``upscale``: how many times larger the network's result is. The result is averaged down to the image's size.
    - ``output``: the number of the output that is the image, from 0, for a network with several outputs.
    - ``residual``: True for a network that has no connection from its input to its output. The network's result is then
      added to the image, and the network has to learn the difference only.
    - ``contiguous``: True for a network whose code needs tensors in the memory order (B,C,H,W), as ``view`` does.
      DFPGModel then leaves the network's weights in this order and does not use the faster order of images.

    The network's weights keep their names, below ``network.``. Files of the bare network are loaded, too. Raises
    UserError if the network returns something else than these arguments say.
    """

    def __init__(
        self,
        *,
        network: Mapping,
        multiple: int = 1,
        value_range: Sequence[float] = (0.0, 1.0),
        upscale: int = 1,
        output: int | None = None,
        residual: bool = False,
        contiguous: bool = False,
    ) -> None:
        super().__init__()
        if not _is_range(value_range):
            raise UserError(f"AdaptedNet value_range: expected the lowest and highest value, got {value_range!r}.")
        for name, value, least in (("multiple", multiple, 1), ("upscale", upscale, 1), ("output", output or 0, 0)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"AdaptedNet {name}: expected a whole number from {least}, got {value!r}.")
        self.network = build_network(dict(network))
        take_bare_weights(self)
        self.multiple = multiple
        self.low, self.high = value_range
        self.upscale = upscale
        self.output = output
        check_choice("AdaptedNet residual", residual, (True, False))
        self.residual = residual
        check_choice("AdaptedNet contiguous", contiguous, (True, False))
        self.keeps_layout = contiguous  # read by speed.acceleration.channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Return the restored images, (B,3,H,W)."""
        height, width = x.shape[-2:]
        span = self.high - self.low
        padded = self._padded(x) * span + self.low
        restored = self._image_among(self.network(padded.contiguous() if self.keeps_layout else padded))
        if self.upscale > 1:
            restored = F.avg_pool2d(restored, self.upscale)
        restored = restored[..., :height, :width]
        return x + restored / span if self.residual else (restored - self.low) / span

    def _padded(self, x: Tensor) -> Tensor:
        down, right = (-side % self.multiple for side in x.shape[-2:])
        reflects = down < x.shape[-2] and right < x.shape[-1]
        return F.pad(x, (0, right, 0, down), mode="reflect" if reflects else "replicate")

    def _image_among(self, outputs: Tensor | Sequence[Tensor]) -> Tensor:
        if isinstance(outputs, Tensor):
            if self.output is None:
                return outputs
            found, advice = "one image", "Remove `output`."
        else:
            if self.output is not None and self.output < len(outputs):
                return outputs[self.output]
            found, advice = f"{len(outputs)} outputs", "Set `output` to the number of the image, from 0."
        raise UserError(
            f"AdaptedNet output: {self.output} does not fit. {type(self.network).__name__} returns {found}. {advice}"
        )


def _is_range(values: object) -> bool:
    if not isinstance(values, Sequence) or len(values) != 2 or not all(isinstance(v, int | float) for v in values):
        return False
    return values[0] < values[1]
