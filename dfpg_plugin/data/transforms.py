"""Geometric and photometric augmentation of sharp faces, each step a function of an image and a random generator.

Images are uint8 (H,W,3), BGR. The steps and their order are those of MSPL's training code.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def resize(image: Image, size: int, interpolation: str) -> Image:
    """Resize to ``size`` x ``size`` with Pillow's antialiasing ``bilinear`` or ``bicubic``."""
    import mmcv

    return mmcv.imresize(image, (size, size), interpolation=interpolation, backend="pillow")


def jitter(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Scale brightness, contrast and saturation, each by a factor uniform in [1 - strength, 1 + strength]."""
    import mmcv

    for adjust in (mmcv.adjust_brightness, mmcv.adjust_contrast, mmcv.adjust_color):
        image = adjust(image, rng.uniform(1 - strength, 1 + strength))
    return image.astype(np.uint8)


def random_crop(images: Sequence[NDArray], size: int, rng: np.random.Generator) -> list[NDArray]:
    """Cut the same ``size`` x ``size`` window, at a random place, out of every image of (H,W,3) with H, W >= size."""
    height, width = images[0].shape[:2]
    top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    return [image[top : top + size, left : left + size] for image in images]


def random_hflip(image: Image, rng: np.random.Generator) -> Image:
    """Mirror left and right with probability 1/2."""
    import mmcv

    return mmcv.imflip(image) if rng.random() < 0.5 else image


def random_rotation(image: Image, max_degrees: float, rng: np.random.Generator) -> Image:
    """Rotate around the centre by an angle uniform in [-max_degrees, max_degrees], bicubic; corners become black."""
    import mmcv

    return mmcv.imrotate(image, rng.uniform(-max_degrees, max_degrees), interpolation="bicubic")
