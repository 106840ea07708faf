"""d_VGG: how far apart VGGFace's features of two faces are; Tables 1 and 2 of the paper."""

from collections.abc import Sequence
from functools import cache

import torch
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from torch import Tensor

from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor
from dfpg_plugin.metrics.images import checked_pair, to_rgb_batch
from dfpg_plugin.metrics.weights import best_device, fixed_seed


def vggface_distance(restored: Tensor, sharp: Tensor, network: VGGFaceFeatureExtractor) -> Tensor:
    """Return the mean squared error of each image's features, (B,), for RGB (B,3,H,W) in [0,1].

    Of several layers it is the sum of their means.
    """
    features, wanted = network(restored), network(sharp)
    return sum(((f - w) ** 2).flatten(1).mean(1) for f, w in zip(features, wanted, strict=True))


@cache
def load_vggface(weights: str, layer: str, input: str, channel_order: str | None) -> VGGFaceFeatureExtractor:
    """Return the network of d_VGG, loaded once a process, on the GPU where there is one."""
    with fixed_seed():
        network = VGGFaceFeatureExtractor(
            weights=weights, layers=[layer], input=input, channel_order=channel_order, feature_scale=[1.0]
        )
    return network.to(best_device())


@torch.no_grad()
def vggface_distances(
    restored: Sequence[NDArray], sharp: Sequence[NDArray], network: VGGFaceFeatureExtractor
) -> list[float]:
    """Return d_VGG of each pair of uint8 BGR images (H,W,3) of one size."""
    device = next(network.parameters()).device
    return vggface_distance(to_rgb_batch(restored, device), to_rgb_batch(sharp, device), network).tolist()


@METRIC_REGISTRY.register()
def calculate_vggface_distance(
    img: NDArray,
    img2: NDArray,
    weights: str,
    layer: str = "pool5",
    input: str = "rgb255",
    channel_order: str | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str = "lower",
) -> float:
    """Return d_VGG of two uint8 images, as a metric of BasicSR's ``val.metrics``.

    The defaults are those of the laboratory's tables (MSPL-GAN): RGB of 0-255 without mean or resizing, pool5, the mean
    over all elements. ``weights``: a VGGFace file of any style; ``stand-in`` with ``layer: relu3_3`` and ``input: pm1``
    for this package's, whose numbers compare with nothing else.
    """
    del better  # BasicSR's loop reads it
    pair = checked_pair("calculate_vggface_distance", img, img2, crop_border, input_order)
    return vggface_distances(pair[:1], pair[1:], load_vggface(weights, layer, input, channel_order))[0]
