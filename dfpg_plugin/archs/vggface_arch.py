"""The frozen VGGFace network (VGG-16, Parkhi et al. 2015) whose features are the prior, section 3.2 and 4.1."""

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.archs.frozen_extractor import checked_scale
from dfpg_plugin.checks import UserError, check_choice, check_file
from dfpg_plugin.vggface.files import (
    CHANNEL_ORDERS,
    INPUTS,
    layer_names,
    needed_tensors,
    read_vggface,
    tensor_shapes,
    weights_sha256,
)

MEAN_RGB = (129.1863, 104.7624, 93.5940)  # VGG Face's grey levels, 0-255; robots.ox.ac.uk/~albanie/pytorch-models.html
STAND_IN = files("dfpg_plugin") / "weights" / "standin_prior_lfw.safetensors"
GREY_LEVELS = 255.0


def build_layers(last: str) -> nn.Sequential:
    """Return VGG-16's feature layers from conv1_1 to ``last`` inclusive, by name. Weights are not yet set."""
    layers = nn.Sequential()
    shapes = tensor_shapes()
    for name in layer_names():
        if name.startswith("conv"):
            width, channels, *_ = shapes[f"{name}.weight"]
            layer: nn.Module = nn.Conv2d(channels, width, 3, padding=1)
        else:
            layer = nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2)
        layers.add_module(name, layer)
        if name == last:
            break
    return layers


@ARCH_REGISTRY.register()
class VGGFaceFeatureExtractor(nn.Module):
    """Features of named VGG-16 layers. Frozen, always in eval mode: gradients reach the images, never the weights.

    The constructor's arguments:

    - ``weights``: a VGGFace file of any style in :mod:`dfpg_plugin.vggface.files`. ``stand-in`` is the small prior that
      this package ships for the demo; it was trained on LFW and ends at relu3_3. ``random`` gives untrained weights,
      always the same.
    - ``layers``: the layers whose features are returned, names of :func:`layer_names`.
    - ``input``: ``pm1`` feeds RGB in [-1,1], as the paper's laboratory does; ``caffe255`` feeds 0-255 minus the mean;
      ``rgb255`` feeds 0-255, as the laboratory does for its measure d_VGG.
    - ``channel_order``: the order that the file's first convolution expects, ``rgb`` or ``bgr``; by default the order
      of the file's style.
    - ``feature_scale``: one factor per layer. By default 1 for ``pm1`` and 2/255 for the others. All features then have
      the same magnitude (up to the biases), so that D^C can't tell real from fake by magnitude alone.

    ``record`` identifies the prior by plain values: file, sha256 (of the file), style, channel_order, input, layers,
    feature_scale and weights_sha256. Equal weights in different files have the same weights_sha256. ``source`` names
    the weights in one line.

    Raises UserError for unknown layers, and for a file that is missing, is not VGGFace's or lacks a wanted layer.
    """

    def __init__(
        self,
        *,
        weights: str,
        layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3"),
        input: str = "pm1",
        channel_order: str | None = None,
        feature_scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        names = layer_names()
        needed_tensors(layers)  # raises UserError for unknown layers
        check_choice("VGGFaceFeatureExtractor input", input, INPUTS)
        check_choice("VGGFaceFeatureExtractor channel_order", channel_order, (None, *CHANNEL_ORDERS))
        self.layers = list(layers)
        self.input = input
        self.feature_scale = checked_scale(
            type(self).__name__, feature_scale, len(self.layers), 1.0 if input == "pm1" else 2 / GREY_LEVELS
        )
        self.mean: Tensor
        self.register_buffer(
            "mean", torch.tensor(MEAN_RGB if input == "caffe255" else (0.0,) * 3).view(1, 3, 1, 1), persistent=False
        )
        self.features = build_layers(last=max(self.layers, key=names.index))
        origin = self._set_weights(weights, channel_order)
        self.record: dict[str, str | list] = {
            **origin,
            "input": input,
            "layers": list(self.layers),
            "feature_scale": self.feature_scale,
            "weights_sha256": weights_sha256(self.features.state_dict()),
        }
        self.source = weights if weights == "random" else ", ".join(f"{k} {v}" for k, v in origin.items())
        self.requires_grad_(False)
        self.train(False)

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that ``torch.compile`` compiles: the whole network."""
        return [self]

    def train(self, mode: bool = True) -> "VGGFaceFeatureExtractor":
        """Stay in eval mode, whatever ``mode`` says."""
        del mode
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map RGB images (B,3,H,W) in [0,1] to the wanted features, in the order of ``layers``.

        relu1_2 is (B,64,H,W), relu2_2 (B,128,H//2,W//2), relu3_3 (B,256,H//4,W//4).
        """
        x = 2 * x - 1 if self.input == "pm1" else GREY_LEVELS * x - self.mean
        found = {}
        for name, layer in self.features.named_children():
            x = layer(x)
            found[name] = x
        return [scale * found[name] for name, scale in zip(self.layers, self.feature_scale, strict=True)]

    def _set_weights(self, weights: str, channel_order: str | None) -> dict[str, str]:
        """Fill the convolutions and return the record's entries on the weights."""
        if not isinstance(weights, str):
            raise UserError(f"VGGFaceFeatureExtractor weights: expected a file's name, got {weights!r}.")
        if weights == "random":
            self._set_random_weights()
            return {"file": "random", "sha256": "", "style": "random", "channel_order": "rgb"}
        path = Path(str(STAND_IN)) if weights == "stand-in" else check_file("VGGFaceFeatureExtractor weights", weights)
        file = read_vggface(path)
        if file.input not in (None, self.input):
            raise UserError(f"{path} expects `input: {file.input}`, the options say `input: {self.input}`.")
        self.features.load_state_dict(file.convolutions(self.layers, channel_order))
        order = channel_order or file.channel_order
        return {"file": path.name, "sha256": file.sha256, "style": file.style, "channel_order": order}

    def _set_random_weights(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for layer in self.features.children():
            if isinstance(layer, nn.Conv2d):
                std = math.sqrt(2 / layer.weight[0].numel())  # Kaiming normal
                nn.init.normal_(layer.weight, std=std, generator=generator)
                layer.bias.data.zero_()  # type: ignore[union-attr]
