"""A report's tables, and what its numbers look like; as Markdown and CSV."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dfpg_plugin.evaluation.records import Record
from dfpg_plugin.evaluation.set_metrics import DETECTION, VERIFICATION
from dfpg_plugin.reports.paired_values import NOWHERE
from dfpg_plugin.reports.report import Cell, Cells, Report, SetReport

DECIMALS = {  # as in the paper's tables
    "calculate_psnr": 2, "calculate_ssim": 3, "calculate_ssim_3d": 3, "calculate_lpips": 4,
    "calculate_identity_similarity": 3, DETECTION: 2, VERIFICATION: 2,
}  # fmt: skip
PERCENT = (DETECTION, VERIFICATION)
DIGITS, MAX_DECIMALS = 4, 8  # of other metrics: this many digits that count
NONE, INCOMPLETE = "\u2013", "†"  # a dash


@dataclass(frozen=True)
class Table:
    """Text in rows and columns, the first column a row's name; ``marks``: rank of each cell, 1 or 2, or None."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[tuple[int | None, ...], ...]


def format_value(value: float, facts: Mapping, with_unit: bool = True) -> str:
    """Return a metric's value with the decimals of the paper, rates in percent."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    kind = facts["type"]
    if kind in PERCENT:
        return f"{100 * value:.{DECIMALS[kind]}f}{' %' if with_unit else ''}"
    decimals = DECIMALS.get(kind)
    if decimals is None:
        exponent = int(f"{value:.{DIGITS - 1}e}".split("e")[1])  # of the rounded value: 9.99996 is 10.00
        decimals = min(max(0, DIGITS - 1 - exponent), MAX_DECIMALS)
    return f"{value:.{decimals}f}"


def format_cell(cell: Cell | None, facts: Mapping) -> str:
    """Return ``mean [low, high]``, with the number of images where some have no value, and a dagger where some lack."""
    if cell is None or math.isnan(cell.mean):
        return NONE
    mean = format_value(cell.mean, facts)
    if not math.isnan(cell.low):
        mean += f" [{format_value(cell.low, facts, False)}, {format_value(cell.high, facts, False)}]"
    if cell.count < cell.expected:
        mean += f" ({cell.count} of {cell.expected})"
    return mean if cell.is_complete else f"{mean} {INCOMPLETE}"


def title_of(key: str, facts: Mapping) -> str:
    """Return a metric's heading: its name, which way is better, and who recognised the faces."""
    arrow = "↑" if facts["better"] == "higher" else "↓"
    recogniser = facts.get("uses", {}).get("recogniser")
    return f"{key} {arrow}" + (f" ({recogniser.split(':')[0]})" if recogniser else "")


def tables_of(report: Report) -> Iterator[tuple[SetReport, list[Table]]]:
    """Yield each set's tables: all metrics, then each metric by kernel size, the tests, the runs."""
    for test_set in report.sets:
        tables = [_main_table(report, test_set)]
        tables += [_size_table(report, test_set, metric) for metric in test_set.cells if len(test_set.sizes) > 1]
        tables += [table for table in (_test_table(report, test_set), _run_table(report, test_set)) if table.rows]
        yield test_set, tables


def missing_lines(report: Report) -> list[str]:
    """Return what is missing, every image by name."""
    lines = []
    for missing in report.missing:
        who = "No method" if missing.method is None else missing.method
        what = f"{missing.set}, {missing.metric or 'every metric'}"
        names = f" ({len(missing.images)}): {', '.join(missing.images)}" if missing.images else ""
        reason = "" if missing.reason == NOWHERE else f": {missing.reason}"
        lines.append(f"{who}, {what}{reason}{names}")
    return lines


def provenance_lines(report: Report) -> list[str]:
    """Return what the numbers are and how they were got, a line each."""
    lines = [
        f"In brackets: 95 % bootstrap percentile intervals of the mean, {report.resamples} resamples of sharp faces, "
        f"each with all its blurred pictures, seed {report.seed}. Values of several runs are averaged first.",
        "p: sign-flip permutation test of the differences of faces, adjusted for the number of methods (Holm).",
        f"{INCOMPLETE}: images are missing, so that the mean is not comparable and takes no rank.",
    ]
    for key, facts in report.metrics.items():
        settings = ", ".join(f"{k} {v}" for k, v in {**facts["settings"], **facts["uses"]}.items())
        lines.append(f"{key}: {facts['type']}, {facts['better']} is better; {settings or 'no settings'}")
    for method in report.methods:
        for run in method.runs:
            facts = run.manifest
            weights = facts["method"]["weights"]
            origin = f"weights sha256 {weights['sha256'][:12]}" if weights else f"images: {facts['method']['images']}"
            count = facts["method"]["parameters"]
            size = f", {count / 1e6:.2f} M parameters" if count else ""
            lines.append(f"{method.label}: {facts['command']} (commit {facts['commit']}, {origin}{size})")
    by_software: dict[str, list[str]] = {}
    for run in (run for method in report.methods for run in method.runs):
        versions = ", ".join(f"{name} {v}" for name, v in run.manifest["software"].items() if v)
        by_software.setdefault(f"{versions}, on {run.manifest['machine']['device']}", []).append(run.manifest["name"])
    for versions, names in by_software.items():
        whose = f" of {', '.join(names)}" if len(by_software) > 1 else ""
        lines.append(f"Software{whose}: {versions}")
    lines.append(f"This report: {report.command}, {report.created}")
    return lines


