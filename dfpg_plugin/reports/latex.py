"""A report's tables for LaTeX, in the form of the paper's."""

from dfpg_plugin.reports.report import Report, SetReport
from dfpg_plugin.reports.statistics import LEVEL
from dfpg_plugin.reports.tables import INCOMPLETE, NONE, PERCENT, Table, format_value, tables_of, title_of

INTERVALS = f"In brackets: {LEVEL:.0%} bootstrap intervals over sharp faces."
LATEX_SPECIALS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", INCOMPLETE: r"$\dagger$", NONE: "--", "∞": r"$\infty$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def to_latex(report: Report) -> str:
    """Return the tables for LaTeX with the package booktabs: all sets side by side, then each by kernel size."""
    parts = [r"% \usepackage{booktabs}", _latex_overview(report)]
    for test_set, tables in tables_of(report):
        sized = [table for table in tables[1:] if table.header[0] == "kernel"]
        parts += [_latex_table(table, f"{test_set.name}: {table.caption}. {INTERVALS}") for table in sized]
    return "\n\n".join(parts) + "\n"


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIALS.get(character, character) for character in text)


def _latex_row(texts: tuple[str, ...], ranks: tuple[int | None, ...]) -> str:
    marks: dict[int | None, str] = {1: r"\textbf{%s}", 2: r"\underline{%s}", None: "%s"}
    row = " & ".join(marks[rank] % _latex(text) for text, rank in zip(texts, ranks, strict=True)) + r" \\"
    return "{}" + row if row[0] in "[*" else row  # else an argument of the line break or the rule before it


def _latex_table(table: Table, caption: str, above: str = "") -> str:
    rows = [_latex_row(row, ranks) for row, ranks in zip(table.rows, table.marks, strict=True)]
    header = _latex_row(table.header, (None,) * len(table.header))
    lines = [
        r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{l{'c' * (len(table.header) - 1)}}}", r"\toprule",
        *([above] if above else []), header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
        rf"\caption{{{_latex(caption)}}}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines)


def _fewer_images(test_set: SetReport) -> list[str]:
    return [
        f"{test_set.name}, {metric}, {label}: {cell.count} of {cell.expected}"
        for metric, cells in test_set.cells.items()
        for label, cell in cells.items()
        if 0 < cell.count < cell.expected
    ]


def _latex_overview(report: Report) -> str:
    """Return one table with a group of columns for each set, as Tables 1 and 2 of the paper; means alone."""
    header, groups, rules, first = ["Method"], [""], [], 2
    rows: dict[str, list[str]] = {label: [label] for label in report.labels}
    marks: dict[str, list[int | None]] = {label: [None] for label in report.labels}
    for test_set in report.sets:
        width = len(test_set.cells)
        if not width:
            continue
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex(test_set.name)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
        for metric, cells in test_set.cells.items():
            facts = report.metrics[metric]
            header.append(title_of(metric, facts).split(" (")[0])
            for label in report.labels:
                cell = cells[label]
                value = format_value(cell.mean, facts, False)
                rows[label].append(value if cell.is_complete or value == NONE else value + INCOMPLETE)
                marks[label].append(cell.rank)
    above = " & ".join(groups) + r" \\" + "\n" + " ".join(rules)
    counts = ", ".join(f"{s.name}: {len(s.images)} images of {s.faces} faces" for s in report.sets)
    caption = (
        f"{report.title}. {counts}. Means; the best of the methods that were restored in bold, the second underlined."
    )
    percent = [key for key, facts in report.metrics.items() if facts["type"] in PERCENT]
    caption += f" In percent: {', '.join(percent)}." if percent else ""
    for key, facts in report.metrics.items():
        if recogniser := facts["uses"].get("recogniser"):
            caption += f" {key}: {recogniser}."
    if fewer := [text for test_set in report.sets for text in _fewer_images(test_set)]:
        caption += f" {INCOMPLETE}: images are missing, so that the mean takes no rank. Images counted, where fewer: "
        caption += f"{'; '.join(fewer)}."
    body = Table("", tuple(header), tuple(map(tuple, rows.values())), tuple(map(tuple, marks.values())))
    return _latex_table(body, caption, above)
