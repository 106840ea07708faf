"""Plots of a metric against the size of the blur, and pictures of the same faces side by side."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.data.images import read_image
from dfpg_plugin.evaluation.image_sources import BLURRED, SHARP
from dfpg_plugin.evaluation.records import Record
from dfpg_plugin.evaluation.restoring import Image
from dfpg_plugin.evaluation.set_metrics import VERIFICATION
from dfpg_plugin.reports.methods import Method
from dfpg_plugin.reports.picture_choice import PictureChoice
from dfpg_plugin.reports.report import Cell, Report, SetReport
from dfpg_plugin.reports.tables import PERCENT, format_value, title_of

DPI = 130
SIDE = 256  # most px of a picture's side in the grid
NAME_WIDTH, TITLE_HEIGHT, CAPTION_HEIGHT, GAP = 24, 26, 30, 8  # px around the pictures
WIDTH = 5.5  # inches of a plot
SHIFT = 0.06  # px of kernel size between two methods' points, so that their bars do not hide each other


def plot_sizes(report: Report, test_set: SetReport, metric: str) -> Figure:
    """Draw each method's mean of a metric, with the mean's interval, against the size of the kernel."""
    figure = Figure(figsize=(WIDTH, 0.65 * WIDTH), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    facts = report.metrics[metric]
    is_percent = facts["type"] in PERCENT
    for i, label in enumerate(report.labels):
        cells = {size: by_metric[metric][label] for size, by_metric in test_set.sizes.items()}
        shift = SHIFT * (i - len(report.labels) / 2)
        _plot_method(axes, label, cells, shift, 100 if is_percent else 1)
    axes.set_xlabel("kernel size in px")
    axes.set_ylabel(_escape(title_of(metric, facts)) + (" in %" if is_percent else ""))
    axes.set_xticks(list(test_set.sizes))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    return figure


def _plot_method(axes: Axes, label: str, cells: dict[int, Cell], shift: float, scale: int) -> None:
    cells = {size: cell for size, cell in cells.items() if math.isfinite(cell.mean)}
    if not cells:
        return
    means = scale * np.array([cell.mean for cell in cells.values()])
    low = scale * np.array([cell.low for cell in cells.values()])
    high = scale * np.array([cell.high for cell in cells.values()])
    errors = np.maximum(0, [means - low, high - means])
    axes.errorbar([size + shift for size in cells], means, errors, label=_escape(label), marker="o", capsize=2)


def picture_metric(report: Report, test_set: SetReport, choice: PictureChoice) -> str | None:
    """Return the metric by which pictures are chosen. Its values stand below the pictures.

    The default is the set's first metric with a value per image. Returns None if this set has no such metric. Raises
    UserError if no set has the chosen metric.
    """
    if choice.metric is not None:
        check_choice("--picture-metric", choice.metric, report.metrics)
        return choice.metric if choice.metric in test_set.cells else None
    return next((key for key in test_set.cells if report.metrics[key]["type"] != VERIFICATION), None)


def choose_images(report: Report, test_set: SetReport, choice: PictureChoice) -> list[str]:
    """Return the names of the images for the grid.

    The values are those of the first method that is no reference. The images are drawn at random if this method has
    no values. Raises UserError if no set has the chosen metric.
    """
    metric = picture_metric(report, test_set, choice)
    first = next((method for method in report.methods if not method.is_reference), report.methods[0])
    values = {r.name: r.values.get(metric or "") for r in first.runs[0].sets.get(test_set.name, [])}
    measured = {name: value for name, value in values.items() if value is not None}
    if metric is None or choice.kind == "random" or not measured:
        names = list(test_set.images)
        count = min(choice.count, len(names))
        return sorted(np.random.default_rng(choice.seed).choice(names, count, replace=False).tolist())
    count = min(choice.count, len(measured))
    worst_first = sorted(measured, key=measured.__getitem__, reverse=report.metrics[metric]["better"] == "lower")
    start = {"worst": 0, "median": (len(measured) - count) // 2, "best": len(measured) - count}[choice.kind]
    return worst_first[start : start + count]


def draw_grid(report: Report, test_set: SetReport, names: Sequence[str], metric: str | None) -> Figure:
    """Draw a row of pictures for each image: blurred, each method's, sharp. Under each picture: its ``metric``.

    Each pixel of a picture becomes a square of whole pixels in the grid. If a picture is larger than :data:`SIDE`, the
    grid shows the centre.
    """
    restoring = [method for method in report.methods if not method.is_reference]
    titles = [BLURRED, *(method.label for method in restoring), SHARP]
    width = NAME_WIDTH + len(titles) * (SIDE + GAP)
    height = TITLE_HEIGHT + len(names) * (SIDE + CAPTION_HEIGHT)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for row, name in enumerate(names):
        pictures = [_reference(report, test_set.name, name, BLURRED)]
        pictures += [_restored(method, test_set.name, name) for method in restoring]
        pictures.append(_reference(report, test_set.name, name, SHARP))
        bottom = height - TITLE_HEIGHT - row * (SIDE + CAPTION_HEIGHT) - SIDE
        for column, (image, record) in enumerate(pictures):
            left = NAME_WIDTH + column * (SIDE + GAP)
            panel = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            _draw(panel, image, _caption(record, metric, report))
            if row == 0:
                panel.set_title(_escape(titles[column]), fontsize=7, pad=4)
            if column == 0:
                panel.set_ylabel(_escape(name), fontsize=6)
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
    height, width = (zoom * side for side in shown.shape[:2])
    y, x = (SIDE - height) // 2, (SIDE - width) // 2
    panel.imshow(shown, interpolation="nearest", extent=(x, x + width, y + height, y), aspect="auto")
    panel.set(xlim=(0, SIDE), ylim=(SIDE, 0))  # imshow has changed the limits


def _escape(text: str) -> str:
    """Return text that matplotlib draws unchanged.

    Matplotlib reads text between dollars as a formula, and leaves a label out of the legend if it begins with ``_``.
    """
    text = text.encode("utf-8", "replace").decode().replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _caption(record: Record | None, metric: str | None, report: Report) -> str:
    value = None if record is None or metric is None else record.values.get(metric)
    return "" if value is None else format_value(value, report.metrics[str(metric)])


def _records(method: Method, set_name: str, name: str) -> Iterator[tuple[Path, Record]]:
    """Yield the results folder and the record of one image for each of the method's runs."""
    for run in method.runs:
        for record in run.sets.get(set_name, []):
            if record.name == name:
                yield run.folder, record


def _restored(method: Method, set_name: str, name: str) -> tuple[Image | None, Record | None]:
    """Return the picture that the method's first run has saved, and its record."""
    first_run = Method(method.label, method.runs[:1])
    folder, record = next(_records(first_run, set_name, name), (Path(), None))
    if record is None or record.picture is None:
        return None, record
    return _read_saved(folder / record.picture), record


def _reference(report: Report, set_name: str, name: str, kind: str) -> tuple[Image | None, Record | None]:
    """Return the blurred or the sharp picture: the set's file, or else a picture that a run of this kind has saved."""
    same_kind = [method for method in report.methods if method.runs[0].manifest["method"]["images"] == kind]
    saved = [_restored(method, set_name, name) for method in same_kind]
    record = next((record for _, record in saved if record is not None), None)
    _, any_record = next(found for method in report.methods for found in _records(method, set_name, name))
    image = _read_saved(Path(any_record.lq_path if kind == BLURRED else any_record.gt_path))
    if image is None:
        image = next((picture for picture, _ in saved if picture is not None), None)
    return image, record


def _read_saved(path: Path) -> Image | None:
    if not path.is_file():
        return None
    try:
        return read_image(path)
    except UserError:  # the file was damaged after the test; the grid shows "not saved"
        return None
