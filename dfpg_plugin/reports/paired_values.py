"""The values of one test set's images as arrays, for each method and metric, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.naming import list_some, parse_blurred_name
from dfpg_plugin.evaluation.records import Record, Run
from dfpg_plugin.evaluation.set_metrics import VERIFICATION
from dfpg_plugin.metrics.verification import verify
from dfpg_plugin.reports.methods import Method
from dfpg_plugin.reports.statistics import Array

NO_FACE = "not exactly one face is found in it, or in its photographs"
NO_FACE_IN_PHOTOGRAPHS = "not exactly one face is found in any of its photographs"  # of no_match
NOWHERE = "no method has a value"
NO_PARTNER = "no other photograph shows the person"
NO_FACE_IN_SOME = "some of its pairs are left out: not exactly one face is found in a photograph"


@dataclass(frozen=True)
class Missing:
    """Values that are missing, and why."""

    method: str | None  # None: no method has them
    set: str
    metric: str | None  # None: every metric
    images: tuple[str, ...]  # empty: the whole set
    reason: str


@dataclass(frozen=True)
class MetricValues:
    """The values of one metric for one method on one test set. All arrays are (N,): one entry per image.

    Most metrics give an image one value. Verification gives an image one value per pair: 1.0 for a pair that is judged
    rightly, 0.0 otherwise.
    """

    sums: Array  # over an image's values
    counts: Array  # of an image's values
    absent: NDArray[np.bool_]  # whether an image lacks a value that it should have
    unmeasured: NDArray[np.bool_]  # whether an image is not in the results, or could not be measured
    run_means: tuple[float, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no image has a value."""
        return not self.counts.any()

    @property
    def means(self) -> Array:
        """The mean of each image's values; 0 for an image without a value."""
        return self.sums / np.maximum(self.counts, 1)


