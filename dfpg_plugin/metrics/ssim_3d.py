"""SSIM as MATLAB computes it for colour images that it takes for volumes: what the paper's tables hold."""

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dfpg_plugin.metrics.images import checked_pair

SIGMA, RADIUS = 1.5, 5  # an 11x11x11 Gaussian
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim_3d(restored: NDArray, sharp: NDArray) -> float:
    """Return the mean structural similarity of two volumes (H,W,C) in [0,255].

    As MATLAB's ``ssim`` for an H x W x 3 array without a data format: the window is Gaussian along the channels too,
    the borders are replicated in all three dimensions, and the mean is over the whole map. On colour images it reads up
    to 0.3 above SSIM of each channel, which is BasicSR's.
    """
    x, y = restored.astype(np.float64), sharp.astype(np.float64)
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    xx, yy, xy = mean_x**2, mean_y**2, mean_x * mean_y
    variances = _local_mean(x * x) - xx + _local_mean(y * y) - yy
    covariance = _local_mean(x * y) - xy
    return float(np.mean((2 * xy + C1) * (2 * covariance + C2) / ((xx + yy + C1) * (variances + C2))))


@METRIC_REGISTRY.register()
def calculate_ssim_3d(
    img: NDArray,
    img2: NDArray,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str = "higher",
) -> float:
    """Return :func:`ssim_3d` of two uint8 images, as a metric of BasicSR's ``val.metrics``."""
    del better  # BasicSR's loop reads it
    return ssim_3d(*checked_pair("calculate_ssim_3d", img, img2, crop_border, input_order))


def _local_mean(volume: NDArray) -> NDArray:
    return gaussian_filter(volume, SIGMA, radius=RADIUS, mode="nearest")
