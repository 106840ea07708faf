"""The first steps of every metric of single images: check BasicSR's arguments, and make batches of the images."""

from collections.abc import Sequence

import numpy as np
import torch
from basicsr.metrics.metric_util import reorder_image
from numpy.typing import NDArray
from torch import Tensor

from dfpg_plugin.checks import UserError, check_choice

INPUT_ORDERS = {"HWC": 2, "CHW": 0}  # the axis of the channels
GREY_LEVELS = 255.0


def checked_pair(
    name: str, img: NDArray, img2: NDArray, crop_border: int, input_order: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return both uint8 images as (H,W,3) without ``crop_border`` px on each side.

    Raises UserError, naming the metric, for images that are not uint8 or not in colour, for shapes that differ, and for
    a ``crop_border`` that leaves nothing.
    """
    check_choice(f"{name}: input_order", input_order, INPUT_ORDERS)
    if img.dtype != np.uint8 or img2.dtype != np.uint8:
        raise UserError(f"{name}: expected uint8 images, got {img.dtype} and {img2.dtype}.")
    if img.shape != img2.shape:
        raise UserError(f"{name}: the images' shapes differ: {img.shape} and {img2.shape}.")
    if img.ndim != 3 or img.shape[INPUT_ORDERS[input_order]] != 3:
        raise UserError(f"{name}: expected colour images, got shape {img.shape}.")
    sides = img.shape[:2] if input_order == "HWC" else img.shape[1:]
    if not isinstance(crop_border, int) or not 0 <= 2 * crop_border < min(sides):
        raise UserError(f"{name}: crop_border: {crop_border!r} does not fit images of shape {img.shape}.")
    end = -crop_border or None
    first, second = (reorder_image(i, input_order)[crop_border:end, crop_border:end] for i in (img, img2))
    return first, second


def to_rgb_batch(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Return uint8 BGR images (H,W,3) of one size as RGB (B,3,H,W) in [0,1]."""
    batch = torch.from_numpy(np.stack(images)[..., ::-1].copy()).to(device)
    return batch.permute(0, 3, 1, 2).float() / GREY_LEVELS
