"""What the reports of earlier runs say about the results in a folder."""

from pathlib import Path
from typing import NamedTuple

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import read_json


class Source(NamedTuple):
    """The file that a result was made from."""

    name: str
    size: int | None  # bytes; None: the report is of an earlier version


def read_earlier(folder: Path) -> dict[Path, set[Source]]:
    """Return the sources of each result that a ``report*.json`` in ``folder`` names. Other JSON files are passed over.

    A report names results as its run was given them. Seen from another working directory they may not be found.
    """
    found: dict[Path, set[Source]] = {}
    for file in sorted(folder.glob("report*.json")):
        try:
            rows = read_json(file).get("files")
        except UserError:  # no report of ours, or a damaged one
            continue
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(row.get("output"), str) and isinstance(row.get("input"), str):
                size = row.get("input_bytes")
                source = Source(Path(row["input"]).name, size if isinstance(size, int) else None)
                found.setdefault(Path(row["output"]).resolve(), set()).add(source)
    return found
