"""d_VGG: the distance between VGGFace's features of two faces; Tables 1 and 2 of the paper."""

from collections.abc import Sequence
from functools import cache

import torch
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from torch import Tensor

from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor
from dfpg_plugin.metrics.images import checked_pair, to_rgb_batch
from dfpg_plugin.metrics.weights import best_device
from dfpg_plugin.seeding import seeded
from dfpg_plugin.speed.winograd import winograd_features

MOST_THREADS = 4  # of torch: with more, direct convolutions overtake Winograd's transforms, which use one thread


def vggface_distance(restored: Tensor, sharp: Tensor, network: VGGFaceFeatureExtractor) -> Tensor:
    """Return the mean squared error of each image's features, (B,), for RGB (B,3,H,W) in [0,1].

    With several layers, the result is the sum of their means.
    """
    return feature_distance(network(restored), network(sharp))


def feature_distance(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return the mean squared error of each image, (B,), summed over the layers. Features are (B,C_i,H_i,W_i)."""
    return torch.stack([((f - w) ** 2).flatten(1).mean(1) for f, w in zip(features, wanted, strict=True)]).sum(0)


@cache
def load_vggface(weights: str, layer: str, input: str, channel_order: str | None) -> VGGFaceFeatureExtractor:
    """Return the network of d_VGG, loaded once a process, on the GPU if there is one."""
    with seeded(0):
        network = VGGFaceFeatureExtractor(
            weights=weights, layers=[layer], input=input, channel_order=channel_order, feature_scale=[1.0]
        )
    return network.to(best_device())


@torch.no_grad()
def vggface_distances(
    restored: Sequence[NDArray], sharp: Sequence[NDArray], network: VGGFaceFeatureExtractor
) -> list[float]:
    """Return d_VGG of each pair of uint8 BGR images (H,W,3) of one size.

    Each different image goes through the network once, because a set may hold 80 blurred pictures of one face. The
    features of the last sharp image are kept for the next call. A CPU with up to 4 threads uses Winograd's algorithm.
    """
    last = _last_sharp(network)
    images = [*restored, *sharp]
    keys = [(image.shape, image.tobytes()) for image in images]
    new = {key: image for key, image in zip(keys, images, strict=True) if key not in last}
    device = next(network.parameters()).device
    fast = winograd_features(network) if device.type == "cpu" and torch.get_num_threads() <= MOST_THREADS else network
    features = fast(to_rgb_batch(list(new.values()), device)) if new else []
    known = {**last, **{key: [f[i] for f in features] for i, key in enumerate(new)}}
    by_layer = [torch.stack(layer) for layer in zip(*(known[key] for key in keys), strict=True)]
    last.clear()
    last[keys[-1]] = [f.clone() for f in known[keys[-1]]]  # a view would keep the whole batch's features
    count = len(restored)
    return feature_distance([f[:count] for f in by_layer], [f[count:] for f in by_layer]).tolist()


@cache
def _last_sharp(network: VGGFaceFeatureExtractor) -> dict[tuple, list[Tensor]]:
    """Return the dict of the last sharp image's features, by shape and pixels, which the caller fills."""
    del network
    return {}


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
    over all elements. ``weights``: a VGGFace file of any style. This package's own prior needs ``weights: stand-in``,
    ``layer: relu3_3`` and ``input: pm1``. Numbers of this prior can't be compared with numbers of another.
    """
    del better  # BasicSR's validation reads ``better`` from the options
    pair = checked_pair("calculate_vggface_distance", img, img2, crop_border, input_order)
    network = load_vggface(weights, layer, input, channel_order)
    first, second = (to_rgb_batch([image], next(network.parameters()).device) for image in pair)
    return vggface_distance(first, second, network).item()
