"""Blur and noise: pure functions of an image and a random generator."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
GREY_LEVELS = 255.0


def blur(image: Image, kernel: NDArray[np.float32]) -> Image:
    """Convolve (H,W,3) with an odd kernel (k,k), channel by channel, after padding by reflection; same shape and range.

    Reflection does not repeat the edge pixel, as in MSPL's training code.
    """
    flipped = cv2.flip(kernel, -1)  # filter2D correlates
    return np.asarray(cv2.filter2D(image, -1, flipped, borderType=cv2.BORDER_REFLECT_101), np.float32)


def add_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add Gaussian noise of ``sigma`` grey levels (of 255) to an image in [0,1]; no clipping, as in MSPL's training."""
    return image + np.float32(sigma / GREY_LEVELS) * rng.standard_normal(image.shape, np.float32)


def quantise(image: Image) -> Image:
    """Round an image in [0,1] to 8 bits, as saving it as PNG does, clipping what lies outside."""
    return np.clip(np.rint(image * GREY_LEVELS), 0, GREY_LEVELS).astype(np.float32) / np.float32(GREY_LEVELS)
