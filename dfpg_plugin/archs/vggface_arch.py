"""The frozen VGGFace network (VGG-16, Parkhi et al. 2015) whose features are the prior, section 3.2 and 4.1."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.checks import UserError, check_choice, check_file
from dfpg_plugin.files import read_tensors

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of VGG-16's five stages
NUM_CLASSES = 2622  # identities of the VGG Face data set
MEAN_RGB = (129.1863, 104.7624, 93.5940)  # of VGG Face, 0-255; robots.ox.ac.uk/~albanie/pytorch-models.html
STAND_IN = files("dfpg_plugin") / "weights" / "standin_prior_orl.safetensors"
GREY_LEVELS = 255.0


def layer_names() -> list[str]:
    """Return the names of VGG-16's layers in order: conv1_1, relu1_1, conv1_2, relu1_2, pool1, ... relu5_3, pool5."""
    names = []
    for stage, (_, num_conv) in enumerate(STAGES, start=1):
        for conv in range(1, num_conv + 1):
            names += [f"conv{stage}_{conv}", f"relu{stage}_{conv}"]
        names.append(f"pool{stage}")
    return names


def build_layers(last: str) -> nn.Sequential:
    """Return VGG-16's feature layers from conv1_1 up to and with ``last``, by name, weights not yet set."""
    layers = nn.Sequential()
    channels = 3
    for name in layer_names():
        if name.startswith("conv"):
            width = STAGES[int(name[4]) - 1][0]
            layer: nn.Module = nn.Conv2d(channels, width, 3, padding=1)
            channels = width
        else:
            layer = nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2)
        layers.add_module(name, layer)
        if name == last:
            break
    return layers


def vggface_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the convolutions of a VGGFace file by layer name (``conv1_1.weight`` ...).

    Understands those names themselves and torchvision's (``features.0.weight`` ...). Raises UserError, naming the file,
    where the first convolution is not VGG's or the classifier does not have VGGFace's 2622 outputs.
    """
    index = {f"features.{i}": name for i, name in enumerate(layer_names())}
    renamed = {}
    for key, value in tensors.items():
        layer, _, kind = key.rpartition(".")
        renamed[f"{index.get(layer, layer)}.{kind}"] = value
    first = renamed.get("conv1_1.weight")
    if first is None or tuple(first.shape) != (64, 3, 3, 3):
        found = "is missing" if first is None else f"has shape {tuple(first.shape)}"
        raise UserError(f"{path} is not a VGGFace file: conv1_1 {found}, expected (64, 3, 3, 3).")
    classifier = renamed.get("classifier.6.weight", renamed.get("fc8.weight"))
    if classifier is not None and classifier.shape[0] != NUM_CLASSES:
        raise UserError(
            f"{path} is not a VGGFace file: its classifier has {classifier.shape[0]} outputs, VGGFace's has "
            f"{NUM_CLASSES} (1000 are ImageNet's, 8631 VGGFace2's)."
        )
    return renamed


@ARCH_REGISTRY.register()
class VGGFaceFeatureExtractor(nn.Module):
    """Features of named VGG-16 layers; frozen, always in eval mode. Gradients pass through it but never into it.

    The constructor's arguments:

    - ``weights``: a VGGFace file (see :func:`vggface_tensors`); ``stand-in`` for the small prior that this package
      ships, trained on the ORL faces up to relu3_3, for the demo; ``random`` for untrained weights (always the same).
    - ``layers``: which features to return, of :func:`layer_names`.
    - ``input``: ``pm1`` feeds RGB in [-1,1], as the paper's laboratory does; ``caffe255`` feeds 0-255 minus the mean.
    - ``channel_order``: the order that the file's first convolution expects, ``rgb`` or ``bgr``.
    - ``feature_scale``: one factor per layer. By default 1 for ``pm1`` and 2/255 for ``caffe255``, which brings both to
      the same magnitude (up to the biases); without it D^C could tell real from fake by magnitude alone.

    Raises UserError for unknown layers, and for a file that is missing, is not VGGFace's or lacks a wanted layer.
    """

    def __init__(
        self,
        *,
        weights: str,
        layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3"),
        input: str = "pm1",
        channel_order: str = "rgb",
        feature_scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        names = layer_names()
        for layer in layers:
            check_choice("VGGFaceFeatureExtractor layers", layer, names)
        check_choice("VGGFaceFeatureExtractor input", input, ("pm1", "caffe255"))
        check_choice("VGGFaceFeatureExtractor channel_order", channel_order, ("rgb", "bgr"))
        self.layers = list(layers)
        self.input = input
        self.feature_scale = list(feature_scale or [1.0 if input == "pm1" else 2 / GREY_LEVELS] * len(self.layers))
        if len(self.feature_scale) != len(self.layers):
            raise UserError(
                f"VGGFaceFeatureExtractor feature_scale: expected {len(self.layers)} factors, one a layer, "
                f"got {len(self.feature_scale)}."
            )
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.features = build_layers(last=max(self.layers, key=names.index))
        self.source = self._set_weights(weights, channel_order)
        self.requires_grad_(False)
        self.train(False)

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

    def _set_weights(self, weights: str, channel_order: str) -> str:
        """Fill the convolutions and return where they came from: a file's name and SHA-256, or ``random``."""
        if weights == "random":
            self._set_random_weights()
            return "random"
        path = Path(str(STAND_IN)) if weights == "stand-in" else check_file("VGGFaceFeatureExtractor weights", weights)
        tensors, metadata = read_tensors(path)
        if metadata.get("input", self.input) != self.input:
            raise UserError(f"{path} expects `input: {metadata['input']}`, the options say `input: {self.input}`.")
        tensors = vggface_tensors(path, tensors)
        if channel_order == "bgr":
            tensors["conv1_1.weight"] = tensors["conv1_1.weight"][:, [2, 1, 0]]
        for key, wanted in self.features.state_dict().items():
            if key not in tensors or tensors[key].shape != wanted.shape:
                found = f"has shape {tuple(tensors[key].shape)}" if key in tensors else "is missing"
                raise UserError(f"{path}: {key} {found}, expected {tuple(wanted.shape)} for the layers {self.layers}.")
            wanted.copy_(tensors[key])
        return json.dumps({"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})

    def _set_random_weights(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for layer in self.features.children():
            if isinstance(layer, nn.Conv2d):
                std = math.sqrt(2 / layer.weight[0].numel())  # Kaiming normal
                nn.init.normal_(layer.weight, std=std, generator=generator)
                layer.bias.data.zero_()  # type: ignore[union-attr]
