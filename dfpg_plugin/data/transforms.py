"""Geometric and photometric augmentation of sharp faces. Each step is a function of an image and a random generator.

Images are uint8 (H,W,3), BGR. The steps and their order are those of MSPL's training code, which uses Pillow. Here
OpenCV, torch and mmcv are used. Their results differ from Pillow's by the rounding of single grey levels. Only the
rotation differs more, because OpenCV's bicubic has the coefficient -0.75 and Pillow's has -1.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Window = tuple[slice, slice]
GREY_OF_BGR = np.array([0.114, 0.587, 0.299])  # ITU-R 601, as in Pillow and OpenCV
TRUNCATE = -0.499  # added before OpenCV rounds, because Pillow's ImageEnhance drops the fraction


def resize(image: Image, size: int, interpolation: str) -> Image:
    """Resize to ``size`` x ``size`` px, antialiased as by Pillow. ``interpolation``: ``bilinear`` or ``bicubic``."""
    if image.shape[:2] == (size, size):
        return image
    batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(batch, size=(size, size), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def scale_brightness(image: Image, factor: float) -> Image:
    """Multiply all values by ``factor``, like Pillow's ImageEnhance.Brightness."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=factor, beta=TRUNCATE), np.uint8)


def scale_contrast(image: Image, factor: float, mean: int) -> Image:
    """Multiply the distance to the grey level ``mean`` by ``factor``, like Pillow's ImageEnhance.Contrast."""
    return np.asarray(cv2.addWeighted(image, factor, image, 0, mean * (1 - factor) + TRUNCATE), np.uint8)


def scale_saturation(image: Image, factor: float) -> Image:
    """Multiply each pixel's distance to its own grey by ``factor``, like Pillow's ImageEnhance.Color."""
    towards_grey = factor * np.eye(3) + (1 - factor) * np.tile(GREY_OF_BGR, (3, 1))
    offset = np.full((3, 1), TRUNCATE)
    return np.asarray(cv2.transform(image, np.hstack([towards_grey, offset])), np.uint8)


def jitter(image: Image, strengths: Sequence[float], window: Window, rng: np.random.Generator) -> Image:
    """Scale brightness, then contrast, then saturation, and return the ``window`` of the result.

    Each factor is uniform in [1 - strength, 1 + strength]. A step of strength 0 is left out. Contrast needs the mean of
    the whole image; contrast and saturation are computed for the window only.
    """
    brightness, contrast, saturation = (rng.uniform(1 - s, 1 + s) if s else 1.0 for s in strengths)
    if brightness != 1:
        image = scale_brightness(image, brightness)
    mean = int(GREY_OF_BGR @ cv2.mean(image)[:3] + 0.5) if contrast != 1 else 0
    image = image[window]
    if contrast != 1:
        image = scale_contrast(image, contrast, mean)
    return scale_saturation(image, saturation) if saturation != 1 else image


def random_window(shape: Sequence[int], size: int | None, rng: np.random.Generator) -> Window:
    """Return a random window of ``size`` x ``size`` px in an image (H,W,...), H, W >= size. None: the whole image."""
    if size is None:
        return slice(None), slice(None)
    top, left = rng.integers(shape[0] - size + 1), rng.integers(shape[1] - size + 1)
    return slice(top, top + size), slice(left, left + size)


def random_hflip(image: Image, rng: np.random.Generator) -> Image:
    """Mirror left and right with probability 1/2."""
    import mmcv

    return mmcv.imflip(image) if rng.random() < 0.5 else image


def random_rotation(image: Image, max_degrees: float, rng: np.random.Generator) -> Image:
    """Rotate around the centre, bicubic. The angle is uniform in [-max_degrees, max_degrees]. Corners become black."""
    import mmcv

    angle = rng.uniform(-max_degrees, max_degrees)
    # OpenCV rotates float faster, and its add rounds and clips
    rotated = mmcv.imrotate(image.astype(np.float32), angle, interpolation="bicubic")
    return np.asarray(cv2.add(rotated, np.zeros(1), dtype=cv2.CV_8U), np.uint8)
