"""A report's tables and lines of text, the form of its numbers, and all values as CSV."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
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
DIGITS, MAX_DECIMALS = 4, 8  # other metrics: this many significant digits, at most this many decimals
NONE, INCOMPLETE = "\u2013", "†"  # a dash for no value; a dagger for a mean without all images


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first column names the rows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[tuple[int | None, ...], ...]  # each text's rank: 1, 2 or None


def format_value(value: float, facts: Mapping, with_unit: bool = True) -> str:
    """Return a metric's value with as many decimals as in the paper. Rates are in percent, for example ``98.75 %``."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    kind = facts["type"]
    if kind in PERCENT:
        return f"{100 * value:.{DECIMALS[kind]}f}{' %' if with_unit else ''}"
    decimals = DECIMALS.get(kind)
    if decimals is None:
        exponent = int(f"{value:.{DIGITS - 1}e}".split("e")[1])  # rounded first: 9.99996 is 10.00
        decimals = min(max(0, DIGITS - 1 - exponent), MAX_DECIMALS)
    return f"{value:.{decimals}f}"


def format_cell(cell: Cell | None, facts: Mapping) -> str:
    """Return a cell as text, for example ``27.10 [26.31, 28.02] (27 of 28) †``.

    ``(27 of 28)``: one of 28 expected images has no value. The dagger: the method lacks images that it should have.
    """
    if cell is None or math.isnan(cell.mean):
        return NONE
    mean = format_value(cell.mean, facts)
    if not math.isnan(cell.low):
        mean += f" [{format_value(cell.low, facts, False)}, {format_value(cell.high, facts, False)}]"
    if cell.count < cell.expected:
        mean += f" ({cell.count} of {cell.expected})"
    return mean if cell.is_complete else f"{mean} {INCOMPLETE}"


def title_of(key: str, facts: Mapping) -> str:
    """Return a metric's heading: name, better direction and face recogniser, for example ``found ↑ (dlib 20)``."""
    arrow = "↑" if facts["better"] == "higher" else "↓"
    recogniser = facts.get("uses", {}).get("recogniser")
    return f"{key} {arrow}" + (f" ({recogniser.split(':')[0]})" if recogniser else "")


def tables_of(report: Report) -> Iterator[tuple[SetReport, list[Table]]]:
    """Yield each set and its tables.

    The tables are: all metrics; each metric by kernel size; the paired tests; each run's mean. A table without content
    is left out.
    """
    for test_set in report.sets:
        tables = [_main_table(report, test_set)]
        if len(test_set.sizes) > 1:
            tables += [_size_table(report, test_set, metric) for metric in test_set.cells]
        tables += [table for table in (_test_table(report, test_set), _run_table(report, test_set)) if table.rows]
        yield test_set, tables


def missing_lines(report: Report) -> list[str]:
    """Return one line for each reason why values are missing, with the name of every image."""
    lines = []
    for missing in report.missing:
        who = "No method" if missing.method is None else missing.method
        what = f"{missing.set}, {missing.metric or 'every metric'}"
        names = f" ({len(missing.images)}): {', '.join(missing.images)}" if missing.images else ""
        reason = "" if missing.reason == NOWHERE else f": {missing.reason}"
        lines.append(f"{who}, {what}{reason}{names}")
    return lines


def provenance_lines(report: Report) -> list[str]:
    """Return lines that say what the numbers are, and how they were measured."""
    return [
        f"In brackets: 95 % bootstrap percentile intervals of the mean, {report.resamples} resamples of sharp faces, "
        f"each with all its blurred pictures, seed {report.seed}. Values of several runs are averaged first.",
        "p: sign-flip permutation test of the differences of faces, adjusted for all pairs of methods (Holm).",
        f"{INCOMPLETE}: images are missing, so that the mean is not comparable and takes no rank.",
        *(_metric_line(key, facts) for key, facts in report.metrics.items()),
        *(_run_line(method.label, run.manifest) for method in report.methods for run in method.runs),
        *_software_lines(report),
        f"This report: {report.command}, {report.created}",
    ]


