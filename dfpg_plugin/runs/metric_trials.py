"""Try the metrics of the options before a training or a test.

Without a trial, a training would fail hours later, at the first validation. A test would fail after it has restored
images.
"""

import inspect
from collections.abc import Mapping

import numpy as np
import torch
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.checking import GIVEN, GROUND_TRUTH, metrics_of
from dfpg_plugin.options.components import look_up
from dfpg_plugin.options.reading import Options

TRIED = ("basicsr", __name__.split(".")[0])  # packages whose metrics of one image are tried
TRIAL_SIZE = 256  # px of each side; MS-SSIM needs at least 176, NIQE 192 inside its border


def check_metrics(opt: Options, dataset: object, name: str) -> None:
    """Raise UserError if ``dataset``, whose name is ``name``, has no ground truth and a metric needs one."""
    if getattr(dataset, "has_gt", not isinstance(dataset, SingleImageDataset)):
        return
    comparing = []
    for key, metric in metrics_of(opt).items():
        parameter = _ground_truth_parameter(key, metric)
        if parameter is not None and parameter.default is parameter.empty:
            comparing.append(key)
        elif parameter is not None:
            _try(key, metric, _noise()[:1])  # the metric's options tell whether the metric needs a ground truth
    if comparing:
        raise UserError(
            f"val:metrics: the data set {name} has no ground truth, without which {', '.join(comparing)} can't be "
            "measured. Set its dataroot_gt, or use options for it that leave these metrics out."
        )


def try_metrics(opt: Options) -> None:
    """Measure images of noise by every metric, to find mistakes now.

    A metric of one image that another package brings is not tried: it may need a face, or a picture of something.

    Raises UserError, naming the metric, if weights are missing or do not fit, or if an option's value is wrong.
    """
    for key, metric in metrics_of(opt).items():
        if _ground_truth_parameter(key, metric) is not None:
            _try(key, metric, _noise())
        elif METRIC_REGISTRY.get(metric["type"]).__module__.split(".")[0] in TRIED:
            _try(key, metric, _noise()[:1])


def _ground_truth_parameter(key: str, metric: Mapping) -> inspect.Parameter | None:
    function = look_up(f"val:metrics:{key}:type", METRIC_REGISTRY, metric["type"])
    return inspect.signature(function).parameters.get(GROUND_TRUTH)


def _noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, TRIAL_SIZE, TRIAL_SIZE, 3), np.uint8)


def _try(key: str, metric: Mapping, images: NDArray[np.uint8]) -> None:
    try:
        calculate_metric(dict(zip(GIVEN, images, strict=False)), metric)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a metric of another package can raise any error
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"val:metrics:{key}: {reason or type(error).__name__}") from error
