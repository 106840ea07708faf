"""The SSIM of the paper's tables. MATLAB computes this SSIM if MATLAB takes a colour image for a volume."""

from functools import cache

import cv2
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from dfpg_plugin.metrics.images import checked_pair

SIGMA, RADIUS = 1.5, 5  # an 11x11x11 Gaussian
ROWS = 16  # rows computed at a time: new memory for whole maps would cost more time than the arithmetic
# the constants of SSIM for values in [0,255]
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim_3d(restored: NDArray, sharp: NDArray) -> float:
    """Return the mean structural similarity of two volumes (H,W,C) in [0,255].

    This is MATLAB's ``ssim`` of an H x W x 3 array, called without ``DataFormat``. The Gaussian window covers the
    channels, too. The borders are replicated in all three dimensions. The mean is over the whole map. For a colour
    image, the result is up to 0.3 above BasicSR's result. BasicSR computes the SSIM of each channel by itself.
    """
    volumes = np.empty((4, *restored.shape))
    x, y, squares, xy = volumes
    x[:], y[:] = restored, sharp
    np.multiply(x, x, out=squares)
    squares += y * y  # x^2 + y^2, because SSIM needs only the sum of both variances
    np.multiply(x, y, out=xy)
    _to_local_means(volumes)
    sums = [_similarities(*volumes[:, top : top + ROWS]).sum() for top in range(0, len(x), ROWS)]
    return float(sum(sums) / x.size)


@METRIC_REGISTRY.register()
def calculate_ssim_3d(
    img: NDArray,
    img2: NDArray,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str = "higher",
) -> float:
    """Return :func:`ssim_3d` of two uint8 images, as a metric of BasicSR's ``val.metrics``."""
    del better  # BasicSR's validation reads ``better`` from the options
    return ssim_3d(*checked_pair("calculate_ssim_3d", img, img2, crop_border, input_order))


def _similarities(mean_x: NDArray, mean_y: NDArray, mean_squares: NDArray, mean_xy: NDArray) -> NDArray:
    squares, xy = mean_x**2 + mean_y**2, mean_x * mean_y
    variances, covariance = mean_squares - squares, mean_xy - xy
    return (2 * xy + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))


def _to_local_means(volumes: NDArray) -> None:
    """Replace (N,H,W,C) by its Gaussian means along H, W and C."""
    channels = volumes.shape[-1]
    taps = _gaussian_matrix(2 * RADIUS + 1)[RADIUS]  # the middle row, whose window meets no border
    mixed = (volumes.reshape(-1, channels) @ _gaussian_matrix(channels).T).reshape(volumes.shape)
    for image, filtered in zip(mixed, volumes, strict=True):
        cv2.sepFilter2D(image, cv2.CV_64F, taps, taps, dst=filtered, borderType=cv2.BORDER_REPLICATE)


@cache
def _gaussian_matrix(length: int) -> NDArray:
    """Return the filter along an axis of ``length`` as a matrix. Borders are replicated."""
    return gaussian_filter1d(np.eye(length), SIGMA, axis=0, radius=RADIUS, mode="nearest")
