"""Every image's values as arrays, for each method and metric of one test set, and what is missing of them."""

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
NOWHERE = "no method has a value"
NO_PARTNER = "no other photograph shows the person"
NO_FACE_IN_SOME = "some of its pairs are left out: not exactly one face is found in a photograph"


@dataclass(frozen=True)
class Missing:
    """What a method lacks, or what nobody has where ``method`` is None."""

    method: str | None
    set: str
    metric: str | None  # None: all
    images: tuple[str, ...]  # none: the whole set
    reason: str


@dataclass(frozen=True)
class Column:
    """One method's values of one metric on one set: sums over an image's values and their counts, both (N,).

    Most metrics have one value an image, verification one a pair. Of several runs, an image counts where all have one.
    """

    sums: Array
    counts: Array
    absent: NDArray[np.bool_]  # whether an image lacks a value that it should have
    unmeasured: NDArray[np.bool_]  # whether it was not measured at all: not in the results, or with a problem
    run_means: tuple[float, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no value at all."""
        return not self.counts.any()


@dataclass(frozen=True)
class TestSet:
    """One test set with the values of all methods; arrays are in the order of ``names``."""

    name: str
    methods: tuple[Method, ...]
    metrics: dict[str, dict]  # what the manifests say of each
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Take the images of all runs together. Raises UserError where two runs differ in an image's pixels."""
        pixels: dict[str, str] = {}
        differing = set()
        for record in (r for m in self.methods for run in m.runs for r in run.sets.get(self.name, [])):
            if pixels.setdefault(record.name, record.pixels) != record.pixels:
                differing.add(record.name)
        if differing:
            raise UserError(
                f"{self.name}: the runs were measured on different pictures of the same names "
                f"({len(differing)}): {list_some(sorted(differing))}. Run their tests again on one set."
            )
        object.__setattr__(self, "names", tuple(sorted(pixels)))

    @cached_property
    def any_record(self) -> dict[str, Record]:
        """A record of each image, for what does not depend on the method."""
        return {r.name: r for m in self.methods for run in m.runs for r in run.sets.get(self.name, [])}

    @cached_property
    def groups(self) -> list[str]:
        """The sharp face of each image, by which images belong together: its file, or what a published name says."""
        parsed = {name: parse_blurred_name(name) for name in self.names}
        stems = {name: name if found is None else found.gt_stem for name, found in parsed.items()}
        return [self.any_record[name].gt or stems[name] for name in self.names]

    @cached_property
    def sizes(self) -> Array:
        """The kernel's size of each image; NaN where its name does not tell."""
        return np.array([np.nan if (s := self.any_record[name].size) is None else s for name in self.names])

    def column(self, method: Method, metric: str) -> Column:
        """Return a method's values of a metric, and what is missing of them."""
        runs = [run for run in method.runs if self.name in run.sets]
        of_all = [run for run in runs if metric in run.manifest["metrics"]]
        size = len(self.names)
        if len(of_all) < len(method.runs):
            reason = "not measured on this set" if len(runs) < len(method.runs) else "metric not measured"
            lacking = Missing(method.label, self.name, metric if runs else None, (), reason)
            nothing = np.zeros(size)
            return Column(nothing, nothing, np.ones(size, bool), np.zeros(size, bool), (), (lacking,))
        parts = [self._values(run, method.label, metric) for run in of_all]
        counts = np.min([part.counts for part in parts], axis=0)
        scaled = [np.where(counts > 0, part.sums / np.maximum(part.counts, 1) * counts, 0.0) for part in parts]
        means = tuple(mean for part in parts for mean in part.run_means)  # of the folds, for verification
        if self.metrics[metric]["type"] != VERIFICATION and counts.any():
            means = tuple(float(sums.sum() / counts.sum()) for sums in scaled)  # of the images that all runs have
        absent, unmeasured = (np.any([getattr(p, part) for p in parts], axis=0) for part in ("absent", "unmeasured"))
        missing = tuple(dict.fromkeys(m for part in parts for m in part.missing))
        return Column(np.mean(scaled, axis=0), counts, absent, unmeasured, means, missing)

    def _unmeasured(self, records: dict[str, Record]) -> NDArray[np.bool_]:
        return np.array([name not in records or records[name].problem is not None for name in self.names])

    def _values(self, run: Run, label: str, metric: str) -> Column:
        records = {record.name: record for record in run.sets[self.name]}
        if self.metrics[metric]["type"] == VERIFICATION:
            return self._verification(records, label, metric)
        sums, counts = np.zeros(len(self.names)), np.zeros(len(self.names))
        for i, name in enumerate(self.names):
            value = records[name].values.get(metric) if name in records else None
            if value is not None:
                sums[i], counts[i] = value, 1
        missing = self._missing(records, counts, label, metric)
        return Column(sums, counts, counts == 0, self._unmeasured(records), (), missing)

    def _verification(self, records: dict[str, Record], label: str, metric: str) -> Column:
        settings = self.metrics[metric]["settings"]
        sums, counts = np.zeros(len(self.names)), np.zeros(len(self.names))
        judged = [
            (place, i, distance, same)
            for i, name in enumerate(self.names)
            for _, distance, same, place in (records[name].pairs.get(metric, []) if name in records else [])
            if distance is not None
        ]
        judged.sort(key=lambda pair: pair[:2])  # as a list has them, or those of one person first
        unmeasured = self._unmeasured(records)
        try:
            result = verify(
                [distance for _, _, distance, _ in judged],
                [same for _, _, _, same in judged],
                legacy_order=settings["legacy_order"],
                seed=settings["seed"],
            )
        except UserError as error:
            too_few = Missing(label, self.name, metric, (), str(error))
            return Column(sums, counts, counts == 0, unmeasured, (), (too_few,))
        for (_, i, _, _), right in zip(judged, result.right, strict=True):
            sums[i] += right
            counts[i] += 1
        missing = self._missing(records, counts, label, metric)
        halved = tuple(  # the others have no pair at all, and are among the missing already
            name
            for name, count in zip(self.names, counts, strict=True)
            if count > 0 and any(distance is None for _, distance, _, _ in records[name].pairs[metric])
        )
        if halved:
            missing += (Missing(label, self.name, metric, halved, NO_FACE_IN_SOME),)
        # leaving out an image in which no face is found is part of the protocol
        return Column(sums, counts, unmeasured, unmeasured, (result.accuracy,), missing)

    def _missing(self, records: dict[str, Record], counts: Array, label: str, metric: str) -> tuple[Missing, ...]:
        by_reason: dict[str, list[str]] = {}
        for name, count in zip(self.names, counts, strict=True):
            if count == 0:
                record = records.get(name)
                reason = "not in the results" if record is None else record.problem or self._no_value(record, metric)
                by_reason.setdefault(reason, []).append(name)
        return tuple(Missing(label, self.name, metric, tuple(names), why) for why, names in by_reason.items())

    def _no_value(self, record: Record, metric: str) -> str:
        if self.metrics[metric]["type"] != VERIFICATION:
            return "no value"
        if record.pairs.get(metric):
            return NO_FACE
        is_drawn = self.metrics[metric]["settings"].get("identity") is not None
        return NO_PARTNER if is_drawn else "not in the list of pairs"
