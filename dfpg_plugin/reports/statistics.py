"""Intervals and paired tests for values of images that come in groups, one group for each sharp face.

Blurred pictures of one sharp face are not independent. So the bootstrap draws a whole group, and the permutation test
changes the sign of a whole group. Both need only the sum and the count of each group's values: two (G,) arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

Array = NDArray[np.float64]
LEVEL = 0.95
BLOCK = 2**20  # most numbers in an array of resamples x groups: 8 MiB
NUM_PERMUTATIONS = 9999


@dataclass(frozen=True)
class Interval:
    """A mean and its interval at :data:`LEVEL`."""

    mean: float
    low: float
    high: float


def group_sums(values: Array, counts: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    """Return the sum of ``values`` and the sum of ``counts`` over each group: two (G,) arrays, sorted by group name.

    ``values``, ``counts``: (N,). A value with count 0 is ignored. ``groups``: N names.
    """
    _, inverse = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    size = int(inverse.max()) + 1 if len(inverse) else 0
    counted = np.where(counts > 0, values, 0.0)
    return np.bincount(inverse, counted, size).astype(float), np.bincount(inverse, counts, size).astype(float)


def bootstrap(sums: Array, counts: Array, resamples: int, seed: int) -> Interval:
    """Return the mean of all values and the percentile interval over ``resamples`` draws of groups with replacement.

    The mean is NaN if there is no value. The ends are NaN if the mean is not finite, or if only one group has a value.
    """
    sums, counts = sums[counts > 0], counts[counts > 0]
    if not len(counts):
        return Interval(np.nan, np.nan, np.nan)
    mean = float(sums.sum() / counts.sum())
    if not np.isfinite(mean) or len(counts) < 2:
        return Interval(mean, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    size, means = len(counts), []
    block = max(1, BLOCK // size)
    for first in range(0, resamples, block):
        drawn = rng.multinomial(size, np.full(size, 1 / size), min(block, resamples - first))
        means.append((drawn @ sums) / (drawn @ counts))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def paired_p(differences: Array, seed: int) -> float:
    """Return the two-sided p-value of the hypothesis that paired differences (G,) have mean 0.

    The test changes the differences' signs at random. The p-value is 1 for a single difference, or if all are 0.
    """
    if not np.any(differences):
        return 1.0
    if len(differences) < 2:  # scipy raises an error; both signs of a single difference are equally extreme
        return 1.0
    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=NUM_PERMUTATIONS,
        batch=max(1, BLOCK // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float], family: int) -> list[float]:
    """Return p-values adjusted for multiple tests by Holm's step-down method, in the given order.

    ``family``: the number of tests that might have been made. The p-values may be fewer, if their tests were chosen by
    the data: the adjusted ones are then those of Holm's method or greater.
    """
    order = np.argsort(p_values)
    steps = np.array(p_values, dtype=float)[order] * (family - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
