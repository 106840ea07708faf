"""What extractors share whose features are a prior: frozen, in eval mode, with a record of what they are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dfpg_plugin.archs.vggface_files import weights_sha256
from dfpg_plugin.checks import UserError
from dfpg_plugin.files import load_weights, sha256_of

TRIAL_SIZE = 64  # px
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB in [0,1]; torchvision's transforms
RANDOM = "random"  # in place of a weights file
KEYS = ("params_ema", "params", "state_dict", "model")  # under which files keep weights


class FrozenExtractor(nn.Module):
    """Features of a frozen network, a base for extractors: gradients pass through it but never into it.

    ``net`` maps RGB (B,3,H,W), normalised by ``mean`` and ``std``, to a list with a feature of each of ``layers``, or
    to a dict in that order. ``origin``: what the record says of the weights: file, sha256, style, channel_order.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        layers: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        feature_scale: Sequence[float] | None,
        origin: Mapping[str, str],
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.net = net
        self.layers = list(layers)
        self.mean: Tensor
        self.std: Tensor
        for key, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or (key == "std" and min(values) <= 0):
                raise UserError(f"{name} {key}: expected three numbers, std's above 0, got {list(values)}.")
            self.register_buffer(key, torch.tensor(list(values)).view(1, 3, 1, 1), persistent=False)
        self.feature_scale = checked_scale(name, feature_scale, len(self.layers), 1.0)
        self.requires_grad_(False)
        self.train(False)
        self._check_features()
        self.record: dict[str, str | list] = {
            **origin,
            "input": f"{name}, mean {list(mean)}, std {list(std)}",
            "layers": list(self.layers),
            "feature_scale": self.feature_scale,
            "weights_sha256": weights_sha256(net.state_dict()),
        }
        self.source = ", ".join(f"{k} {v}" for k, v in origin.items())

    def train(self, mode: bool = True) -> "FrozenExtractor":
        """Stay in eval mode, whatever ``mode`` says."""
        del mode
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map RGB images (B,3,H,W) in [0,1] to the features, each (B,C_i,H_i,W_i), in the order of ``layers``."""
        found = self.net((x - self.mean) / self.std)
        features = found.values() if isinstance(found, Mapping) else found
        return [feature if s == 1 else s * feature for feature, s in zip(features, self.feature_scale, strict=True)]

    @torch.no_grad()
    def _check_features(self) -> None:
        name = type(self).__name__
        try:
            features = self(torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE))
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"{name} layers: can't be computed of an image of {TRIAL_SIZE} px ({reason}). Name layers before those "
                "that want one size."
            ) from error
        for layer, feature in zip(self.layers, features, strict=True):
            if not isinstance(feature, Tensor) or feature.dim() != 4:
                shape = list(getattr(feature, "shape", ()))
                raise UserError(f"{name} layers: {layer} is no feature map (B,C,H,W), its shape is {shape}.")


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Draw a network's first weights from seed 0, and leave the run's own random numbers as they are."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)  # torch.manual_seed would seed every GPU as well
    try:
        yield
    finally:
        torch.set_rng_state(state)


def checked_scale(name: str, scale: object, count: int, default: float) -> list[float]:
    """Return ``feature_scale`` as a factor for each layer. Raises UserError where it is something else."""
    if scale is None:
        scale = [default] * count
    if (
        not isinstance(scale, Sequence)
        or len(scale) != count
        or not all(isinstance(factor, int | float) for factor in scale)
    ):
        raise UserError(f"{name} feature_scale: expected a list of {count} factors, one a layer, got {scale!r}.")
    return [float(factor) for factor in scale]


def read_weights(name: str, weights: str, url: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a PyTorch or safetensors file, and what a record says of it. Nothing in it is executed.

    ``url``: where the file can be fetched, for the error where it is missing. Raises UserError.
    """
    if not isinstance(weights, str):
        raise UserError(f"{name} weights: expected a file's name, got {weights!r}.")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"{name} weights: {path} does not exist. Download {url} to it, or name another file.")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a readable safetensors file ({error}).") from error
    else:
        state = load_weights(path, KEYS)[0]
    return state, {"file": path.name, "sha256": sha256_of(path), "style": name, "channel_order": "rgb"}


def random_origin() -> dict[str, str]:
    """Return what a record says of untrained weights."""
    return {"file": RANDOM, "sha256": "", "style": RANDOM, "channel_order": "rgb"}


def load_kept(name: str, file: str, net: nn.Module, state: Mapping[str, Tensor], optional: Iterable[str] = ()) -> None:
    """Load the weights that a network has from a file that may hold more. ``optional``: those that may be missing.

    Raises UserError for those that are missing or have another shape.
    """
    own = net.state_dict()
    needed = {key for key in own if not key.endswith("num_batches_tracked")} - set(optional)
    if missing := sorted(needed - set(state)):
        raise UserError(f"{name} weights: {file} lacks {len(missing)} of {len(needed)} weights, {missing[0]} first.")
    for key in sorted(needed):
        if state[key].shape != own[key].shape:
            shapes = f"{list(state[key].shape)}, expected {list(own[key].shape)}"
            raise UserError(f"{name} weights: {file}: {key} has the shape {shapes}. It is of another network.")
    net.load_state_dict({key: state[key] for key in needed}, strict=False)
