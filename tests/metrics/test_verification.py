"""The verification protocol against cases whose answers are known."""

import numpy as np
import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics.verification import _stratified_folds, verify


def by_hand(distances: np.ndarray, same: np.ndarray, folds: np.ndarray) -> float:
    """Every threshold on every fold, written out."""
    shares = []
    for fold in range(10):
        train, test = folds != fold, folds == fold
        best, best_share = 0.0, -1.0
        for threshold in np.arange(0, 4, 1e-4):
            share = np.mean((distances[train] < threshold) == same[train])
            if share > best_share:
                best, best_share = threshold, share
        shares.append(np.mean((distances[test] < best) == same[test]))
    return float(np.mean(shares))


def test_distances_that_separate_give_1_and_a_threshold_between() -> None:
    result = verify([0.5] * 30 + [1.5] * 30, [True] * 30 + [False] * 30)
    assert result.accuracy == 1
    assert result.std == 0
    assert result.count == 60
    assert all(0.5 < threshold <= 1.5 for threshold in result.thresholds)
    assert len(result.thresholds) == 10


def test_random_distances_give_what_a_plain_loop_gives() -> None:
    rng = np.random.default_rng(0)
    same = rng.random(60) < 0.5
    distances = np.where(same, rng.normal(1, 0.4, 60), rng.normal(1.6, 0.4, 60)).clip(0)
    folds = _stratified_folds(same, np.random.default_rng(3))
    result = verify(distances, same, seed=3)
    assert result.accuracy == pytest.approx(by_hand(distances, same, folds))
    assert [np.mean(np.array(result.right)[folds == f]) for f in range(10)] == pytest.approx(
        [np.mean((distances[folds == f] < result.thresholds[f]) == same[folds == f]) for f in range(10)]
    )
    contiguous = np.repeat(np.arange(10), 6)
    assert verify(distances, same, legacy_order=True).accuracy == pytest.approx(by_hand(distances, same, contiguous))


def test_folds_hold_both_kinds_in_equal_parts() -> None:
    same = np.arange(100) < 40
    folds = _stratified_folds(same, np.random.default_rng(0))
    for fold in range(10):
        assert (same[folds == fold].sum(), (~same)[folds == fold].sum()) == (4, 6)


def test_legacy_order_is_biased_where_the_kinds_come_one_after_the_other() -> None:
    rng = np.random.default_rng(1)
    same = np.arange(200) < 100
    distances = np.where(same, rng.normal(1, 0.5, 200), rng.normal(1.5, 0.5, 200)).clip(0)
    assert verify(distances, same, legacy_order=True).accuracy < verify(distances, same).accuracy


def test_too_few_pairs_and_wrong_distances_are_named() -> None:
    with pytest.raises(UserError, match="9 pairs of one person and 20 of two are too few for 10 folds"):
        verify([1.0] * 29, [True] * 9 + [False] * 20)
    with pytest.raises(UserError, match="pair 0 has no finite distance"):
        verify([float("nan")] * 20, [True] * 10 + [False] * 10)
    with pytest.raises(UserError, match="a distance for each of 20 pairs, got 3"):
        verify([1.0] * 3, [True] * 10 + [False] * 10)


def test_given_folds_take_the_place_of_drawn_ones() -> None:
    rng = np.random.default_rng(2)
    same = np.tile(np.arange(6) < 3, 10)
    distances = np.where(same, rng.normal(1, 0.4, 60), rng.normal(1.6, 0.4, 60)).clip(0)
    folds = np.repeat(np.arange(10), 6)
    result = verify(distances, same, folds=folds)
    assert result.accuracy == pytest.approx(by_hand(distances, same, folds))
    shares = [np.mean(np.array(result.right)[folds == f]) for f in range(10)]
    assert result.std == pytest.approx(np.std(shares))
    assert verify(distances, same, folds=rng.permutation(folds)).accuracy != result.accuracy


def test_wrong_folds_are_named() -> None:
    with pytest.raises(UserError, match="expected a fold for each of 4 pairs, got 3"):
        verify([1.0] * 4, [True, False] * 2, folds=[0, 0, 1])
    with pytest.raises(UserError, match=r"in each of at least 2 folds, got \[2, 0, 2\] in them"):
        verify([1.0] * 4, [True, False] * 2, folds=[0, 0, 2, 2])
    with pytest.raises(UserError, match=r"in each of at least 2 folds, got \[4\] in them"):
        verify([1.0] * 4, [True, False] * 2, folds=[0] * 4)
    with pytest.raises(UserError, match="1 pairs of one person and 3 of two are too few for 2 folds"):
        verify([1.0] * 4, [True, False, False, False], folds=[0, 0, 1, 1])
