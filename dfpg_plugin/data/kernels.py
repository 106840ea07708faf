"""Motion blur kernels: synthesis after Chakrabarti, and reading MSPL's kernel files."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_folder

NUM_CONTROLS = 6  # points that the trajectory passes
NUM_SAMPLES = 5000 * NUM_CONTROLS  # of the trajectory

Kernels = NDArray[np.float32]


@cache
def _spline_basis() -> NDArray[np.float64]:
    """Return the (30000,6) matrix that maps control values to a not-a-knot cubic spline through them."""
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(np.linspace(0, 1, NUM_CONTROLS), np.eye(NUM_CONTROLS), bc_type="not-a-knot")
    return spline(np.linspace(0, 1, NUM_SAMPLES))


def _draw_kernel(size: int, rng: np.random.Generator) -> Kernels | None:
    """Draw one trajectory and its weights; None where its centroid is not the middle cell of the square."""
    controls = rng.integers(1, size + 1, (NUM_CONTROLS, 2))
    cells = np.rint(np.clip(_spline_basis() @ controls, 1, size)).astype(int) - 1
    touched = np.zeros((size, size), bool)
    touched[cells[:, 1], cells[:, 0]] = True
    rows, columns = np.nonzero(touched)
    weights = np.maximum(0, 1 + 0.5 * rng.standard_normal(len(rows)))
    if weights.sum() == 0:
        return None
    weights /= weights.sum()
    middle = (size - 1) // 2
    if (round(float(weights @ rows)), round(float(weights @ columns))) != (middle, middle):
        return None
    kernel = np.zeros((size, size), np.float32)
    kernel[rows, columns] = weights
    return kernel


def synthesise_kernels(size: int, count: int, rng: np.random.Generator) -> Kernels:
    """Return ``count`` random motion kernels, float32 (count, size, size), non-negative, each of sum 1 and centred.

    Chakrabarti, "A neural approach to blind motion deblurring", ECCV 2016 (ayanc/ndeblur), with its parameters psz and
    mxsz both ``size``: a cubic spline through 6 random points of the square, on whose cells the weights are random;
    drawn again until its centroid, rounded, is the middle. MSPL's kernels are of this kind. A function of ``size``,
    ``count`` and the state of ``rng``. Raises UserError unless ``size`` is odd and at least 3.
    """
    if size < 3 or size % 2 == 0:
        raise UserError(f"kernel size: expected an odd number of at least 3 px, got {size}.")
    kernels: list[Kernels] = []
    while len(kernels) < count:
        kernel = _draw_kernel(size, rng)
        if kernel is not None:
            kernels.append(kernel)
    return np.stack(kernels)


def read_mspl_kernels(folder: Path, sizes: list[int]) -> dict[int, Kernels]:
    """Read MSPL's training kernels: ``blur_k13.mat`` to ``blur_k27.mat``, each with (k,k,2250) under ``blurs_k13`` ...

    Returns float32 (2250,k,k) by size, each kernel of sum 1. Raises UserError, naming the file, where one is missing or
    holds something else.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    check_folder("dataroot_kernels", folder)
    kernels = {}
    for size in sizes:
        path = folder / f"blur_k{size}.mat"
        try:
            stack = np.moveaxis(np.asarray(loadmat(path)[f"blurs_k{size}"], np.float64), -1, 0)
        except (OSError, KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
            raise UserError(
                f"{path}: expected a .mat file with blurs_k{size} ({type(error).__name__}: {error})."
            ) from error
        sums = stack.sum(axis=(1, 2), keepdims=True)
        if stack.shape[1:] != (size, size) or not np.isfinite(stack).all() or stack.min() < 0 or sums.min() <= 0:
            raise UserError(f"{path}: expected finite, non-negative {size}x{size} kernels of positive sum.")
        kernels[size] = (stack / sums).astype(np.float32)
    return kernels
