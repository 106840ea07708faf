"""The transforms of F(4x4, 3x3), compiled. Import this module only when it is needed: compiling takes seconds.

Each inner loop runs over the channels and writes to at most three arrays. The compiler does not know that the arrays
don't overlap, and makes no vector code for loops that write to more arrays.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin import compiling

TILE = 4
BLOCK = 64  # channels transformed at a time: their values then fit into the L1 cache
compiled = partial(compiling.compiled, fastmath=True)


@compiled
def transform(pixels: NDArray[np.float32], first: int, out: NDArray[np.float32]) -> None:
    """Write B^T d B for each tile d, from tile number ``first`` on: pixels (B,H,W,C) -> ``out`` (36,tiles,C)."""
    _, height, width, channels = pixels.shape
    across = (width + TILE - 1) // TILE
    tiles = (height + TILE - 1) // TILE * across
    zeros = np.zeros(BLOCK, np.float32)
    half = np.empty((6, 6, BLOCK), np.float32)  # B^T d
    for t in range(out.shape[1]):
        n, tile = (first + t) // tiles, (first + t) % tiles
        top, left = TILE * (tile // across) - 1, TILE * (tile % across) - 1
        for c in range(0, channels, BLOCK):
            size = min(BLOCK, channels - c)
            for j in range(6):
                d0, d1 = _pixel(pixels, n, top, left + j, c, zeros), _pixel(pixels, n, top + 1, left + j, c, zeros)
                d2, d3 = _pixel(pixels, n, top + 2, left + j, c, zeros), _pixel(pixels, n, top + 3, left + j, c, zeros)
                d4, d5 = _pixel(pixels, n, top + 4, left + j, c, zeros), _pixel(pixels, n, top + 5, left + j, c, zeros)
                for k in range(size):
                    h0, h1, h2, h3, h4, h5 = _times_b(d0[k], d1[k], d2[k], d3[k], d4[k], d5[k])
                    half[0, j, k], half[1, j, k], half[2, j, k] = h0, h1, h2
                    half[3, j, k], half[4, j, k], half[5, j, k] = h3, h4, h5
            for i in range(6):
                d0, d1, d2, d3, d4, d5 = half[i, 0], half[i, 1], half[i, 2], half[i, 3], half[i, 4], half[i, 5]
                o0, o1, o2 = out[6 * i, t, c:], out[6 * i + 1, t, c:], out[6 * i + 2, t, c:]
                o3, o4, o5 = out[6 * i + 3, t, c:], out[6 * i + 4, t, c:], out[6 * i + 5, t, c:]
                for k in range(size):
                    o0[k], o1[k], o2[k], _, _, _ = _times_b(d0[k], d1[k], d2[k], d3[k], d4[k], d5[k])
                for k in range(size):
                    _, _, _, o3[k], o4[k], o5[k] = _times_b(d0[k], d1[k], d2[k], d3[k], d4[k], d5[k])


@compiled
def transform_back(
    products: NDArray[np.float32],
    first: int,
    height: int,
    width: int,
    bias: NDArray[np.float32],
    slope: float,
    step: int,
    pixels: NDArray[np.float32],
) -> None:
    """Write A^T y A for each tile y: products (36,tiles,K) -> ``pixels`` (B,H//step,W//step,K).

    If ``step`` is 2, the result is pooled. Then the bias is added, and values below 0 are multiplied by ``slope``.
    """
    across = (width + TILE - 1) // TILE
    tiles = (height + TILE - 1) // TILE * across
    half = np.empty((4, 6, BLOCK), np.float32)  # A^T y
    full = np.empty((4, 4, BLOCK), np.float32)
    factor = np.float32(slope)
    for t in range(products.shape[1]):
        n, tile = (first + t) // tiles, (first + t) % tiles
        top, left = TILE // step * (tile // across), TILE // step * (tile % across)
        for c in range(0, len(bias), BLOCK):
            size = min(BLOCK, len(bias) - c)
            for j in range(6):
                y0, y1, y2 = products[j, t, c:], products[6 + j, t, c:], products[12 + j, t, c:]
                y3, y4, y5 = products[18 + j, t, c:], products[24 + j, t, c:], products[30 + j, t, c:]
                for k in range(size):
                    half[0, j, k], half[1, j, k], half[2, j, k], half[3, j, k] = _times_a(
                        y0[k], y1[k], y2[k], y3[k], y4[k], y5[k]
                    )
            for i in range(4):
                for k in range(size):
                    full[i, 0, k], full[i, 1, k], full[i, 2, k], full[i, 3, k] = _times_a(
                        half[i, 0, k], half[i, 1, k], half[i, 2, k], half[i, 3, k], half[i, 4, k], half[i, 5, k]
                    )
            _write(full, bias, factor, step, pixels, n, top, left, c)


@compiled
def _write(full, bias, factor, step, pixels, n, top, left, c):  # noqa: ANN001, ANN202 - numba finds the types
    b, size = bias[c:], min(BLOCK, len(bias) - c)
    for i in range(min(TILE // step, pixels.shape[1] - top)):
        for j in range(min(TILE // step, pixels.shape[2] - left)):
            out = pixels[n, top + i, left + j, c:]
            if step == 1:
                for k in range(size):
                    value = full[i, j, k] + b[k]
                    out[k] = max(value, factor * value)
            else:
                for k in range(size):
                    above = max(full[2 * i, 2 * j, k], full[2 * i, 2 * j + 1, k])
                    below = max(full[2 * i + 1, 2 * j, k], full[2 * i + 1, 2 * j + 1, k])
                    value = max(above, below) + b[k]
                    out[k] = max(value, factor * value)


@compiled
def _pixel(pixels, n, y, x, c, zeros):  # noqa: ANN001, ANN202
    if 0 <= y < pixels.shape[1] and 0 <= x < pixels.shape[2]:
        return pixels[n, y, x, c:]
    return zeros


@compiled
def _times_b(d0, d1, d2, d3, d4, d5):  # noqa: ANN001, ANN202
    even, odd = d4 - 4 * d2, d3 - 4 * d1
    near, far = d4 - d2, 2 * (d3 - d1)
    return 4 * d0 - 5 * d2 + d4, even + odd, even - odd, near + far, near - far, 4 * d1 - 5 * d3 + d5


@compiled
def _times_a(y0, y1, y2, y3, y4, y5):  # noqa: ANN001, ANN202
    sum1, diff1 = y1 + y2, y1 - y2
    sum2, diff2 = y3 + y4, 2 * (y3 - y4)
    return y0 + sum1 + sum2, diff1 + diff2, sum1 + 4 * sum2, diff1 + 4 * diff2 + y5
