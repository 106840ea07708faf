"""Other networks as restorers: what stands between them and an image of one size in [0,1]."""

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
    - ``multiple``: the network takes only heights and widths that are multiples of it. Images are padded at the right
      and bottom by reflection (by their edge, where more than the image is missing), and what comes back is cropped.
    - ``value_range``: the lowest and highest value that the network takes and returns.
    - ``upscale``: how many times larger its result is; it is reduced to the image's size by averages.
    - ``output``: which of several outputs is the image.
    - ``residual``: True for a network that has no connection from its input to its output: what it returns is added to
      the image, so that it has to learn the difference only.
    - ``contiguous``: True for a network whose code relies on the order of its tensors in memory, (B,C,H,W), as with
      ``view``: DFPGModel then leaves its weights in that order instead of the faster one of images.

    The network's weights keep their names, below ``network.``; files of the network itself are loaded, too. Raises
    UserError where the network returns something else than these say.
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
        self.keeps_layout = contiguous  # read by models.acceleration.channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Return the restored images, (B,3,H,W)."""
        height, width = x.shape[-2:]
        span = self.high - self.low
        padded = self._padded(x) * span + self.low
        restored = self._image_of(self.network(padded.contiguous() if self.keeps_layout else padded))
        if self.upscale > 1:
            restored = F.avg_pool2d(restored, self.upscale)
        restored = restored[..., :height, :width]
        return x + restored / span if self.residual else (restored - self.low) / span

    def _padded(self, x: Tensor) -> Tensor:
        down, right = (-side % self.multiple for side in x.shape[-2:])
        reflects = down < x.shape[-2] and right < x.shape[-1]
        return F.pad(x, (0, right, 0, down), mode="reflect" if reflects else "replicate")

    def _image_of(self, outputs: Tensor | Sequence[Tensor]) -> Tensor:
        if isinstance(outputs, Tensor) and self.output is None:
            return outputs
        if not isinstance(outputs, Tensor) and self.output is not None and 0 <= self.output < len(outputs):
            return outputs[self.output]
        what, advice = f"{len(outputs)} outputs", "Say which of them is the image."
        if isinstance(outputs, Tensor):
            what, advice = "one image", "Leave it out."
        raise UserError(f"AdaptedNet output: {type(self.network).__name__} returns {what}, not {self.output}. {advice}")


def _is_range(values: object) -> bool:
    if not isinstance(values, Sequence) or len(values) != 2 or not all(isinstance(v, int | float) for v in values):
        return False
    return values[0] < values[1]
