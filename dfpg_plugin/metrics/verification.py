"""The verification protocol of Table 3: the distance of two faces has to tell whether they show one person."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError

MAX_THRESHOLD, THRESHOLD_STEP = 4.0, 1e-4  # of squared distances of unit vectors, as in the published notebook
NUM_FOLDS = 10


@dataclass(frozen=True)
class Verification:
    """How well pairs are judged: mean and standard deviation, over the folds, of the share of right judgements."""

    accuracy: float
    std: float
    count: int  # of judged pairs
    thresholds: tuple[float, ...]  # one a fold
    right: tuple[bool, ...]  # whether each pair was judged rightly, in the order given


def verify(
    distances: Sequence[float],
    is_same: Sequence[bool],
    *,
    legacy_order: bool = False,
    seed: int = 0,
    folds: Sequence[int] | None = None,
) -> Verification:
    """Judge the pairs of each fold by a threshold on their distance. The threshold is chosen on the other folds.

    ``distances``: squared, between embeddings. ``is_same``: whether a pair shows one person. A pair is judged the same
    if its distance is below the threshold. The lowest of equally good thresholds is taken. There are ten folds,
    stratified and shuffled by ``seed``. ``legacy_order`` cuts the folds from the pairs in their order, as the published
    notebook does. If all pairs of one kind come first, a fold then holds one kind alone, and its threshold is biased.
    ``folds`` gives each pair's fold instead, from 0. At least 2 folds are needed. Raises UserError if a distance is not
    finite, if a kind has fewer pairs than there are folds, and if a given fold has no pair.
    """
    values, same = np.asarray(distances, np.float64), np.asarray(is_same, bool)
    if len(values) != len(same):
        raise UserError(f"verification: expected a distance for each of {len(same)} pairs, got {len(values)}.")
    if not np.isfinite(values).all():
        raise UserError(f"verification: pair {int(np.argmin(np.isfinite(values)))} has no finite distance.")
    if folds is not None:
        fold_of, num_folds = _given_folds(folds, len(same))
    else:
        num_folds = NUM_FOLDS
        fold_of = _legacy_folds(len(same)) if legacy_order else _stratified_folds(same, np.random.default_rng(seed))
    counts = (int(same.sum()), int((~same).sum()))
    if min(counts) < num_folds:
        raise UserError(
            f"verification: {counts[0]} pairs of one person and {counts[1]} of two are too few for {num_folds} folds."
        )
    thresholds = np.arange(0, MAX_THRESHOLD, THRESHOLD_STEP)
    # (folds, thresholds): how many pairs of a fold a threshold judges rightly
    right = np.stack([_num_right(values[fold_of == f], same[fold_of == f], thresholds) for f in range(num_folds)])
    best = [int(np.argmax(right.sum(0) - right[fold])) for fold in range(num_folds)]  # on the other folds
    shares = [right[fold, index] / np.sum(fold_of == fold) for fold, index in enumerate(best)]
    judged = (values < thresholds[best][fold_of]) == same
    used = tuple(thresholds[best].tolist())
    return Verification(float(np.mean(shares)), float(np.std(shares)), len(same), used, tuple(judged.tolist()))


def _num_right(distances: NDArray, same: NDArray, thresholds: NDArray) -> NDArray[np.int64]:
    accepted = np.searchsorted(np.sort(distances[same]), thresholds)  # how many distances lie below each threshold
    wrongly_accepted = np.searchsorted(np.sort(distances[~same]), thresholds)
    return accepted + np.sum(~same) - wrongly_accepted


def _stratified_folds(same: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
    folds = np.empty(len(same), np.int64)
    for kind in (same, ~same):
        folds[rng.permutation(np.flatnonzero(kind))] = np.arange(kind.sum()) % NUM_FOLDS
    return folds


def _given_folds(folds: Sequence[int], count: int) -> tuple[NDArray[np.int64], int]:
    fold_of = np.asarray(folds, np.int64)
    if len(fold_of) != count:
        raise UserError(f"verification: expected a fold for each of {count} pairs, got {len(fold_of)}.")
    sizes = np.bincount(fold_of)
    if len(sizes) < 2 or not sizes.all():
        raise UserError(f"verification: expected pairs in each of at least 2 folds, got {sizes.tolist()} in them.")
    return fold_of, len(sizes)


def _legacy_folds(count: int) -> NDArray[np.int64]:
    parts = np.array_split(np.arange(count), NUM_FOLDS)
    return np.repeat(np.arange(NUM_FOLDS), [len(part) for part in parts])
