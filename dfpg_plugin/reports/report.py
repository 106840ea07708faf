"""Means, intervals, ranks, paired tests and missing pieces of several methods on several test sets."""

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from dfpg_plugin.evaluation.manifest import commit, now, software
from dfpg_plugin.evaluation.set_metrics import VERIFICATION
from dfpg_plugin.reports.methods import Method, agreed_metrics
from dfpg_plugin.reports.paired_values import NO_PARTNER, NOWHERE, MetricValues, Missing, TestSet
from dfpg_plugin.reports.statistics import LEVEL, NUM_PERMUTATIONS, Array, bootstrap, group_sums, holm, paired_p

FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """One method's mean of one metric on one set, or on the images of one kernel size."""

    mean: float  # NaN: no image has a value
    low: float  # end of the mean's interval
    high: float
    count: int  # images that have a value
    expected: int  # images that have a value in some method, or that some method was not measured on
    absent: int  # expected images that this method lacks
    run_means: tuple[float, ...] = ()  # one per run
    rank: int | None = None  # 1: best, 2: second; None: others, references, and cells with absent images

    @property
    def is_complete(self) -> bool:
        """Whether the method has every expected image.

        An image in which verification finds no face is not absent: the protocol leaves the image out.
        """
        return self.absent == 0


@dataclass(frozen=True)
class PairedTest:
    """Whether the best method of a metric on a set is better than another method by more than chance."""

    best: str
    other: str
    difference: float  # best minus other, over the images that both have
    low: float
    high: float
    p: float  # Holm-adjusted over all pairs of methods
    images: int
    faces: int


Cells = dict[str, dict[str, Cell]]  # by metric, then by method's label


@dataclass(frozen=True)
class SetReport:
    """All numbers of one test set."""

    name: str
    images: dict[str, str]  # digest of each image's pixels, by name
    faces: int  # sharp faces
    cells: Cells
    sizes: dict[int, Cells]  # by kernel size in px; empty if the images' names do not say the size
    tests: dict[str, tuple[PairedTest, ...]]  # by metric


@dataclass(frozen=True)
class Report:
    """The content of all tables, plots and pages."""

    title: str
    methods: tuple[Method, ...]
    metrics: dict[str, dict]  # the manifests' record of each metric
    sets: tuple[SetReport, ...]
    missing: tuple[Missing, ...]
    resamples: int
    seed: int
    command: str
    created: str

    @property
    def labels(self) -> list[str]:
        """The methods' labels, in the given order."""
        return [method.label for method in self.methods]


def build_report(methods: Sequence[Method], title: str, resamples: int, seed: int) -> Report:
    """Compare methods on every set that at least one method was measured on.

    Raises UserError if the methods' metrics differ, or if the pictures of a set differ.
    """
    metrics = agreed_metrics(methods)
    names = dict.fromkeys(name for method in methods for run in method.runs for name in run.sets)
    sets, missing = [], []
    for name in names:
        test_set = TestSet(name, tuple(methods), metrics)
        report, lacking = _report_set(test_set, resamples, seed)
        sets.append(report)
        missing += lacking
    command = shlex.join(["basicsr", *sys.argv[1:]])
    return Report(title, tuple(methods), metrics, tuple(sets), tuple(missing), resamples, seed, command, now())


def as_dict(report: Report) -> dict:
    """Return the content of report.json. JSON has no NaN and no infinity: they become None and the text ``"inf"``."""
    content = {
        "format": FORMAT,
        "title": report.title,
        "command": report.command,
        "created": report.created,
        "software": software(),
        "commit": commit(),
        "statistics": {
            "interval": f"{LEVEL:.0%} bootstrap percentile interval over sharp faces",
            "resamples": report.resamples,
            "test": f"sign-flip permutation test of the differences of faces, {NUM_PERMUTATIONS} permutations, Holm "
            "over all pairs of methods",
            "seed": report.seed,
        },
        "metrics": report.metrics,
        "methods": {
            method.label: [{"folder": str(run.folder), **run.manifest} for run in method.runs]
            for method in report.methods
        },
        "sets": {set_report.name: asdict(set_report) for set_report in report.sets},
        "missing": [asdict(missing) for missing in report.missing],
    }
    return _for_json(content)  # type: ignore[return-value]


