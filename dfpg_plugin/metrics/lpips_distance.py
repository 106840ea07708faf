"""LPIPS, by the lpips package; Tables 1 and 2 of the paper."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from basicsr.utils.registry import METRIC_REGISTRY
from lpips import LPIPS
from numpy.typing import NDArray
from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.files import load_pytorch, state_dict_of
from dfpg_plugin.metrics.images import GREY_LEVELS, checked_pair, to_rgb_batch
from dfpg_plugin.metrics.weights import best_device, default_file, find_weights
from dfpg_plugin.seeding import seeded
from dfpg_plugin.weight_names import without_wrapper

URLS = {
    "vgg": VGG16_Weights.IMAGENET1K_V1.url,
    "alex": AlexNet_Weights.IMAGENET1K_V1.url,
    "squeeze": SqueezeNet1_1_Weights.IMAGENET1K_V1.url,
}


def default_weights(net: str) -> Path:
    """Return the path where torchvision would keep an ImageNet backbone's weights after downloading them."""
    return default_file(URLS[net], Path(torch.hub.get_dir()) / "checkpoints")


@cache
def load_lpips(net: str, weights: str | None) -> LPIPS:
    """Return LPIPS, loaded once a process: its own linear layers on an ImageNet backbone from a file.

    ``weights``: torchvision's file, by default :func:`default_weights`. ``random`` gives an untrained backbone, always
    the same, for tests. Raises UserError if the file is missing or does not hold the backbone's weights.
    """
    check_choice("calculate_lpips: net", net, URLS)
    with seeded(0):
        network = LPIPS(net=net, pnet_rand=True, verbose=False)  # pnet_rand, else lpips downloads weights
    if weights != "random":
        path = find_weights("calculate_lpips", weights, URLS[net], default_weights(net).parent)
        state = without_wrapper(state_dict_of(path, load_pytorch(path)), path)
        # lpips cuts torchvision's `features` into slices: slice2.3.weight is features.3.weight
        wanted = {key: f"features.{key.split('.', 1)[1]}" for key in network.net.state_dict()}
        try:
            network.net.load_state_dict({key: state[name] for key, name in wanted.items()})
        except (KeyError, RuntimeError) as error:
            raise UserError(f"calculate_lpips: {path} does not hold torchvision's weights of {net}.") from error
    return network.requires_grad_(False).to(best_device())


@torch.no_grad()
def lpips_distances(
    restored: Sequence[NDArray], sharp: Sequence[NDArray], network: LPIPS, legacy_range: bool = False
) -> list[float]:
    """Return LPIPS of each pair of uint8 BGR images (H,W,3) of one size.

    The network takes RGB in [-1,1]. With ``legacy_range`` the network gets 0-255, as in the script behind the tables.
    """
    batches = (to_rgb_batch(images, next(network.parameters()).device) for images in (restored, sharp))
    scaled = (GREY_LEVELS * batch if legacy_range else 2 * batch - 1 for batch in batches)
    return network(*scaled).flatten().tolist()


@METRIC_REGISTRY.register()
def calculate_lpips(
    img: NDArray,
    img2: NDArray,
    net: str = "vgg",
    weights: str | None = None,
    legacy_range: bool = False,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str = "lower",
) -> float:
    """Return LPIPS of two uint8 images, as a metric of BasicSR's ``val.metrics``.

    ``net``: vgg (the laboratory's), alex or squeeze; ``weights``: see :func:`load_lpips`; ``legacy_range``: see
    :func:`lpips_distances`.
    """
    del better  # BasicSR's validation reads ``better`` from the options
    pair = checked_pair("calculate_lpips", img, img2, crop_border, input_order)
    return lpips_distances(pair[:1], pair[1:], load_lpips(net, weights), legacy_range)[0]
