"""Intervals and paired tests for measures of images that come in groups: blurred pictures of one sharp face.

Everything works on sums and counts of each group, because pictures of one face are not independent: a group is drawn,
or has its sign changed, as a whole. A group's sum and count are (G,) arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

Array = NDArray[np.float64]
LEVEL = 0.95
BLOCK = 2**20  # groups times resamples at once: arrays of 8 MiB
NUM_PERMUTATIONS = 9999


@dataclass(frozen=True)
class Interval:
    """A mean and its interval at :data:`LEVEL`."""

    mean: float
    low: float
    high: float


def group_sums(values: Array, counts: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    """Return sums of ``values`` and of ``counts``, both (N,), over each group of ``groups``, N names, in their order.

    What has count 0 has no value.
    """
    _, inverse = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    size = int(inverse.max()) + 1 if len(inverse) else 0
    there = np.where(counts > 0, values, 0.0)
    return np.bincount(inverse, there, size).astype(float), np.bincount(inverse, counts, size).astype(float)


def bootstrap(sums: Array, counts: Array, resamples: int, seed: int) -> Interval:
    """Return the mean of all values and its percentile interval over ``resamples`` draws of groups with replacement.

    Not a number where there is no value; neither are the ends where a value is infinite or there is one group only.
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
    """Return the two-sided p-value of the mean of paired differences (G,) being 0, by changing signs at random.

    1 where there is no difference at all.
    """
    if not np.any(differences):
        return 1.0
    if len(differences) < 2:  # scipy refuses; with one pair both signs are equally extreme
        return 1.0
    result = permutation_test(
        (differences,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=NUM_PERMUTATIONS,
        batch=max(1, BLOCK // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down method, in the order given."""
    order = np.argsort(p_values)
    steps = np.array(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