def to_markdown(report: Report, pictures: Mapping[str, str]) -> str:
    """Return the report in Markdown. ``pictures``: captions of picture files beside it."""
    parts = [f"# {_markdown(report.title)}"]
    for test_set, tables in tables_of(report):
        parts.append(f"## {_markdown(test_set.name)}: {len(test_set.images)} images of {test_set.faces} faces")
        for table in tables:
            parts += [_markdown(table.caption), _markdown_table(table)]
    parts += [f"![{_markdown(caption)}]({file})" for file, caption in pictures.items()]
    lines = missing_lines(report)
    parts += ["## Missing pieces", "\n".join(f"- {_markdown(line)}" for line in lines) or "None."]
    parts += ["## What these numbers are", "\n".join(f"- {_markdown(line)}" for line in provenance_lines(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_csv(report: Report) -> str:
    """Return every image's values, one row for each set, image, method and run.

    Of a verification: ``photograph distance same`` of each pair, the distance empty where a face was not found.
    """
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    keys = list(report.metrics)
    writer.writerow(["set", "image", "sharp_face", "kernel_size", "method", "run", "name", "problem", *keys])
    for method in report.methods:
        for number, run in enumerate(method.runs, 1):
            for name, records in run.sets.items():
                for r in records:
                    row = [name, r.name, r.gt, r.size, method.label, number, run.manifest["name"], r.problem]
                    values = [_pairs(r, key) if key in r.pairs else r.values.get(key) for key in keys]
                    writer.writerow(["" if value is None else value for value in [*row, *values]])
    return output.getvalue()


def _pairs(record: Record, key: str) -> str:
    rows = record.pairs[key]
    return "; ".join(f"{photo} {'' if d is None else d} {'same' if same else 'other'}" for photo, d, same, _ in rows)


def _main_table(report: Report, test_set: SetReport) -> Table:
    header = ("method", *(title_of(key, report.metrics[key]) for key in test_set.cells))
    return _cell_table(report, "", header, test_set.cells, list(test_set.cells))


def _size_table(report: Report, test_set: SetReport, metric: str) -> Table:
    facts = report.metrics[metric]
    header = ("kernel", *(f"{size} px" for size in test_set.sizes))
    by_size: Cells = {str(size): cells[metric] for size, cells in test_set.sizes.items()}
    caption = f"{title_of(metric, facts)} by kernel size"
    return _cell_table(report, caption, header, by_size, [metric] * len(by_size))


def _cell_table(report: Report, caption: str, header: tuple[str, ...], cells: Cells, metrics: list[str]) -> Table:
    rows, marks = [], []
    for label in report.labels:
        columns = [(of.get(label), report.metrics[m]) for of, m in zip(cells.values(), metrics, strict=True)]
        rows.append((label, *(format_cell(cell, facts) for cell, facts in columns)))
        marks.append((None, *(None if cell is None else cell.rank for cell, _ in columns)))
    return Table(caption, header, tuple(rows), tuple(marks))


def _test_table(report: Report, test_set: SetReport) -> Table:
    rows = []
    for metric, tests in test_set.tests.items():
        facts = report.metrics[metric]
        for test in tests:
            numbers = [format_value(v, facts, False) for v in (test.difference, test.low, test.high)]
            gap = f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"
            rows.append((metric, test.best, test.other, gap, f"{test.p:.4f}", str(test.images), str(test.faces)))
    header = ("metric", "best", "against", "difference", "p", "images that both have", "faces")
    return Table("The best method against each other", header, tuple(rows), tuple((None,) * 7 for _ in rows))


def _run_table(report: Report, test_set: SetReport) -> Table:
    rows = []
    for label in (method.label for method in report.methods if len(method.runs) > 1):
        row = [label]
        for metric, cells in test_set.cells.items():
            means, facts = cells[label].run_means, report.metrics[metric]
            each = ", ".join(format_value(mean, facts, False) for mean in means) or NONE
            row.append(f"{each} (sd {format_value(_deviation(means), facts, False)})" if len(means) > 1 else each)
        rows.append(tuple(row))
    header = ("method", *(title_of(key, report.metrics[key]) for key in test_set.cells))
    caption = "Each run's mean, and their standard deviation"
    return Table(caption, header, tuple(rows), tuple((None,) * len(header) for _ in rows))


def _deviation(means: tuple[float, ...]) -> float:
    """Return the sample's standard deviation."""
    center = math.fsum(means) / len(means)
    return math.sqrt(math.fsum((mean - center) ** 2 for mean in means) / (len(means) - 1))


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def _markdown_table(table: Table) -> str:
    marks: dict[int | None, Callable[[str], str]] = {1: "**{}**".format, 2: "<u>{}</u>".format, None: "{}".format}
    lines = [[_markdown(text) for text in table.header], ["---"] * len(table.header)]
    for row, ranks in zip(table.rows, table.marks, strict=True):
        lines.append([marks[rank](_markdown(text)) for text, rank in zip(row, ranks, strict=True)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
