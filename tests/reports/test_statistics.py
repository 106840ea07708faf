"""Intervals and tests against SciPy and plain loops."""

import itertools

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import ttest_rel

from dfpg_plugin.reports.statistics import bootstrap, group_sums, holm, paired_p


def test_without_groups_it_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(2, 1, 200)
    mine = bootstrap(values, np.ones(200), 20_000, seed=1)
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert mine.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_groups_are_drawn_whole() -> None:
    """Ten copies of each value say no more than one: the interval is the same, not a third as wide."""
    values = np.random.default_rng(0).normal(0, 1, 30)
    names = [f"face{i}" for i in range(30)]
    sums, counts = group_sums(np.repeat(values, 10), np.ones(300), list(np.repeat(names, 10)))
    assert counts.tolist() == [10] * 30
    many, one = bootstrap(sums, counts, 5000, 0), bootstrap(*group_sums(values, np.ones(30), names), 5000, 0)
    assert vars(many) == pytest.approx(vars(one))


def test_groups_of_different_sizes_against_a_plain_loop() -> None:
    values = [np.array([1.0, 2.0]), np.array([10.0]), np.array([4.0, 5.0, 6.0])]
    sums, counts = (np.array([f(v) for v in values], float) for f in (np.sum, len))
    means = [
        np.mean(np.concatenate([values[i] for i in draw])) for draw in itertools.product(range(3), repeat=3)
    ]  # all 27 draws, equally likely
    mine = bootstrap(sums, counts, 50_000, 0)
    assert mine.mean == pytest.approx(28 / 6)
    assert (mine.low, mine.high) == (pytest.approx(min(means)), pytest.approx(max(means)))


def test_infinite_no_and_single_values() -> None:
    infinite = bootstrap(np.array([np.inf, 1.0]), np.ones(2), 10, 0)
    assert (infinite.mean, np.isnan(infinite.low), np.isnan(infinite.high)) == (np.inf, True, True)
    assert np.isnan(bootstrap(np.zeros(3), np.zeros(3), 10, 0).mean)
    single = bootstrap(np.array([6.0]), np.array([2.0]), 10, 0)  # one face says nothing of others
    assert (single.mean, np.isnan(single.low), np.isnan(single.high)) == (3, True, True)
    sums, counts = group_sums(np.array([np.nan, 2.0]), np.array([0.0, 1.0]), ["a", "b"])
    assert (sums.tolist(), counts.tolist()) == ([0, 2], [0, 1])


def test_p_of_few_pairs_is_exact() -> None:
    """Of the 2^5 choices of signs, those whose mean is at least as far from 0."""
    differences = np.array([1.0, 2.0, -0.5, 3.0, 1.5])
    means = [np.mean(np.array(signs) * differences) for signs in itertools.product((1, -1), repeat=5)]
    exact = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    assert paired_p(differences, 0) == pytest.approx(exact)
    assert paired_p(np.zeros(4), 0) == 1
    assert paired_p(np.array([2.0]), 0) == 1


def test_p_of_many_pairs() -> None:
    noise = np.random.default_rng(3).normal(0, 1, 80)
    assert paired_p(noise - noise.mean(), 0) == pytest.approx(1, abs=0.01)
    assert paired_p(noise + 1, 0) == pytest.approx(2e-4, abs=1e-6)  # no draw is as far; two-sided
    assert paired_p(noise + 1, 0) == paired_p(-(noise + 1), 0)


def test_the_seed_alone_decides_what_is_drawn() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    for drawn in (lambda seed: vars(bootstrap(values, np.ones(40), 100, seed)), lambda seed: paired_p(values, seed)):
        assert drawn(0) == drawn(0) != drawn(1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03], 3) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, 0.04, 0.03], 6) == pytest.approx([0.06, 0.16, 0.15])
    assert holm([0.9, 0.8], 2) == [1, 1]
    assert holm([], 0) == []


def test_the_best_of_equal_methods_is_seldom_called_significant() -> None:
    rng = np.random.default_rng(0)
    methods, faces, trials = 5, 60, 200
    false = 0
    for _ in range(trials):
        values = rng.normal(size=(methods, faces))
        best = values.mean(axis=1).argmax()
        others = [i for i in range(methods) if i != best]
        ps = [float(ttest_rel(values[best], values[i]).pvalue) for i in others]
        false += min(holm(ps, methods * (methods - 1) // 2)) < 0.05
    assert false / trials <= 0.06  # with a family of methods - 1 some 0.09


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, noise = np.random.default_rng(0).gamma(2, 1, 30), np.random.default_rng(1).normal(0.3, 1, 30)
    interval, p = vars(bootstrap(values, np.ones(30), 1000, 0)), paired_p(noise, 0)
    monkeypatch.setattr("dfpg_plugin.reports.statistics.BLOCK", 70)  # 2 resamples at once
    assert vars(bootstrap(values, np.ones(30), 1000, 0)) == pytest.approx(interval)
    assert paired_p(noise, 0) == pytest.approx(p)
