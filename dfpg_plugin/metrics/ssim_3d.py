"""SSIM as MATLAB computes it for colour images that it takes for volumes: what the paper's tables hold."""

from functools import cache

import cv2
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from dfpg_plugin.metrics.images import checked_pair

SIGMA, RADIUS = 1.5, 5  # an 11x11x11 Gaussian
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim_3d(restored: NDArray, sharp: NDArray) -> float:
    """Return the mean structural similarity of two volumes (H,W,C) in [0,255].

    As MATLAB's ``ssim`` for an H x W x 3 array without a data format: the window is Gaussian along the channels too,
    the borders are replicated in all three dimensions, and the mean is over the whole map. On colour images it reads up
    to 0.3 above SSIM of each channel, which is BasicSR's.
    """
    volumes = np.empty((4, *restored.shape))
    x, y, squares, xy = volumes
    x[:], y[:] = restored, sharp
    np.add(x * x, y * y, out=squares)  # of the variances only the sum is needed
    np.multiply(x, y, out=xy)
    mean_x, mean_y, mean_squares, mean_xy = _local_means(volumes)
    squares, xy = mean_x**2 + mean_y**2, mean_x * mean_y
    variances, covariance = mean_squares - squares, mean_xy - xy
    return float(np.mean((2 * xy + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))))


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


def _local_means(volumes: NDArray) -> NDArray:
    """Filter (N,H,W,C) along H, W and C."""
    channels = volumes.shape[-1]
    mixed = (volumes.reshape(-1, channels) @ _gaussian(channels).T).reshape(volumes.shape)
    taps = _gaussian(2 * RADIUS + 1)[RADIUS]  # of the one in the middle, whose window meets no border
    return np.stack([cv2.sepFilter2D(v, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REPLICATE) for v in mixed])


@cache
def _gaussian(length: int) -> NDArray:
    """Return the filter along an axis of ``length`` as a matrix, its borders replicated."""
    return gaussian_filter1d(np.eye(length), SIGMA, axis=0, radius=RADIUS, mode="nearest")