@dataclass(frozen=True)
class TestSet:
    """One test set with the records of all methods. Arrays have one entry per image, in the order of ``names``."""

    name: str
    methods: tuple[Method, ...]
    metrics: dict[str, dict]  # the manifests' record of each metric
    names: tuple[str, ...] = field(init=False)  # of all images that any run has, sorted

    def __post_init__(self) -> None:
        """Collect the images' names. Raises UserError if two runs differ in an image's pixels."""
        pixels: dict[str, str] = {}
        differing = set()
        for record in self._records():
            if pixels.setdefault(record.name, record.pixels) != record.pixels:
                differing.add(record.name)
        if differing:
            raise UserError(
                f"{self.name}: the runs were measured on different pictures of the same names "
                f"({len(differing)}): {list_some(sorted(differing))}. Run their tests again on one set."
            )
        object.__setattr__(self, "names", tuple(sorted(pixels)))

    def _records(self) -> list[Record]:
        return [r for method in self.methods for run in method.runs for r in run.sets.get(self.name, [])]

    @cached_property
    def any_record(self) -> dict[str, Record]:
        """One record of each image, by name. Facts such as the kernel's size are the same in all its records."""
        return {record.name: record for record in self._records()}

    @cached_property
    def groups(self) -> list[str]:
        """The sharp face of each image. Images of one sharp face are a group.

        A sharp face is named by its file. Without a file, a published name tells the face, ``00001`` for
        ``00001_ker11_blur_k13.png``. For any other name, the image is a group of its own.
        """
        groups = []
        for name in self.names:
            parsed = parse_blurred_name(name)
            groups.append(self.any_record[name].gt or (name if parsed is None else parsed.gt_stem))
        return groups

    @cached_property
    def sizes(self) -> Array:
        """The size of each image's kernel in px; NaN if the image's name does not say."""
        sizes = [self.any_record[name].size for name in self.names]
        return np.array([np.nan if size is None else size for size in sizes])

    def values(self, method: Method, metric: str) -> MetricValues:
        """Return a method's values of a metric, averaged over the runs, and what is missing."""
        on_this_set = [run for run in method.runs if self.name in run.sets]
        measured = [run for run in on_this_set if metric in run.manifest["metrics"]]
        if len(measured) < len(method.runs):
            size = len(self.names)
            reason = "metric not measured" if len(on_this_set) == len(method.runs) else "not measured on this set"
            missing = Missing(method.label, self.name, metric if on_this_set else None, (), reason)
            nothing = np.zeros(size)
            return MetricValues(nothing, nothing, np.ones(size, bool), np.zeros(size, bool), (), (missing,))
        return self._average([self._run_values(run, method.label, metric) for run in measured], metric)

    def _average(self, runs: Sequence[MetricValues], metric: str) -> MetricValues:
        """Average the runs image by image. An image counts only if every run has a value."""
        counts = np.min([run.counts for run in runs], axis=0)
        sums = [np.where(counts > 0, run.means * counts, 0.0) for run in runs]
        run_means = tuple(mean for run in runs for mean in run.run_means)  # verification: the mean over the folds
        is_one_verification = self.metrics[metric]["type"] == VERIFICATION and len(runs) == 1
        if counts.any() and not is_one_verification:
            run_means = tuple(float(run_sums.sum() / counts.sum()) for run_sums in sums)
        absent = np.any([run.absent for run in runs], axis=0)
        unmeasured = np.any([run.unmeasured for run in runs], axis=0)
        missing = tuple(dict.fromkeys(entry for run in runs for entry in run.missing))
        return MetricValues(np.mean(sums, axis=0), counts, absent, unmeasured, run_means, missing)

    def _run_values(self, run: Run, label: str, metric: str) -> MetricValues:
        records = {record.name: record for record in run.sets[self.name]}
        if self.metrics[metric]["type"] == VERIFICATION:
            return self._verification(records, label, metric)
        sums, counts = np.zeros(len(self.names)), np.zeros(len(self.names))
        for i, name in enumerate(self.names):
            value = records[name].values.get(metric) if name in records else None
            if value is not None:
                sums[i], counts[i] = value, 1
        missing = self._missing(records, counts, label, metric)
        return MetricValues(sums, counts, counts == 0, self._unmeasured(records), (), missing)

    def _verification(self, records: dict[str, Record], label: str, metric: str) -> MetricValues:
        settings = self.metrics[metric]["settings"]
        judged = []
        for i, name in enumerate(self.names):
            for pair in records[name].pairs.get(metric, []) if name in records else []:
                if pair.distance is not None:
                    judged.append((pair.place, i, pair.distance, pair.is_same))
        judged.sort(key=lambda entry: entry[:2])  # by place: the order of a list; of drawn pairs, same person first
        sums, counts = np.zeros(len(self.names)), np.zeros(len(self.names))
        unmeasured = self._unmeasured(records)
        distances, is_same = [entry[2] for entry in judged], [entry[3] for entry in judged]
        try:
            result = verify(distances, is_same, legacy_order=settings["legacy_order"], seed=settings["seed"])
        except UserError as error:
            too_few = Missing(label, self.name, metric, (), str(error))
            return MetricValues(sums, counts, counts == 0, unmeasured, (), (too_few,))
        for (_, i, _, _), is_right in zip(judged, result.right, strict=True):
            sums[i] += is_right
            counts[i] += 1
        missing = self._missing(records, counts, label, metric)  # names the images without any distance
        measured = [name for name, count in zip(self.names, counts, strict=True) if count > 0]
        partly = [name for name in measured if any(pair.distance is None for pair in records[name].pairs[metric])]
        if partly:
            missing += (Missing(label, self.name, metric, tuple(partly), NO_FACE_IN_SOME),)
        # an image without a value for want of a face is not absent: the protocol leaves the image out
        return MetricValues(sums, counts, unmeasured, unmeasured, (result.accuracy,), missing)

    def _unmeasured(self, records: dict[str, Record]) -> NDArray[np.bool_]:
        return np.array([name not in records or records[name].problem is not None for name in self.names])

    def _missing(self, records: dict[str, Record], counts: Array, label: str, metric: str) -> tuple[Missing, ...]:
        """Return the images without a value, one entry per reason."""
        by_reason: dict[str, list[str]] = {}
        for name, count in zip(self.names, counts, strict=True):
            if count == 0:
                reason = self._reason(records.get(name), metric)
                by_reason.setdefault(reason, []).append(name)
        return tuple(Missing(label, self.name, metric, tuple(names), reason) for reason, names in by_reason.items())

    def _reason(self, record: Record | None, metric: str) -> str:
        if record is None:
            return "not in the results"
        if record.problem:
            return record.problem
        if self.metrics[metric]["type"] != VERIFICATION:
            return "no value"
        if record.pairs.get(metric):
            return NO_FACE_IN_PHOTOGRAPHS if "unfound" in self.metrics[metric]["settings"] else NO_FACE
        is_drawn = self.metrics[metric]["settings"].get("identity") is not None
        return NO_PARTNER if is_drawn else "not in the list of pairs"
