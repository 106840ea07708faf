"""Means, intervals, ranks, paired tests and missing pieces of several methods on several test sets."""

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dfpg_plugin.evaluation.manifest import commit, now, software
from dfpg_plugin.evaluation.set_metrics import VERIFICATION
from dfpg_plugin.reports.methods import Method, agreed_metrics
from dfpg_plugin.reports.paired_values import NO_PARTNER, NOWHERE, Column, Missing, TestSet
from dfpg_plugin.reports.statistics import LEVEL, NUM_PERMUTATIONS, Array, bootstrap, group_sums, holm, paired_p

FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """One method's mean of one metric on one set, or on its images of one kernel size."""

    mean: float  # NaN where there is no value
    low: float  # of the interval
    high: float
    count: int  # of the images that have a value
    expected: int  # of the images that have one in any method, or that any method was not measured on
    absent: int  # of these, how many were not measured
    run_means: tuple[float, ...] = ()  # of each run
    rank: int | None = None  # 1 best, 2 second; None for the others, references, and where images are missing

    @property
    def is_complete(self) -> bool:
        """Whether no image is missing that another method has.

        An image in which verification found no face was measured: leaving it out is part of the protocol.
        """
        return self.absent == 0


@dataclass(frozen=True)
class PairedTest:
    """Whether the best method of a metric on a set is better than another by more than chance."""

    best: str
    other: str
    difference: float  # best minus other, over the images that both have
    low: float
    high: float
    p: float  # Holm-adjusted over the others
    images: int
    faces: int


Cells = dict[str, dict[str, Cell]]  # by metric, then label


@dataclass(frozen=True)
class SetReport:
    """All numbers of one test set."""

    name: str
    images: dict[str, str]  # digest of each image's pixels
    faces: int  # sharp ones
    cells: Cells
    sizes: dict[int, Cells]  # of the images of each kernel size, where names tell it
    tests: dict[str, tuple[PairedTest, ...]]  # by metric


@dataclass(frozen=True)
class Report:
    """What tables, plots and pages show."""

    title: str
    methods: tuple[Method, ...]
    metrics: dict[str, dict]  # what the manifests say of each
    sets: tuple[SetReport, ...]
    missing: tuple[Missing, ...]
    resamples: int
    seed: int
    command: str
    created: str

    @property
    def labels(self) -> list[str]:
        """The methods' labels, in the order given."""
        return [method.label for method in self.methods]


