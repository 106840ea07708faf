"""Restore large images in overlapping tiles. The network needs the memory of one tile, and no seam is visible."""

from collections.abc import Callable

import torch
from torch import Tensor


def restore_in_tiles(
    restore: Callable[[Tensor], Tensor], image: Tensor, size: int, overlap: int, scale: int = 1
) -> Tensor:
    """Restore (B,C,H,W) in tiles of ``size`` px, blended over ``overlap`` px; return (B,C,H*scale,W*scale).

    In an overlap, the share of a tile rises from the tile's edge. The result therefore changes from one tile to the
    next without a step, even if a network looks at the whole tile. An image up to ``size`` is one tile.
    """
    height, width = image.shape[-2:]
    if max(height, width) <= size:
        return restore(image)
    result = image.new_zeros(*image.shape[:2], height * scale, width * scale)
    weights = image.new_zeros(1, 1, height * scale, width * scale)
    for top in tile_starts(height, size, overlap):
        for left in tile_starts(width, size, overlap):
            tile = restore(image[..., top : top + size, left : left + size])
            share = torch.outer(*(_ramp(side, overlap * scale).to(tile) for side in tile.shape[-2:]))
            rows = slice(top * scale, top * scale + tile.shape[-2])
            columns = slice(left * scale, left * scale + tile.shape[-1])
            result[..., rows, columns] += share * tile
            weights[..., rows, columns] += share
    return result / weights


def tile_starts(length: int, size: int, overlap: int) -> list[int]:
    """Return the first px of evenly spread tiles that share at least ``overlap`` px: (100, 64, 32) -> [0, 18, 36]."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def _ramp(length: int, overlap: int) -> Tensor:
    """Return a tile's weights along a side. They rise over ``overlap`` px from one edge and fall to the other edge.

    In the first quarter of the overlap, a network's result is impaired by the tile's edge, so this quarter weighs next
    to nothing. It does not weigh 0, because no other tile covers the image's own edge.
    """
    from_edge = torch.arange(1, length + 1, dtype=torch.float32)
    nearest = torch.minimum(from_edge, from_edge.flip(0))
    return (nearest - overlap // 4).clamp(min=1e-3, max=overlap - 2 * (overlap // 4) + 1)
