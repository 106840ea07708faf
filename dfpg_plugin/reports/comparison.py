"""``basicsr report --compare``: why two reports' numbers differ."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.data.naming import list_some
from dfpg_plugin.files import read_json
from dfpg_plugin.reports.methods import DEFINING_KEYS, list_differences
from dfpg_plugin.reports.report import FORMAT

RUN_KEYS = ("method", "batch_size", "machine", "commit", "software")  # of a run's manifest, most telling first


@dataclass(frozen=True)
class Side:
    """One of the two reports, and the method in it that is compared."""

    path: Path
    report: dict
    label: str

    def cell(self, set_name: str, metric: str) -> dict | None:
        """Return the method's recorded mean and counts; None if the report has none."""
        cells = self.report["sets"].get(set_name, {}).get("cells", {})
        return cells.get(metric, {}).get(self.label)

    def facts(self, set_name: str, metric: str) -> dict:
        """Return the number of measured images, what is missing, ``no value (2: a, b)``, and the number of runs."""
        missing = []
        for entry in self.report["missing"]:
            is_metric = entry["metric"] in (metric, None)
            is_method = entry["method"] in (self.label, None)
            if entry["set"] == set_name and is_metric and is_method:
                missing.append(f"{entry['reason']} ({len(entry['images'])}: {list_some(entry['images'])})")
        cell = self.report["sets"][set_name]["cells"][metric][self.label]
        runs = self.report["methods"][self.label]
        return {"images measured": cell["count"], "missing": "; ".join(missing) or "nothing", "runs": len(runs)}

    def values(self, set_name: str, metric: str) -> dict[tuple[str, str], str]:
        """Return the text of each value by (image, run), from report.csv; an empty dict without this file."""
        path = self.path.with_suffix(".csv")
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["set"] == set_name and row["method"] == self.label]
        return {(row["image"], row["run"]): row.get(metric, "") for row in rows}


def compare_reports(first: Path, second: Path) -> list[str]:
    """Return one line for each number that both reports have, for example ``S, psnr, net: 27.1 / 27.4: differ``.

    Every recorded reason follows a number that differs, one reason a line. Methods are compared by label. If each
    report has only one method, these two are compared. Raises UserError if a file is no report, or if the reports
    have no number in common.
    """
    a, b = _read_report(first), _read_report(second)
    has_one_method_each = len(a["methods"]) == len(b["methods"]) == 1
    if has_one_method_each:
        pairs = [(next(iter(a["methods"])), next(iter(b["methods"])))]
    else:
        pairs = [(label, label) for label in a["methods"] if label in b["methods"]]
    lines: list[str] = []
    for set_name in a["sets"]:
        for label_a, label_b in pairs:
            lines += _compare_set(Side(first, a, label_a), Side(second, b, label_b), set_name)
    if not lines:
        raise UserError(f"{first} and {second}: have no method, set and metric in common.")
    for section in ("sets", "metrics") if has_one_method_each else ("sets", "metrics", "methods"):
        for path, mine, theirs in ((first, a, b), (second, b, a)):
            if only := sorted(mine[section].keys() - theirs[section].keys()):
                lines.append(f"only in {path}: {section} {', '.join(only)}")
    return lines


def _compare_set(a: Side, b: Side, set_name: str) -> Iterator[str]:
    labels = a.label if a.label == b.label else f"{a.label} / {b.label}"
    for metric in a.report["sets"][set_name]["cells"]:
        cell_a, cell_b = a.cell(set_name, metric), b.cell(set_name, metric)
        if cell_a is None or cell_b is None:
            continue
        means = f"{set_name}, {metric}, {labels}: {cell_a['mean']} / {cell_b['mean']}"
        if cell_a["mean"] == cell_b["mean"]:
            yield f"{means}: {'the same' if cell_a['mean'] is not None else 'no value in either'}"
            continue
        yield f"{means}: differ"
        reasons = _reasons(a, b, set_name, metric)
        yield from (f"  {reason}" for reason in reasons)
        if not reasons:
            yield f"  nothing that was recorded differs{_differing_values(a, b, set_name, metric)}"


def _reasons(a: Side, b: Side, set_name: str, metric: str) -> list[str]:
    differences = list_differences(a.report["metrics"][metric], b.report["metrics"][metric], DEFINING_KEYS)
    reasons = [f"{metric}: {text}" for text in differences]
    reasons += _image_reasons(a.report["sets"][set_name]["images"], b.report["sets"][set_name]["images"])
    facts_a, facts_b = a.facts(set_name, metric), b.facts(set_name, metric)
    reasons += list_differences(facts_a, facts_b, list(facts_a))
    reasons += _run_reasons(a.report["methods"][a.label], b.report["methods"][b.label], set_name)
    return list(dict.fromkeys(reasons))


def _image_reasons(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """Return how the images of two sets differ. ``a``, ``b``: the digest of each image's pixels, by name."""
    changed = {name for name in a.keys() & b.keys() if a[name] != b[name]}
    reasons = []
    for text, names in (
        ("images only in the first", a.keys() - b.keys()),
        ("images only in the second", b.keys() - a.keys()),
        ("images with other pixels", changed),
    ):
        if names:
            reasons.append(f"{text} ({len(names)}): {list_some(sorted(names))}")
    return reasons


def _run_reasons(a: list[dict], b: list[dict], set_name: str) -> list[str]:
    """Return how the runs of two methods differ. ``a``, ``b``: the manifest of each run."""
    reasons = []
    for run_a, run_b in zip(a, b, strict=False):
        reasons += list_differences(run_a, run_b, RUN_KEYS)
        options_a, options_b = ((run["sets"].get(set_name) or {}).get("options", {}) for run in (run_a, run_b))
        differences = list_differences(options_a, options_b, sorted({*options_a, *options_b}))
        reasons += [f"data set: {text}" for text in differences]
    return reasons


def _differing_values(a: Side, b: Side, set_name: str, metric: str) -> str:
    values_a, values_b = a.values(set_name, metric), b.values(set_name, metric)
    if not (values_a and values_b):
        return "; the images' values are in report.csv, which is not beside both"
    in_both = values_a.keys() & values_b.keys()
    names = sorted({image for image, run in in_both if values_a[image, run] != values_b[image, run]})
    return f", but the values of {len(names)} images do: {list_some(names)}"


def _read_report(path: Path) -> dict:
    content = read_json(check_file("--compare", path))
    sections = [content.get(key) for key in ("methods", "metrics", "sets")]
    if content.get("format") != FORMAT or not all(isinstance(section, dict) for section in sections):
        raise UserError(f"{path}: is no report of this version. Name a report.json that `basicsr report` has written.")
    return content
