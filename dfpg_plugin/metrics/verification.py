"""The verification protocol of Table 3: whether a distance tells that two faces are one person's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError

MAX_THRESHOLD, THRESHOLD_STEP = 4.0, 1e-4  # of the squared distance between unit vectors; the published notebook's
NUM_FOLDS = 10


@dataclass(frozen=True)
class Verification:
    """Mean and standard deviation, over the folds, of the share of pairs judged rightly; and the thresholds used."""

    accuracy: float
    std: float
    count: int  # of the pairs judged
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
    """Judge pairs by a threshold on their distance that was chosen on the other nine of ten folds.

    ``distances``: squared, between embeddings; ``is_same``: whether a pair shows one person. A pair is judged the same
    where its distance is below the threshold; of equally good thresholds the lowest counts. Folds are stratified and
    shuffled by ``seed``. ``legacy_order`` cuts them from the pairs as they come, as the published notebook does: with
    all pairs of one kind before the others, a fold then holds one class alone and its threshold is biased. ``folds``:
    each pair's fold, from 0, in place of those; any number of them from 2. Raises UserError where a class has fewer
    pairs than there are folds, and where a given fold has no pair.
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
    # (fold, threshold): how many pairs of the fold each threshold judges rightly
    right = np.stack([_num_right(values[fold_of == f], same[fold_of == f], thresholds) for f in range(num_folds)])
    best = [int(np.argmax(right.sum(0) - right[fold])) for fold in range(num_folds)]
    shares = [right[fold, index] / np.sum(fold_of == fold) for fold, index in enumerate(best)]
    judged = (values < thresholds[best][fold_of]) == same
    used = tuple(thresholds[best].tolist())
    return Verification(float(np.mean(shares)), float(np.std(shares)), len(same), used, tuple(judged.tolist()))


def _num_right(distances: NDArray, same: NDArray, thresholds: NDArray) -> NDArray[np.int64]:
    accepted = np.searchsorted(np.sort(distances[same]), thresholds)  # how many lie below
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
    return np.concatenate([np.full(len(part), n) for n, part in enumerate(np.array_split(np.arange(count), NUM_FOLDS))])
