"""Write a report in Markdown."""

import re
from collections.abc import Mapping

from dfpg_plugin.reports.report import Report
from dfpg_plugin.reports.tables import Table, missing_lines, provenance_lines, tables_of

MARKS: dict[int | None, str] = {1: "**%s**", 2: "<u>%s</u>", None: "%s"}  # by rank


def to_markdown(report: Report, pictures: Mapping[str, str]) -> str:
    """Return the report in Markdown. ``pictures``: the caption of each picture file beside the report."""
    parts = [f"# {_escape(report.title)}"]
    for test_set, tables in tables_of(report):
        parts.append(f"## {_escape(test_set.name)}: {len(test_set.images)} images of {test_set.faces} faces")
        for table in tables:
            parts += [_escape(table.caption), _markdown_table(table)]
    parts += [f"![{_escape(caption)}]({file})" for file, caption in pictures.items()]
    lines = missing_lines(report)
    parts += ["## Missing pieces", "\n".join(f"- {_escape(line)}" for line in lines) or "None."]
    parts += ["## What these numbers are", "\n".join(f"- {_escape(line)}" for line in provenance_lines(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def _markdown_table(table: Table) -> str:
    lines = [[_escape(text) for text in table.header], ["---"] * len(table.header)]
    for row, ranks in zip(table.rows, table.marks, strict=True):
        lines.append([MARKS[rank] % _escape(text) for text, rank in zip(row, ranks, strict=True)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
