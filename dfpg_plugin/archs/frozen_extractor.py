"""Base of extractors whose features are a prior: frozen, in eval mode, with a record of their weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import CONTAINERS, load_weights, sha256_of
from dfpg_plugin.vggface.files import weights_sha256
from dfpg_plugin.weight_names import first_names, with_fitting_names, without_wrapper

TRIAL_HEIGHT, TRIAL_WIDTHS = 128, (128, 192)  # px; large enough for a network with a stride of 64
RANDOM = "random"  # instead of a weights file


class FrozenExtractor(nn.Module):
    """Features of a frozen network, a base class for extractors. Gradients reach the images, never the weights.

    ``net`` maps RGB (B,3,H,W), normalised by ``mean`` and ``std``, to a list or dict. ``keys``: each layer's index
    in the list, or its key in the dict. ``origin``: the record's entries file, sha256, style and channel_order.

    Raises UserError for arguments of the wrong kind, and for layers that are no feature maps (B,C,H,W). A layer is no
    feature map if it does not grow with the image, or has its channels last.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        layers: Sequence[str],
        keys: Sequence[str | int],
        mean: Sequence[float],
        std: Sequence[float],
        feature_scale: Sequence[float] | None,
        origin: Mapping[str, str],
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.net: Any = net
        self.layers = list(layers)
        self.keys = list(keys)
        self.mean: Tensor
        self.std: Tensor
        for key, values in (("mean", mean), ("std", std)):
            if not _is_list_of(int | float, values, count=3) or (key == "std" and min(values) <= 0):
                raise UserError(f"{name} {key}: expected three numbers, std's above 0, got {values!r}.")
            self.register_buffer(
                key, torch.tensor(list(values), dtype=torch.float32).view(1, 3, 1, 1), persistent=False
            )
        self.feature_scale = checked_scale(name, feature_scale, len(self.layers), 1.0)
        self.requires_grad_(False)
        self.train(False)
        self._check_features()
        self.record: dict[str, str | list] = {
            **origin,
            "input": f"{name}, mean {[*map(float, mean)]}, std {[*map(float, std)]}",
            "layers": list(self.layers),
            "feature_scale": self.feature_scale,
            "weights_sha256": weights_sha256(net.state_dict()),
        }
        is_random = origin["file"] == RANDOM
        self.source = RANDOM if is_random else ", ".join(f"{k} {v}" for k, v in origin.items())

    def train(self, mode: bool = True) -> "FrozenExtractor":
        """Stay in eval mode, whatever ``mode`` says."""
        del mode
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map RGB images (B,3,H,W) in [0,1] to the features, each (B,C_i,H_i,W_i), in the order of ``layers``."""
        found = self.net((x - self.mean) / self.std)
        return [found[k] if s == 1 else s * found[k] for k, s in zip(self.keys, self.feature_scale, strict=True)]

    @torch.no_grad()
    def _check_features(self) -> None:
        name = type(self).__name__
        try:
            # without mean and scale, so that only the network can fail
            square, wide = [self.net(torch.zeros(1, 3, TRIAL_HEIGHT, width)) for width in TRIAL_WIDTHS]
            pairs = [(square[key], wide[key]) for key in self.keys]
        except Exception as error:  # a network may raise anything for a size that it does not take
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise UserError(
                f"{name} layers: {', '.join(self.layers)} can't be computed of images of any size, here "
                f"{TRIAL_HEIGHT} px ({reason}). Name layers before those that want one size, or another model."
            ) from error
        for layer, pair in zip(self.layers, pairs, strict=True):
            shapes = [list(getattr(feature, "shape", ())) for feature in pair]
            grows = len(shapes[0]) == 4 and shapes[0][:3] == shapes[1][:3] and shapes[0][3] < shapes[1][3]
            if not grows:
                sizes = " and ".join(f"{TRIAL_HEIGHT}x{width}" for width in TRIAL_WIDTHS)
                raise UserError(
                    f"{name} layers: {layer} is no feature map (B,C,H,W) that grows with the image, its shape is "
                    f"{shapes[0]} and {shapes[1]} for images of {sizes} px. Name another layer or model."
                )


def checked_scale(name: str, scale: object, count: int, default: float) -> list[float]:
    """Return ``feature_scale`` as one factor for each layer. Raises UserError for anything else."""
    if scale is None:
        scale = [default] * count
    if not _is_list_of(int | float, scale, count):
        raise UserError(f"{name} feature_scale: expected a list of {count} factors, one a layer, got {scale!r}.")
    return [float(factor) for factor in scale]  # type: ignore[attr-defined]


def checked_layers(name: str, layers: object) -> list[str]:
    """Return ``layers`` as a list of names. Raises UserError for anything else, and for an empty list."""
    if not _is_list_of(str, layers):
        raise UserError(f"{name} layers: expected a list of names, got {layers!r}.")
    return list(layers)  # type: ignore[call-overload]


def checked_indices(name: str, indices: object) -> list[int]:
    """Return ``out_indices`` as a list of numbers from 0. Raises UserError for anything else, and for an empty list."""
    if not _is_list_of(int, indices) or min(indices) < 0:  # type: ignore[call-overload]
        raise UserError(f"{name} out_indices: expected a list of whole numbers from 0, got {indices!r}.")
    return list(indices)  # type: ignore[call-overload]


def _is_list_of(kind: Any, values: object, count: int | None = None) -> bool:  # noqa: ANN401 a type or a union
    if not isinstance(values, Sequence) or isinstance(values, str):
        return False
    are_kind = all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
    return are_kind and (len(values) > 0 if count is None else len(values) == count)


def read_weights(name: str, style: str, weights: str, url: str) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
    """Return the tensors of a PyTorch or safetensors file, and the entries of the record that describe the file.

    For ``random`` the tensors are None. Nothing in the file is executed. ``url``: where a missing file can be fetched,
    for the error. Raises UserError for a file that is missing, not readable or holds no weights.
    """
    if not isinstance(weights, str):
        raise UserError(f"{name} weights: expected a file's name, got {weights!r}.")
    if weights == RANDOM:
        return None, {"file": RANDOM, "sha256": "", "style": RANDOM, "channel_order": "rgb"}
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"{name} weights: {path} does not exist. Download {url} to it, or name another file.")
    state = load_weights(path, CONTAINERS)[0]
    origin = {"file": path.name, "sha256": sha256_of(path), "style": style, "channel_order": "rgb"}
    return without_wrapper(state, path), origin


def load_needed(name: str, file: str, net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the weights that a network needs from a file that may hold more.

    Raises UserError, naming file and weight, for weights that are missing or have another shape.
    """
    state = with_fitting_names(net, state, file)
    own = net.state_dict()
    needed = sorted(key for key in own if not key.endswith("num_batches_tracked"))
    if missing := [key for key in needed if key not in state]:
        raise UserError(
            f"{name} weights: {file} lacks {len(missing)} of {len(needed)} weights, {missing[0]} first. It has "
            f"{first_names([*state])}. Name a file of this network."
        )
    for key in needed:
        if state[key].shape != own[key].shape:
            shapes = f"{list(state[key].shape)}, expected {list(own[key].shape)}"
            raise UserError(f"{name} weights: {file}: {key} has the shape {shapes}. It is of another network.")
    net.load_state_dict({key: state[key] for key in needed}, strict=False)
