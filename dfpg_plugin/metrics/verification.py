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
    distances: Sequence[float], is_same: Sequence[bool], *, legacy_order: bool = False, seed: int = 0
) -> Verification:
    """Judge pairs by a threshold on their distance that was chosen on the other nine of ten folds.

    ``distances``: squared, between embeddings; ``is_same``: whether a pair shows one person. A pair is judged the same
    where its distance is below the threshold; of equally good thresholds the lowest counts. Folds are stratified and
    shuffled by ``seed``. ``legacy_order`` cuts them from the pairs as they come, as the published notebook does: with
    all pairs of one kind before the others, a fold then holds one class alone and its threshold is biased. Raises
    UserError where a class has fewer pairs than there are folds.
    """
    values, same = np.asarray(distances, np.float64), np.asarray(is_same, bool)
    if len(values) != len(same):
        raise UserError(f"verification: expected a distance for each of {len(same)} pairs, got {len(values)}.")
    if not np.isfinite(values).all():
        raise UserError(f"verification: pair {int(np.argmin(np.isfinite(values)))} has no finite distance.")
    counts = (int(same.sum()), int((~same).sum()))
    if min(counts) < NUM_FOLDS:
        raise UserError(
            f"verification: {counts[0]} pairs of one person and {counts[1]} of two are too few for {NUM_FOLDS} folds."
        )
    folds = _legacy_folds(len(same)) if legacy_order else _stratified_folds(same, np.random.default_rng(seed))
    thresholds = np.arange(0, MAX_THRESHOLD, THRESHOLD_STEP)
    # (fold, threshold): how many pairs of the fold each threshold judges rightly
    right = np.stack([_num_right(values[folds == f], same[folds == f], thresholds) for f in range(NUM_FOLDS)])
    best = [int(np.argmax(right.sum(0) - right[fold])) for fold in range(NUM_FOLDS)]
    shares = [right[fold, index] / np.sum(folds == fold) for fold, index in enumerate(best)]
    judged = (values < thresholds[best][folds]) == same
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


def _legacy_folds(count: int) -> NDArray[np.int64]:
    return np.concatenate([np.full(len(part), n) for n, part in enumerate(np.array_split(np.arange(count), NUM_FOLDS))])
