"""Plots of a metric against the size of the blur, and pictures of the same faces side by side."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.data.images import read_image
from dfpg_plugin.evaluation.image_sources import BLURRED, SHARP, Image
from dfpg_plugin.evaluation.records import Record
from dfpg_plugin.evaluation.set_metrics import VERIFICATION
from dfpg_plugin.reports.methods import Method
from dfpg_plugin.reports.picture_choice import PictureChoice
from dfpg_plugin.reports.report import Report, SetReport
from dfpg_plugin.reports.tables import format_value, title_of

DPI = 130
SIDE = 256  # px of a picture in the grid, at most
NAME_WIDTH, TITLE_HEIGHT, CAPTION_HEIGHT, GAP = 24, 26, 30, 8  # px around the pictures
WIDTH = 5.5  # inches of a plot


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
                [size + shift for size, _ in points], means, errors, label=_plain(label), marker="o", capsize=2
            )
    axes.set_xlabel("kernel size in px")
    axes.set_ylabel(_plain(title_of(metric, report.metrics[metric])) + (" in %" if scale == 100 else ""))
    axes.set_xticks(list(test_set.sizes))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    return figure


def metric_of(report: Report, test_set: SetReport, choice: PictureChoice) -> str | None:
    """Return the metric to choose pictures by and to write below them: the first that each image has a value of.

    None where this set has no such metric. Raises UserError for a metric that no set has.
    """
    if choice.metric is not None:
        check_choice("--picture-metric", choice.metric, report.metrics)
        return choice.metric if choice.metric in test_set.cells else None
    return next((key for key in test_set.cells if report.metrics[key]["type"] != VERIFICATION), None)


def choose_images(report: Report, test_set: SetReport, choice: PictureChoice) -> list[str]:
    """Return the names of the images for the grid; drawn ones where the first method has no values to choose by.

    Raises UserError for a metric that was not measured.
    """
    metric = metric_of(report, test_set, choice)
    first = next((method for method in report.methods if not method.is_reference), report.methods[0])
    values = {r.name: r.values.get(metric or "") for r in first.runs[0].sets.get(test_set.name, [])}
    measured = {name: value for name, value in values.items() if value is not None}
    if choice.kind == "random" or not measured:
        names = list(test_set.images)
        count = min(choice.count, len(names))
        return sorted(np.random.default_rng(choice.seed).choice(names, count, replace=False).tolist())
    count = min(choice.count, len(measured))
    order = sorted(measured, key=lambda name: measured[name], reverse=report.metrics[str(metric)]["better"] == "lower")
    start = {"worst": 0, "median": (len(order) - count) // 2, "best": len(order) - count}[choice.kind]
    return order[start : start + count]


def draw_grid(report: Report, test_set: SetReport, names: Sequence[str], metric: str | None) -> Figure:
    """Draw a row of pictures for each image: blurred, each method's, sharp; under each the value of ``metric``.

    A picture's pixel is a whole number of the grid's; of a picture larger than :data:`SIDE` the centre is shown.
    """
    restored = [method for method in report.methods if not method.is_reference]
    columns = [BLURRED, *(method.label for method in restored), SHARP]
    width = NAME_WIDTH + len(columns) * (SIDE + GAP)
    height = TITLE_HEIGHT + len(names) * (SIDE + CAPTION_HEIGHT)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for i, name in enumerate(names):
        found = [_reference(report, test_set.name, name, BLURRED)]
        found += [_restored(method, test_set.name, name) for method in restored]
        found.append(_reference(report, test_set.name, name, SHARP))
        for j, (image, record) in enumerate(found):
            left, bottom = NAME_WIDTH + j * (SIDE + GAP), height - TITLE_HEIGHT - i * (SIDE + CAPTION_HEIGHT) - SIDE
            panel = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            _draw(panel, image, "" if record is None or metric is None else _caption(record, metric, report))
            if i == 0:
                panel.set_title(_plain(columns[j]), fontsize=7, pad=4)
            if j == 0:
                panel.set_ylabel(_plain(name), fontsize=6)
    return figure


def _draw(panel: Axes, image: Image | None, caption: str) -> None:
    panel.set(xticks=[], yticks=[], xlim=(0, SIDE), ylim=(SIDE, 0))
    panel.set_xlabel(caption, fontsize=7)
    panel.spines[:].set_visible(image is None)
    if image is None:
        panel.text(SIDE / 2, SIDE / 2, "not saved", ha="center", va="center", fontsize=7)
        return
    top, left = (max(0, (side - SIDE) // 2) for side in image.shape[:2])
    shown = cv2.cvtColor(image[top : top + SIDE, left : left + SIDE], cv2.COLOR_BGR2RGB)
    zoom = SIDE // max(shown.shape[:2])
    down, right = ((SIDE - zoom * side) // 2 for side in shown.shape[:2])
    edges = (right, right + zoom * shown.shape[1], down + zoom * shown.shape[0], down)
    panel.imshow(shown, interpolation="nearest", extent=edges, aspect="auto")
    panel.set(xlim=(0, SIDE), ylim=(SIDE, 0))


def _plain(text: str) -> str:
    """Return text that matplotlib draws as it is: no formula between dollars, no label hidden for its underscore."""
    text = text.encode("utf-8", "replace").decode().replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


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
