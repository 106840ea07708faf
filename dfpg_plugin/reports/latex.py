"""Write a report's tables for LaTeX, in the form of the paper's tables."""

from dfpg_plugin.reports.report import Cell, Report
from dfpg_plugin.reports.statistics import LEVEL
from dfpg_plugin.reports.tables import INCOMPLETE, NONE, PERCENT, Table, format_value, tables_of, title_of

INTERVALS = f"In brackets: {LEVEL:.0%} bootstrap intervals over sharp faces."
LATEX_SPECIALS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", INCOMPLETE: r"$\dagger$", NONE: "--", "∞": r"$\infty$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip
MARKS: dict[int | None, str] = {1: r"\textbf{%s}", 2: r"\underline{%s}", None: "%s"}  # by rank


def to_latex(report: Report) -> str:
    """Return the tables for LaTeX with the package booktabs.

    The first table has all sets side by side. Then each set has one table per metric, with a column per kernel size.
    """
    parts = [r"% \usepackage{booktabs}", _overview(report)]
    for test_set, tables in tables_of(report):
        by_size = [table for table in tables[1:] if table.header[0] == "kernel"]
        parts += [_latex_table(table, f"{test_set.name}: {table.caption}. {INTERVALS}") for table in by_size]
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    return "".join(LATEX_SPECIALS.get(character, character) for character in text)


def _latex_row(texts: tuple[str, ...], ranks: tuple[int | None, ...]) -> str:
    cells = [MARKS[rank] % _escape(text) for text, rank in zip(texts, ranks, strict=True)]
    row = " & ".join(cells) + r" \\"
    # LaTeX reads a leading [ or * as an argument of the line break or the rule above; {} prevents this
    return "{}" + row if row[0] in "[*" else row


def _latex_table(table: Table, caption: str, above: str = "") -> str:
    rows = [_latex_row(row, ranks) for row, ranks in zip(table.rows, table.marks, strict=True)]
    header = _latex_row(table.header, (None,) * len(table.header))
    lines = [
        r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{l{'c' * (len(table.header) - 1)}}}", r"\toprule",
        *([above] if above else []), header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
        rf"\caption{{{_escape(caption)}}}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines)


def _overview(report: Report) -> str:
    """Return one table of means, as Tables 1 and 2 of the paper. Each set has a group of columns."""
    columns = [(cells, report.metrics[key]) for test_set in report.sets for key, cells in test_set.cells.items()]
    titles = [title_of(key, report.metrics[key]) for test_set in report.sets for key in test_set.cells]
    header = ("Method", *(title.split(" (")[0] for title in titles))
    rows, marks = [], []
    for label in report.labels:
        rows.append((label, *(_mean(cells[label], facts) for cells, facts in columns)))
        marks.append((None, *(cells[label].rank for cells, _ in columns)))
    return _latex_table(Table("", header, tuple(rows), tuple(marks)), _overview_caption(report), _set_names(report))


def _mean(cell: Cell, facts: dict) -> str:
    value = format_value(cell.mean, facts, False)
    return value if cell.is_complete or value == NONE else value + INCOMPLETE


def _set_names(report: Report) -> str:
    """Return the header's first line: each set's name above its columns, and rules below the names."""
    names, rules, first = [""], [], 2  # column 1 holds the methods
    for test_set in report.sets:
        if width := len(test_set.cells):
            names.append(rf"\multicolumn{{{width}}}{{c}}{{{_escape(test_set.name)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
            first += width
    return " & ".join(names) + r" \\" + "\n" + " ".join(rules)


def _overview_caption(report: Report) -> str:
    counts = ", ".join(f"{s.name}: {len(s.images)} images of {s.faces} faces" for s in report.sets)
    sentences = [
        f"{report.title}. {counts}. Means; the best of the methods that were restored in bold, the second underlined."
    ]
    if percent := [key for key, facts in report.metrics.items() if facts["type"] in PERCENT]:
        sentences.append(f"In percent: {', '.join(percent)}.")
    for key, facts in report.metrics.items():
        if recogniser := facts["uses"].get("recogniser"):
            sentences.append(f"{key}: {recogniser}.")
    if fewer := _incomplete_counts(report):
        sentences.append(f"{INCOMPLETE}: images are missing, so that the mean takes no rank.")
        sentences.append(f"Images counted, where fewer: {'; '.join(fewer)}.")
    return " ".join(sentences)


def _incomplete_counts(report: Report) -> list[str]:
    """Return a text such as ``S, psnr, net: 27 of 28`` for each mean that leaves out images."""
    texts = []
    for test_set in report.sets:
        for metric, cells in test_set.cells.items():
            for label, cell in cells.items():
                if 0 < cell.count < cell.expected:
                    texts.append(f"{test_set.name}, {metric}, {label}: {cell.count} of {cell.expected}")
    return texts
