"""Motion blur kernels: synthesis after Boracchi and Foi, and reading MSPL's kernel files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_folder

NUM_SAMPLES = 2000  # of a trajectory; numT in the authors' code
MAX_BATCH = 256  # trajectories followed at once

Kernels = NDArray[np.float32]


def trajectories(lengths: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.complex128]:
    """Follow random camera shakes of the given lengths in pixels; complex positions, (number of lengths, 2000).

    Boracchi and Foi, "Modeling the performance of image restoration from motion blur", IEEE TIP 2012: a particle of
    constant speed, pushed by Gaussian impulses, drawn back to its start, and sometimes turning back abruptly.
    """
    n = len(lengths)
    anxiety, centripetal, gaussian, big_jump = (top * rng.random(n) for top in (0.1, 0.7, 10.0, 0.2))
    speed = lengths / (NUM_SAMPLES - 1)
    velocity = np.exp(2j * np.pi * rng.random(n)) * np.where(anxiety > 0, anxiety, 1.0) * speed
    position = np.zeros(n, complex)
    path = np.zeros((n, NUM_SAMPLES), complex)
    for t in range(1, NUM_SAMPLES):
        turn = 2 * velocity * np.exp(1j * (np.pi + rng.random(n) - 0.5))
        jump = np.where(rng.random(n) < big_jump * anxiety, turn, 0)
        push = gaussian * (rng.standard_normal(n) + 1j * rng.standard_normal(n)) - centripetal * position
        velocity = velocity + jump + anxiety * push * speed
        velocity = velocity * speed / np.abs(velocity)
        position = position + velocity
        path[:, t] = position
    return path


def splat(path: NDArray[np.complex128], size: int) -> Kernels | None:
    """Draw a trajectory, centred by its mean, into a ``size`` x ``size`` kernel of sum 1; None where it does not fit."""
    path = path - path.mean() + (size - 1) / 2 * (1 + 1j)
    x, y = path.real, path.imag
    if min(x.min(), y.min()) < 0 or max(x.max(), y.max()) > size - 1:
        return None
    kernel = np.zeros((size, size))
    x0, y0 = np.minimum(x.astype(int), size - 2), np.minimum(y.astype(int), size - 2)
    fx, fy = x - x0, y - y0
    for dy, dx, weight in ((0, 0, (1 - fy) * (1 - fx)), (0, 1, (1 - fy) * fx), (1, 0, fy * (1 - fx)), (1, 1, fy * fx)):
        np.add.at(kernel, (y0 + dy, x0 + dx), weight)
    return (kernel / len(path)).astype(np.float32)


def synthesise_kernels(size: int, count: int, rng: np.random.Generator) -> Kernels:
    """Return ``count`` random motion kernels, float32 (count, size, size), non-negative, each of sum 1 and centred.

    Lengths are uniform in [0.5, 1.5] ``size`` pixels; trajectories that leave the square are drawn again. The result is
    a function of ``size``, ``count`` and the state of ``rng``. Raises UserError unless ``size`` is odd and at least 3.
    """
    if size < 3 or size % 2 == 0:
        raise UserError(f"kernel size: expected an odd number of at least 3 px, got {size}.")
    kernels: list[Kernels] = []
    while len(kernels) < count:
        batch = min(MAX_BATCH, 2 * count)
        drawn = (splat(path, size) for path in trajectories(size * rng.uniform(0.5, 1.5, batch), rng))
        kernels += [kernel for kernel in drawn if kernel is not None]
    return np.stack(kernels[:count])


def read_mspl_kernels(folder: Path, sizes: list[int]) -> dict[int, Kernels]:
    """Read MSPL's training kernels: ``blur_k13.mat`` to ``blur_k27.mat``, each with (k,k,2250) under ``blurs_k13`` ...

    Returns float32 (2250,k,k) by size, each kernel of sum 1. Raises UserError, naming the file, where one is missing or
    holds something else.
    """
    from scipy.io import loadmat

    check_folder("dataroot_kernels", folder)
    kernels = {}
    for size in sizes:
        path = folder / f"blur_k{size}.mat"
        try:
            stack = np.moveaxis(np.asarray(loadmat(path)[f"blurs_k{size}"], np.float64), -1, 0)
        except (OSError, KeyError, ValueError, TypeError, NotImplementedError) as error:
            raise UserError(f"{path}: expected a .mat file with blurs_k{size} ({type(error).__name__}: {error}).") from error
        sums = stack.sum(axis=(1, 2), keepdims=True)
        if stack.shape[1:] != (size, size) or not np.isfinite(stack).all() or stack.min() < 0 or sums.min() <= 0:
            raise UserError(f"{path}: expected finite, non-negative {size}x{size} kernels of positive sum.")
        kernels[size] = (stack / sums).astype(np.float32)
    return kernels
