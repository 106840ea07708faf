"""Restore large images in tiles that overlap, so that memory does not grow with the image and no seam is seen."""

from collections.abc import Callable

import torch
from torch import Tensor


def restore_in_tiles(
    restore: Callable[[Tensor], Tensor], image: Tensor, size: int, overlap: int, scale: int = 1
) -> Tensor:
    """Restore (B,C,H,W) in tiles of ``size`` px and blend them over ``overlap`` px; return (B,C,H*scale,W*scale).

    In an overlap the share of a tile rises linearly from its edge, so that the result changes from one to the next
    without a step, even where a network looks at the whole of what it is given. Smaller images are one tile.
    """
    height, width = image.shape[-2:]
    if max(height, width) <= size:
        return restore(image)
    result = image.new_zeros(*image.shape[:2], height * scale, width * scale)
    weights = image.new_zeros(1, 1, height * scale, width * scale)
    for top in starts(height, size, overlap):
        for left in starts(width, size, overlap):
            tile = restore(image[..., top : top + size, left : left + size])
            share = torch.outer(*(_ramp(side, overlap * scale).to(tile) for side in tile.shape[-2:]))
            rows = slice(top * scale, top * scale + tile.shape[-2])
            columns = slice(left * scale, left * scale + tile.shape[-1])
            result[..., rows, columns] += share * tile
            weights[..., rows, columns] += share
    return result / weights


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Return where tiles begin along a side: evenly spread, each overlapping the next by at least ``overlap``."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def _ramp(length: int, overlap: int) -> Tensor:
    """Return weights that rise from an edge over ``overlap`` px and fall to the other.

    The first quarter, where a network sees the edge, weighs next to nothing; but not 0, for an image's own edge.
    """
    from_edge = torch.arange(1, length + 1, dtype=torch.float32)
    nearest = torch.minimum(from_edge, from_edge.flip(0))
    return (nearest - overlap // 4).clamp(min=1e-3, max=overlap - 2 * (overlap // 4) + 1)
