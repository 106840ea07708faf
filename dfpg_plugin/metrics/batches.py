"""Measure many pairs of images at once, where a metric can. Name the networks that a metric's numbers depend on."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from dfpg_plugin.checks import LOWER_IS_BETTER, check_border
from dfpg_plugin.metrics.identity_similarity import calculate_identity_similarity, identity_similarities
from dfpg_plugin.metrics.images import checked_pair
from dfpg_plugin.metrics.lpips_distance import calculate_lpips, load_lpips, lpips_distances
from dfpg_plugin.metrics.recognisers import load_recogniser
from dfpg_plugin.metrics.vggface_distance import calculate_vggface_distance, load_vggface, vggface_distances
from dfpg_plugin.vggface.files import weights_sha256

Images = Sequence[NDArray[np.uint8]]
FROM_CALLER = ("img", "img2", "better")  # arguments that are no settings; `better` is for BasicSR's records
VGGFACE_ARGUMENTS = ("weights", "layer", "input", "channel_order")


def measure(metric: Mapping[str, object], restored: Images, sharp: Images | None) -> list[float]:
    """Return a metric's value for each uint8 BGR image (H,W,3).

    ``metric``: one metric's options in BasicSR's form. ``sharp``: the ground truths, of the same sizes, or None. The
    images may differ in size. Values are those of :func:`basicsr.metrics.calculate_metric`, to float32's rounding.
    """
    kind = str(metric["type"])
    for image in restored:
        check_border(metric, *image.shape[:2])
    if sharp is None:
        return [float(calculate_metric({"img": image}, dict(metric))) for image in restored]
    in_batches = IN_BATCHES.get(kind)
    if in_batches is None:
        rows = zip(restored, sharp, strict=True)
        return [float(calculate_metric({"img": image, "img2": gt}, dict(metric))) for image, gt in rows]
    settings = settings_of(metric)
    border, order = settings["crop_border"], settings["input_order"]
    pairs = [checked_pair(kind, r, s, border, order) for r, s in zip(restored, sharp, strict=True)]
    values = [0.0] * len(pairs)
    for shape in {first.shape for first, _ in pairs}:
        same_shape = [i for i, (first, _) in enumerate(pairs) if first.shape == shape]
        measured = in_batches([pairs[i][0] for i in same_shape], [pairs[i][1] for i in same_shape], settings)
        for i, value in zip(same_shape, measured, strict=True):
            values[i] = value
    return values


def settings_of(metric: Mapping[str, object]) -> dict:
    """Return all arguments of a metric, defaults included, except the images and ``better``."""
    parameters = inspect.signature(METRIC_REGISTRY.get(metric["type"])).parameters
    settings = {name: p.default for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    settings.update(metric)
    return {name: value for name, value in settings.items() if name not in (*FROM_CALLER, "type")}


def better_by_default(metric: Mapping[str, object]) -> str:
    """Return ``higher`` or ``lower``, for options without ``better``: the metric's default, or BasicSR's, higher."""
    if metric["type"] in LOWER_IS_BETTER:
        return "lower"
    parameter = inspect.signature(METRIC_REGISTRY.get(metric["type"])).parameters.get("better")
    return parameter.default if parameter is not None and isinstance(parameter.default, str) else "higher"


def networks_used(metric: Mapping[str, object]) -> dict[str, str]:
    """Return the weights, or the recogniser, that a metric's numbers depend on; empty for plain arithmetic."""
    settings = settings_of(metric)
    match metric["type"]:
        case calculate_vggface_distance.__name__:
            record = load_vggface(*(settings[key] for key in VGGFACE_ARGUMENTS)).record
            return {key: str(record[key]) for key in ("weights_sha256", "style", "channel_order")}
        case calculate_lpips.__name__:
            return {"weights_sha256": weights_sha256(load_lpips(settings["net"], settings["weights"]).state_dict())}
        case calculate_identity_similarity.__name__:
            recogniser = load_recogniser(settings["recogniser"], settings["weights"])
            return {"recogniser": recogniser.name, "weights_sha256": recogniser.weights_sha256}
    return {}


def _vggface(restored: Images, sharp: Images, settings: Mapping) -> list[float]:
    return vggface_distances(restored, sharp, load_vggface(*(settings[key] for key in VGGFACE_ARGUMENTS)))


def _lpips(restored: Images, sharp: Images, settings: Mapping) -> list[float]:
    network = load_lpips(settings["net"], settings["weights"])
    return lpips_distances(restored, sharp, network, settings["legacy_range"])


def _identity(restored: Images, sharp: Images, settings: Mapping) -> list[float]:
    return identity_similarities(restored, sharp, load_recogniser(settings["recogniser"], settings["weights"]))


IN_BATCHES: dict[str, Callable[[Images, Images, Mapping], list[float]]] = {
    calculate_vggface_distance.__name__: _vggface,
    calculate_lpips.__name__: _lpips,
    calculate_identity_similarity.__name__: _identity,
}