def _for_json(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _for_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _report_set(test_set: TestSet, resamples: int, seed: int) -> tuple[SetReport, list[Missing]]:
    values: dict[str, dict[str, MetricValues]] = {}  # by metric, then by method's label
    missing: dict[Missing, None] = {}  # each entry once, in order
    for metric in test_set.metrics:
        by_label = {method.label: test_set.values(method, metric) for method in test_set.methods}
        missing |= dict.fromkeys(_missing(test_set, metric, by_label))
        if not all(method_values.is_empty for method_values in by_label.values()):
            values[metric] = by_label
    all_images = np.ones(len(test_set.names), bool)
    cells, tests = {}, {}
    for metric, by_label in values.items():
        cells[metric] = _cells(test_set, metric, by_label, all_images, resamples, seed)
        tests[metric] = _paired_tests(test_set, by_label, cells[metric], resamples, seed)
    sizes: dict[int, Cells] = {}
    for size in np.unique(test_set.sizes[~np.isnan(test_set.sizes)]).astype(int).tolist():
        is_size = test_set.sizes == size
        sizes[size] = {
            metric: _cells(test_set, metric, by_label, is_size, resamples, seed) for metric, by_label in values.items()
        }
    images = {name: test_set.any_record[name].pixels for name in test_set.names}
    report = SetReport(test_set.name, images, len(set(test_set.groups)), cells, sizes, tests)
    return report, list(missing)


def _cells(
    test_set: TestSet, metric: str, values: Mapping[str, MetricValues], which: Array, resamples: int, seed: int
) -> dict[str, Cell]:
    """Return each method's cell over the images that ``which`` selects, a bool array (N,)."""
    groups = [group for group, is_in in zip(test_set.groups, which, strict=True) if is_in]
    # no method is expected to have an image to which all methods gave no value, for example one without a face
    has_value = [method_values.counts[which] > 0 for method_values in values.values()]
    expected = np.any([*has_value, *(method_values.unmeasured[which] for method_values in values.values())], axis=0)
    cells = {}
    for label, method_values in values.items():
        sums, counts = method_values.sums[which], method_values.counts[which]
        interval = bootstrap(*group_sums(sums, counts, groups), resamples, seed)
        mean, run_means = interval.mean, method_values.run_means if which.all() else ()
        if test_set.metrics[metric]["type"] == VERIFICATION and len(run_means) == 1:
            mean = run_means[0]  # the mean over the folds, as published; of several runs, the mean over the images
        count = int((counts > 0).sum())
        absent = int((method_values.absent[which] & expected).sum())
        cells[label] = Cell(mean, interval.low, interval.high, count, int(expected.sum()), absent, run_means)
    ranks = _ranks(test_set, metric, cells)
    return {label: replace(cell, rank=ranks.get(label)) for label, cell in cells.items()}


def _ranks(test_set: TestSet, metric: str, cells: Mapping[str, Cell]) -> dict[str, int]:
    """Return rank 1 or 2 by label. Equal means share a rank. One method alone takes no rank."""
    sign = -1 if test_set.metrics[metric]["better"] == "higher" else 1
    costs = {}  # lower is better
    for label in _compared_labels(test_set):
        if cells[label].is_complete and not math.isnan(cells[label].mean):
            costs[label] = sign * cells[label].mean
    if len(costs) < 2:
        return {}
    ranks = {label: 1 + sum(other < cost for other in costs.values()) for label, cost in costs.items()}
    return {label: rank for label, rank in ranks.items() if rank <= 2}


def _compared_labels(test_set: TestSet) -> list[str]:
    return [method.label for method in test_set.methods if not method.is_reference]


def _paired_tests(
    test_set: TestSet, values: Mapping[str, MetricValues], cells: Mapping[str, Cell], resamples: int, seed: int
) -> tuple[PairedTest, ...]:
    """Compare the best method with every other method that is no reference, on the images that both have."""
    best = next((label for label, cell in cells.items() if cell.rank == 1), None)
    if best is None:
        return ()
    tests = []
    for other in _compared_labels(test_set):
        a, b = values[best], values[other]
        both = (a.counts > 0) & (b.counts > 0)
        if other == best or not both.any() or not np.isfinite([a.sums[both], b.sums[both]]).all():
            continue
        differences = np.where(both, a.means - b.means, 0.0)
        sums, counts = group_sums(differences, both.astype(float), test_set.groups)
        interval = bootstrap(sums, counts, resamples, seed)
        p = paired_p(sums[counts > 0], seed)
        faces = int((counts > 0).sum())
        tests.append(PairedTest(best, other, interval.mean, interval.low, interval.high, p, int(both.sum()), faces))
    # the best method is found on the same faces, so that any pair of methods might have been tested
    adjusted = holm([test.p for test in tests], math.comb(len(tests) + 1, 2))
    return tuple(replace(test, p=p) for test, p in zip(tests, adjusted, strict=True))


def _missing(test_set: TestSet, metric: str, values: Mapping[str, MetricValues]) -> list[Missing]:
    """Return what the methods lack. Images without a value in any method are named once, without a method."""
    nowhere = np.all([(each.counts == 0) & ~each.unmeasured for each in values.values()], axis=0)
    nowhere_names = [name for name, is_nowhere in zip(test_set.names, nowhere, strict=True) if is_nowhere]
    entries = [entry for each in values.values() for entry in each.missing]
    without_partner = {name for entry in entries if entry.reason == NO_PARTNER for name in entry.images}
    images_by_reason = {
        NO_PARTNER: tuple(name for name in nowhere_names if name in without_partner),
        NOWHERE: tuple(name for name in nowhere_names if name not in without_partner),
    }
    found = [Missing(None, test_set.name, metric, names, why) for why, names in images_by_reason.items() if names]
    for label, method_values in values.items():
        for entry in method_values.missing:
            images = tuple(name for name in entry.images if name not in nowhere_names)
            if images or not entry.images:
                found.append(replace(entry, images=images))
        infinite = tuple(test_set.names[i] for i in np.flatnonzero(np.isinf(method_values.sums)))
        if infinite and label in _compared_labels(test_set):
            found.append(Missing(label, test_set.name, metric, infinite, "infinite, so that no test is possible"))
    return found