def build_report(methods: Sequence[Method], title: str, resamples: int, seed: int) -> Report:
    """Compare methods on every set that any of them was measured on.

    Raises UserError where their metrics, or the pictures of a set, are not the same.
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
    """Return everything that is needed to understand each number, for JSON: no NaN, infinities as text."""
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
            "test": f"sign-flip permutation test of the differences of faces, {NUM_PERMUTATIONS} permutations, Holm",
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
    columns = {
        metric: {method.label: test_set.column(method, metric) for method in test_set.methods}
        for metric in test_set.metrics
    }
    missing = [lacking for metric, of in columns.items() for lacking in _missing(test_set, metric, of)]
    columns = {metric: of for metric, of in columns.items() if not all(column.is_empty for column in of.values())}
    everything = np.ones(len(test_set.names), bool)
    cells, tests = {}, {}
    for metric, of in columns.items():
        cells[metric] = _cells(test_set, metric, of, everything, resamples, seed)
        tests[metric] = _paired_tests(test_set, metric, of, cells[metric], resamples, seed)
    sizes = {}
    for size in np.unique(test_set.sizes[~np.isnan(test_set.sizes)]).astype(int).tolist():
        which = test_set.sizes == size
        sizes[size] = {m: _cells(test_set, m, of, which, resamples, seed) for m, of in columns.items()}
    images = {name: test_set.any_record[name].pixels for name in test_set.names}
    report = SetReport(test_set.name, images, len(set(test_set.groups)), cells, sizes, tests)
    return report, list(dict.fromkeys(missing))


def _cells(
    test_set: TestSet, metric: str, columns: Mapping[str, Column], which: Array, resamples: int, seed: int
) -> dict[str, Cell]:
    groups = [group for group, is_in in zip(test_set.groups, which, strict=True) if is_in]
    # what was measured and has no value in any method, such as a face that is not found, is expected of none
    has_value = [column.counts[which] > 0 for column in columns.values()]
    expected = np.any([*has_value, *(column.unmeasured[which] for column in columns.values())], axis=0)
    cells = {}
    for label, column in columns.items():
        interval = bootstrap(*group_sums(column.sums[which], column.counts[which], groups), resamples, seed)
        mean, run_means = interval.mean, column.run_means if which.all() else ()
        if test_set.metrics[metric]["type"] == VERIFICATION and run_means:
            mean = float(np.mean(run_means))  # that of the folds, as published
        count = int((column.counts[which] > 0).sum())
        absent = int((column.absent[which] & expected).sum())
        cells[label] = Cell(mean, interval.low, interval.high, count, int(expected.sum()), absent, run_means)
    ranks = _ranks(test_set, metric, cells)
    return {label: Cell(**{**vars(cell), "rank": ranks.get(label)}) for label, cell in cells.items()}


def _ranks(test_set: TestSet, metric: str, cells: Mapping[str, Cell]) -> dict[str, int]:
    """Return the labels of the best and the second best; equal means share a rank."""
    sign = -1 if test_set.metrics[metric]["better"] == "higher" else 1
    ranked = [m.label for m in test_set.methods if not m.is_reference]
    means = {k: sign * cells[k].mean for k in ranked if cells[k].is_complete and not math.isnan(cells[k].mean)}
    if len(means) < 2:
        return {}
    ranks = {label: 1 + sum(other < mean for other in means.values()) for label, mean in means.items()}
    return {label: rank for label, rank in ranks.items() if rank <= 2}


def _paired_tests(
    test_set: TestSet,
    metric: str,
    columns: Mapping[str, Column],
    cells: Mapping[str, Cell],
    resamples: int,
    seed: int,
) -> tuple[PairedTest, ...]:
    """Compare the best method with every other that is no reference, on the images that both have."""
    best = next((label for label, cell in cells.items() if cell.rank == 1), None)
    others = [m.label for m in test_set.methods if not m.is_reference and m.label != best]
    tests = []
    for other in others if best else []:
        a, b = columns[str(best)], columns[other]
        both = (a.counts > 0) & (b.counts > 0)
        if not both.any() or not np.isfinite([a.sums[both], b.sums[both]]).all():
            continue
        gap = np.where(both, a.sums / np.maximum(a.counts, 1) - b.sums / np.maximum(b.counts, 1), 0.0)
        sums, counts = group_sums(gap, both.astype(float), test_set.groups)
        interval = bootstrap(sums, counts, resamples, seed)
        p = paired_p(sums[counts > 0], seed)
        faces = int((counts > 0).sum())
        tests.append(
            PairedTest(str(best), other, interval.mean, interval.low, interval.high, p, int(both.sum()), faces)
        )
    adjusted = holm([test.p for test in tests])
    return tuple(PairedTest(**{**vars(test), "p": p}) for test, p in zip(tests, adjusted, strict=True))


def _missing(test_set: TestSet, metric: str, columns: Mapping[str, Column]) -> list[Missing]:
    """Return what methods lack; images that no method has a value for once, under no method's name."""
    nowhere = np.all([(column.counts == 0) & ~column.unmeasured for column in columns.values()], axis=0)
    names = tuple(name for name, is_nowhere in zip(test_set.names, nowhere, strict=True) if is_nowhere)
    missing_of_all = [missing for column in columns.values() for missing in column.missing]
    alone = {name for missing in missing_of_all if missing.reason == NO_PARTNER for name in missing.images}
    found = []
    for reason, is_alone in ((NO_PARTNER, True), (NOWHERE, False)):
        if images := tuple(name for name in names if (name in alone) == is_alone):
            found.append(Missing(None, test_set.name, metric, images, reason))
    references = [method.label for method in test_set.methods if method.is_reference]
    for label, column in columns.items():
        for missing in column.missing:
            left = tuple(name for name in missing.images if name not in names)
            if left or not missing.images:
                found.append(Missing(missing.method, missing.set, missing.metric, left, missing.reason))
        infinite = tuple(name for name, value in zip(test_set.names, column.sums, strict=True) if np.isinf(value))
        if infinite and label not in references:
            found.append(Missing(label, test_set.name, metric, infinite, "infinite, so that no test is possible"))
    return found
