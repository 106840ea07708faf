"""Plots of a metric against the size of the blur, and pictures of the same faces side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.data.images import read_image
from dfpg_plugin.evaluation.methods import Method
from dfpg_plugin.evaluation.records import Record
from dfpg_plugin.evaluation.report import Report, SetReport
from dfpg_plugin.evaluation.restored import BLURRED, SHARP, Image
from dfpg_plugin.evaluation.set_metrics import VERIFICATION
from dfpg_plugin.evaluation.tables import format_value, title_of

CHOICES = ("random", "worst", "median", "best")
DPI = 130
PANEL = 1.5  # inches of a picture in the grid
WIDTH = 5.5  # inches of a plot


@dataclass(frozen=True)
class PictureChoice:
    """Which images the grid shows: drawn, or those with the worst, median or best values of the first method."""

    kind: str = "random"  # one of CHOICES
    count: int = 6
    metric: str | None = None  # by which; default: the first
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the kind."""
        check_choice("--pictures", self.kind, CHOICES)


def plot_sizes(report: Report, test_set: SetReport, metric: str) -> Figure:
    """Draw each method's mean of a metric, with its interval, against the kernel's size."""
    figure = Figure(figsize=(WIDTH, 0.65 * WIDTH), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    scale = 100 if "%" in format_value(0.5, report.metrics[metric]) else 1
    for i, label in enumerate(report.labels):
        points = [(size, cells[metric][label]) for size, cells in test_set.sizes.items()]
        points = [(size, cell) for size, cell in points if math.isfinite(cell.mean)]
        if points:
            means = scale * np.array([cell.mean for _, cell in points])
            low, high = (scale * np.array([getattr(cell, end) for _, cell in points]) for end in ("low", "high"))
            shift = 0.06 * (i - len(report.labels) / 2)  # so that bars do not hide each other
            errors = np.maximum(0, [means - low, high - means])
            axes.errorbar(
                [size + shift for size, _ in points], means, errors, label=_shown(label), marker="o", capsize=2
            )
    axes.set_xlabel("kernel size in px")
    axes.set_ylabel(title_of(metric, report.metrics[metric]) + (" in %" if scale == 100 else ""), parse_math=False)
    axes.set_xticks(list(test_set.sizes))
    axes.grid(alpha=0.3)
    legend = figure.legend(loc="outside right center", fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def choose_images(report: Report, test_set: SetReport, choice: PictureChoice) -> list[str]:
    """Return the names of the images for the grid. Raises UserError for a metric that was not measured."""
    names = list(test_set.images)
    count = min(choice.count, len(names))
    if choice.metric is not None:
        check_choice("--picture_metric", choice.metric, test_set.cells)
    if choice.kind == "random":
        return sorted(np.random.default_rng(choice.seed).choice(names, count, replace=False).tolist())
    metric = choice.metric or next(iter(test_set.cells), None)
    if metric is None:
        raise UserError(f"--pictures {choice.kind}: {test_set.name} has no metric to choose by. Use random.")
    if report.metrics[metric]["type"] == VERIFICATION:
        raise UserError(f"--picture_metric: {metric} has no value of a single image. Choose another.")
    there = [method for method in report.methods if test_set.name in method.runs[0].sets]
    first = next((method for method in there if not method.is_reference), there[0])
    values = {r.name: r.values.get(metric) for r in first.runs[0].sets.get(test_set.name, [])}
    measured = {name: value for name, value in values.items() if value is not None}
    order = sorted(measured, key=lambda name: measured[name], reverse=report.metrics[metric]["better"] == "lower")
    start = {"worst": 0, "median": max(0, (len(order) - count) // 2), "best": max(0, len(order) - count)}[choice.kind]
    return order[start : start + count]


def draw_grid(report: Report, test_set: SetReport, names: Sequence[str], metric: str | None) -> Figure:
    """Draw a row of pictures for each image: blurred, each method's, sharp; under each the value of ``metric``."""
    restored = [method for method in report.methods if not method.is_reference]
    columns = [BLURRED, *(method.label for method in restored), SHARP]
    figure = Figure(figsize=(PANEL * len(columns), 1.3 * PANEL * len(names)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for name, row in zip(names, axes, strict=True):
        found = [_reference(report, test_set.name, name, BLURRED)]
        found += [_restored(method, test_set.name, name) for method in restored]
        found.append(_reference(report, test_set.name, name, SHARP))
        for (image, record), panel in zip(found, row, strict=True):
            _draw(panel, image, "" if record is None or metric is None else _caption(record, metric, report))
        row[0].set_ylabel(name, fontsize=5, parse_math=False)
    for label, panel in zip(columns, axes[0], strict=True):
        panel.set_title(label, fontsize=7, parse_math=False)
    return figure


def _shown(label: str) -> str:
    """Return a label that matplotlib puts into a legend, where it leaves out those that start with an underscore."""
    return f"\u200b{label}" if label.startswith("_") else label


def _draw(panel: object, image: Image | None, caption: str) -> None:
    panel.set(xticks=[], yticks=[])  # type: ignore[attr-defined]
    if image is None:
        panel.text(0.5, 0.5, "not saved", ha="center", va="center", fontsize=6)  # type: ignore[attr-defined]
    else:
        panel.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), interpolation="nearest")  # type: ignore[attr-defined]
    panel.set_xlabel(caption, fontsize=6)  # type: ignore[attr-defined]


def _caption(record: Record, metric: str, report: Report) -> str:
    value = record.values.get(metric)
    return "" if value is None else format_value(value, report.metrics[metric])


def _restored(method: Method, set_name: str, name: str) -> tuple[Image | None, Record | None]:
    run = method.runs[0]
    record = next((r for r in run.sets.get(set_name, []) if r.name == name), None)
    saved = None if record is None or record.picture is None else run.folder / record.picture
    return _read(saved), record


def _reference(report: Report, set_name: str, name: str, kind: str) -> tuple[Image | None, Record | None]:
    """Return the blurred or the sharp image: the set's file, or what a run of that kind has saved."""
    same_kind = [m for m in report.methods if m.runs[0].manifest["method"]["images"] == kind]
    saved = [_restored(method, set_name, name) for method in same_kind]
    record = next((record for _, record in saved if record is not None), None)
    anywhere = (r for m in report.methods for run in m.runs for r in run.sets.get(set_name, []) if r.name == name)
    first = next(anywhere)
    image = _read(Path(first.lq_path if kind == BLURRED else first.gt_path))
    return (image if image is not None else next((i for i, _ in saved if i is not None), None)), record


def _read(path: Path | None) -> Image | None:
    if path is None or not path.is_file():
        return None
    try:
        return read_image(path)
    except UserError:  # a picture that was damaged since is shown as not saved
        return None
