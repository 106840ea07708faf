"""Blur, noise and rounding as pure functions. The noise is drawn from the given generator."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dfpg_plugin.compiling import compiled

Image = NDArray[np.float32]
GREY_LEVELS = 255.0


def blur(image: NDArray, kernel: NDArray) -> NDArray:
    """Convolve each channel of an image (H,W,3) with a kernel (k,k), k odd. Shape and range stay the same.

    The image is padded by reflection that does not repeat the edge pixel, as in MSPL's training code. The image is
    float32 or float64, and the kernel is converted to the image's type. The order of the sums is fixed, so every
    machine returns the same bits.
    """
    height, width, channels = image.shape
    half = len(kernel) // 2
    padded = cv2.copyMakeBorder(image, half, half, half, half, cv2.BORDER_REFLECT_101)
    blurred = np.empty((height, width * channels), image.dtype)
    _convolution()(padded.reshape(height + 2 * half, -1), np.ascontiguousarray(kernel, image.dtype), channels, blurred)
    return blurred.reshape(image.shape)


@cache
def _convolution() -> Callable:
    """Return a convolution that visits only the nonzero cells of a kernel. Each process compiles or loads it once.

    A motion kernel is a stroke: 40 to 100 of its 169 to 729 cells are not 0. Skipping the zeros makes this convolution
    faster than OpenCV's and SciPy's.
    """

    @compiled
    def convolve(padded, kernel, channels, blurred):  # noqa: ANN001, ANN202 - numba finds the types
        size, width = len(kernel), blurred.shape[1]
        # each visit of a row adds eight cells of the kernel; the last eight are filled up with cells of weight 0
        rows, columns = np.zeros(size * size + 7, np.int64), np.zeros(size * size + 7, np.int64)
        weights = np.zeros(size * size + 7, kernel.dtype)
        count = 0
        for i in range(size):
            for j in range(size):
                weight = kernel[size - 1 - i, size - 1 - j]
                if weight != 0:
                    rows[count], columns[count], weights[count] = i, j * channels, weight
                    count += 1
        for y in range(len(blurred)):
            row = blurred[y]
            row[:] = 0
            for n in range(0, count, 8):
                a = padded[y + rows[n], columns[n] : columns[n] + width]
                b = padded[y + rows[n + 1], columns[n + 1] : columns[n + 1] + width]
                c = padded[y + rows[n + 2], columns[n + 2] : columns[n + 2] + width]
                d = padded[y + rows[n + 3], columns[n + 3] : columns[n + 3] + width]
                e = padded[y + rows[n + 4], columns[n + 4] : columns[n + 4] + width]
                f = padded[y + rows[n + 5], columns[n + 5] : columns[n + 5] + width]
                g = padded[y + rows[n + 6], columns[n + 6] : columns[n + 6] + width]
                h = padded[y + rows[n + 7], columns[n + 7] : columns[n + 7] + width]
                w0, w1, w2, w3 = weights[n], weights[n + 1], weights[n + 2], weights[n + 3]
                w4, w5, w6, w7 = weights[n + 4], weights[n + 5], weights[n + 6], weights[n + 7]
                for x in range(width):
                    first = w0 * a[x] + w1 * b[x] + w2 * c[x] + w3 * d[x]
                    row[x] += first + (w4 * e[x] + w5 * f[x] + w6 * g[x] + w7 * h[x])

    return convolve


def add_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add Gaussian noise of ``sigma`` grey levels (of 255) to an image in [0,1], without clipping, as MSPL does."""
    # torch draws normal numbers in half of NumPy's time
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    noise: Image = torch.randn(image.shape, generator=generator).numpy()
    return image + np.float32(sigma / GREY_LEVELS) * noise


def quantise(image: Image) -> Image:
    """Round an image to the 8-bit levels in [0,1], as saving a PNG does. Values outside [0,1] are clipped."""
    return np.clip(np.rint(image * GREY_LEVELS), 0, GREY_LEVELS).astype(np.float32) / np.float32(GREY_LEVELS)
