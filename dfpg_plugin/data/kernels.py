"""Synthesise motion blur kernels by Chakrabarti's method, as MSPL does, or by Boracchi and Foi's, as Shen does."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_choice

NUM_CONTROLS = 6  # points that Chakrabarti's spline passes through
NUM_SAMPLES = 5000 * NUM_CONTROLS  # points at which the spline is evaluated
NUM_STEPS = 2000  # positions of Boracchi and Foi's particle; numT in their code
CHAKRABARTI, BORACCHI_FOI = METHODS = ("chakrabarti", "boracchi-foi")

Kernels = NDArray[np.float32]


def synthesise_kernels(size: int, count: int, rng: np.random.Generator, method: str = CHAKRABARTI) -> Kernels:
    """Return ``count`` random motion kernels, float32 (count,size,size), non-negative and centred, each with sum 1.

    ``chakrabarti``: "A neural approach to blind motion deblurring", ECCV 2016 (ayanc/ndeblur); MSPL's method. The
    code's parameters psz and mxsz are both ``size``. A cubic spline passes through 6 random points of the square, and
    each cell that the spline touches gets a random weight. A kernel whose rounded centroid is not the middle cell is
    drawn again.
    ``boracchi-foi``: "Modeling the performance of image restoration from motion blur", IEEE TIP 2012. A particle moves
    at constant speed. Gaussian impulses push it, a force pulls it back to its start, and sometimes it turns back
    abruptly. Its path is 0.5 to 1.5 times ``size`` px long (uniform) and is drawn again until it fits into the square.
    Most of these kernels are nearly sharp.

    The result depends only on the arguments and the state of ``rng``. Raises UserError for an unknown method, and
    unless ``size`` is odd and at least 3.
    """
    check_choice("kernel method", method, METHODS)
    check_size(size)
    draw = _draw_spline if method == CHAKRABARTI else _draw_shake
    kernels: list[Kernels] = []
    while len(kernels) < count:
        kernel = draw(size, rng)
        if kernel is not None:
            kernels.append(kernel)
    return np.stack(kernels)


def check_size(size: int) -> None:
    """Raise UserError unless ``size``, a kernel's side in px, is odd and at least 3."""
    if size < 3 or size % 2 == 0:
        raise UserError(f"kernel size: expected an odd number of at least 3 px, got {size}.")


@cache
def _spline_basis() -> NDArray[np.float64]:
    """Return the matrix (30000,6) that maps 6 control values to the not-a-knot cubic spline through them."""
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(np.linspace(0, 1, NUM_CONTROLS), np.eye(NUM_CONTROLS), bc_type="not-a-knot")
    return spline(np.linspace(0, 1, NUM_SAMPLES))


def _draw_spline(size: int, rng: np.random.Generator) -> Kernels | None:
    """Draw one spline and its weights. Return None if all weights are 0, or the centroid is not the middle cell."""
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


def _draw_shake(size: int, rng: np.random.Generator) -> Kernels | None:
    """Draw one camera shake, bilinear and with its mean in the middle; None if the path leaves the square."""
    path = _shake_path(size * rng.uniform(0.5, 1.5), rng)
    middle = (size - 1) / 2
    path = path - path.mean() + complex(middle, middle)
    x, y = path.real, path.imag
    if min(x.min(), y.min()) < 0 or max(x.max(), y.max()) > size - 1:
        return None
    kernel = np.zeros((size, size))
    left, top = np.minimum(x.astype(int), size - 2), np.minimum(y.astype(int), size - 2)
    right, below = x - left, y - top
    for dy, dx, share in (
        (0, 0, (1 - below) * (1 - right)),
        (0, 1, (1 - below) * right),
        (1, 0, below * (1 - right)),
        (1, 1, below * right),
    ):
        np.add.at(kernel, (top + dy, left + dx), share)
    return (kernel / len(path)).astype(np.float32)


def _shake_path(length: float, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Return a path of ``length`` px as 2000 positions x + iy."""
    anxiety, centripetal, gaussian, big_jump = np.array([0.1, 0.7, 10.0, 0.2]) * rng.random(4)
    speed = length / (NUM_STEPS - 1)
    velocity = np.exp(2j * np.pi * rng.random()) * (anxiety if anxiety > 0 else 1.0) * speed
    jumps = rng.random(NUM_STEPS) < big_jump * anxiety
    turns = np.exp(1j * (np.pi + rng.random(NUM_STEPS) - 0.5))
    pushes = gaussian * (rng.standard_normal(NUM_STEPS) + 1j * rng.standard_normal(NUM_STEPS))
    position, path = 0j, np.zeros(NUM_STEPS, complex)
    for t in range(1, NUM_STEPS):
        change = anxiety * (pushes[t] - centripetal * position) * speed
        velocity = velocity + (2 * velocity * turns[t] if jumps[t] else 0) + change
        velocity = velocity * (speed / abs(velocity))
        position += velocity
        path[t] = position
    return path