def _metric_line(key: str, facts: Mapping) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in {**facts["settings"], **facts["uses"]}.items())
    return f"{key}: {facts['type']}, {facts['better']} is better; {settings or 'no settings'}"


def _run_line(label: str, manifest: Mapping) -> str:
    method = manifest["method"]
    weights, count = method["weights"], method["parameters"]
    origin = f"weights sha256 {weights['sha256'][:12]}" if weights else f"images: {method['images']}"
    size = f", {count / 1e6:.2f} M parameters" if count else ""
    return f"{label}: {manifest['command']} (commit {manifest['commit']}, {origin}{size})"


def _software_lines(report: Report) -> list[str]:
    """Return one line for each combination of versions and device; several lines also name the runs."""
    names_of: dict[str, list[str]] = {}
    for manifest in (run.manifest for method in report.methods for run in method.runs):
        versions = ", ".join(f"{package} {version}" for package, version in manifest["software"].items() if version)
        names_of.setdefault(f"{versions}, on {manifest['machine']['device']}", []).append(manifest["name"])
    if len(names_of) == 1:
        return [f"Software: {versions}" for versions in names_of]
    return [f"Software of {', '.join(names)}: {versions}" for versions, names in names_of.items()]


def to_csv(report: Report) -> str:
    """Return the values of all images as CSV. Each set, image, method and run has a row.

    A verification metric lists an image's pairs: ``ann_2.png 0.31 same; bob_1.png 1.2 other``. The distance is left out
    if the pair does not count. It is 4 if the image has not exactly one found face and matches nobody (``no_match``).
    """
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    keys = list(report.metrics)
    writer.writerow(["set", "image", "sharp_face", "kernel_size", "method", "run", "name", "problem", *keys])
    for method in report.methods:
        for number, run in enumerate(method.runs, 1):
            for set_name, records in run.sets.items():
                for r in records:
                    values = [_pairs(r, key) if key in r.pairs else r.values.get(key) for key in keys]
                    run_name = run.manifest["name"]
                    writer.writerow(
                        [set_name, r.name, r.gt, r.size, method.label, number, run_name, r.problem, *values]
                    )
    return output.getvalue()


def _pairs(record: Record, key: str) -> str:
    texts = []
    for pair in record.pairs[key]:
        distance = "" if pair.distance is None else pair.distance
        texts.append(f"{pair.photograph} {distance} {'same' if pair.is_same else 'other'}")
    return "; ".join(texts)


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
    """Return a table with a row per method and a column per entry of ``cells``. ``metrics``: each column's metric."""
    rows, marks = [], []
    for label in report.labels:
        row = [by_label.get(label) for by_label in cells.values()]
        texts = [format_cell(cell, report.metrics[metric]) for cell, metric in zip(row, metrics, strict=True)]
        rows.append((label, *texts))
        marks.append((None, *(None if cell is None else cell.rank for cell in row)))
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
        cells = [(by_label[label], report.metrics[metric]) for metric, by_label in test_set.cells.items()]
        rows.append((label, *(_format_runs(cell.run_means, facts) for cell, facts in cells)))
    header = ("method", *(title_of(key, report.metrics[key]) for key in test_set.cells))
    caption = "Each run's mean, and their standard deviation"
    return Table(caption, header, tuple(rows), tuple((None,) * len(header) for _ in rows))


def _format_runs(means: tuple[float, ...], facts: Mapping) -> str:
    """Return the runs' means as text, for example ``27.10, 27.32 (sd 0.16)``."""
    text = ", ".join(format_value(mean, facts, False) for mean in means) or NONE
    return f"{text} (sd {format_value(_deviation(means), facts, False)})" if len(means) > 1 else text


def _deviation(means: tuple[float, ...]) -> float:
    """Return the standard deviation of the sample, with n - 1 in the denominator."""
    center = math.fsum(means) / len(means)
    return math.sqrt(math.fsum((mean - center) ** 2 for mean in means) / (len(means) - 1))
