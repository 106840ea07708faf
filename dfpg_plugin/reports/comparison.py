"""``basicsr report --compare``: why two reports' numbers differ."""

import csv
from collections.abc import Iterator
from pathlib import Path

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.data.naming import list_some
from dfpg_plugin.files import read_json
from dfpg_plugin.reports.methods import IDENTICAL, differing
from dfpg_plugin.reports.report import FORMAT

OF_RUN = ("method", "batch_size", "machine", "commit", "software")  # of its manifest, most telling first


def compare_reports(first: Path, second: Path) -> list[str]:
    """Return lines: each number that both reports have, and where they differ every recorded reason for it.

    Methods are compared by label; where each report has only one, these two. Raises UserError for a file that is no
    report, and where there is nothing to compare.
    """
    a, b = (_read(path) for path in (first, second))
    pairs = [(label, label) for label in a["methods"] if label in b["methods"]]
    if len(a["methods"]) == len(b["methods"]) == 1:
        pairs = [(next(iter(a["methods"])), next(iter(b["methods"])))]
    lines: list[str] = []
    for name in a["sets"]:
        if name in b["sets"]:
            for labels in pairs:
                lines += _compare_set(a, b, name, labels, (first, second))
    if not lines:
        raise UserError(f"{first} and {second}: have no method, set and metric in common.")
    alone = len(a["methods"]) == len(b["methods"]) == 1
    for what in ("sets", "metrics") if alone else ("sets", "metrics", "methods"):
        for path, mine, theirs in ((first, a, b), (second, b, a)):
            if only := sorted(mine[what].keys() - theirs[what].keys()):
                lines.append(f"only in {path}: {what} {', '.join(only)}")
    return lines


def _compare_set(a: dict, b: dict, name: str, labels: tuple[str, str], paths: tuple[Path, Path]) -> Iterator[str]:
    sets = a["sets"][name], b["sets"][name]
    for metric, cells in sets[0]["cells"].items():
        if metric not in sets[1]["cells"] or labels[0] not in cells or labels[1] not in sets[1]["cells"][metric]:
            continue
        one, two = cells[labels[0]], sets[1]["cells"][metric][labels[1]]
        what = labels[0] if labels[0] == labels[1] else " / ".join(labels)
        means = f"{name}, {metric}, {what}: {one['mean']} / {two['mean']}"
        if one["mean"] == two["mean"]:
            yield f"{means}: {'the same' if one['mean'] is not None else 'no value in either'}"
            continue
        yield f"{means}: differ"
        reasons = _reasons(a, b, name, metric, labels)
        yield from (f"  {reason}" for reason in reasons)
        if not reasons:
            yield f"  nothing that was recorded differs{_differing_values(paths, name, metric, labels)}"


def _reasons(a: dict, b: dict, name: str, metric: str, labels: tuple[str, str]) -> list[str]:
    reasons = [f"{metric}: {text}" for text in differing(a["metrics"][metric], b["metrics"][metric], IDENTICAL)]
    images, others = a["sets"][name]["images"], b["sets"][name]["images"]
    for text, names in (
        ("images only in the first", images.keys() - others.keys()),
        ("images only in the second", others.keys() - images.keys()),
        ("images with other pixels", {key for key in images.keys() & others.keys() if images[key] != others[key]}),
    ):
        if names:
            reasons.append(f"{text} ({len(names)}): {list_some(sorted(names))}")
    counts = [r["sets"][name]["cells"][metric][label]["count"] for r, label in zip((a, b), labels, strict=True)]
    if counts[0] != counts[1]:
        reasons.append(f"images measured: {counts[0]} / {counts[1]}")
    lacking = [_lacking(r, name, metric, label) for r, label in zip((a, b), labels, strict=True)]
    if lacking[0] != lacking[1]:
        reasons.append(f"missing: {' / '.join(lacking)}")
    runs, other_runs = a["methods"][labels[0]], b["methods"][labels[1]]
    if len(runs) != len(other_runs):
        reasons.append(f"runs: {len(runs)} / {len(other_runs)}")
    for run, other in zip(runs, other_runs, strict=False):
        reasons += differing(run, other, OF_RUN)
        one, two = ((r["sets"].get(name) or {}).get("options", {}) for r in (run, other))
        reasons += [f"data set: {text}" for text in differing(one, two, sorted({*one, *two}))]
    return list(dict.fromkeys(reasons))


def _lacking(report: dict, name: str, metric: str, label: str) -> str:
    found = [
        f"{m['reason']} ({len(m['images'])}: {list_some(m['images'])})"
        for m in report["missing"]
        if m["set"] == name and m["metric"] in (metric, None) and m["method"] in (label, None)
    ]
    return "; ".join(found) or "nothing"


def _differing_values(paths: tuple[Path, Path], name: str, metric: str, labels: tuple[str, str]) -> str:
    tables = [_values(p.with_suffix(".csv"), name, metric, label) for p, label in zip(paths, labels, strict=True)]
    if not all(tables):
        return "; the images' values are in report.csv, which is not beside both"
    both = tables[0].keys() & tables[1].keys()
    names = sorted({image for image, run in both if tables[0][image, run] != tables[1][image, run]})
    return f", but the values of {len(names)} images do: {list_some(names)}"


def _values(path: Path, name: str, metric: str, label: str) -> dict[tuple[str, str], str]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == name and row["method"] == label]
    return {(row["image"], row["run"]): row.get(metric, "") for row in rows}


def _read(path: Path) -> dict:
    content = read_json(check_file("--compare", path))
    sections = [content.get(key) for key in ("methods", "metrics", "sets")]
    if content.get("format") != FORMAT or not all(isinstance(section, dict) for section in sections):
        raise UserError(f"{path}: is no report of this version. Name a report.json that `basicsr report` has written.")
    return content
