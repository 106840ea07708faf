"""The files in ``results/<name>/``: an evaluation writes them image by image, and a report reads them.

``evaluation.json`` says what was measured and how; see :mod:`dfpg_plugin.evaluation.manifest`. ``<set>.jsonl`` has
one line for each image of a test set. Images are measured in chunks. All lines of a chunk are written at once. A chunk
with missing lines is measured again.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.files import read_json, whole_file, write_errors_explained

MANIFEST = "evaluation.json"
FORMAT = 1  # of both files
SECTIONS = ("software", "machine", "method", "metrics", "sets")  # keys of the manifest whose values are dictionaries


class PairDistance(NamedTuple):
    """How far an image is from one photograph; in a file, a list such as ``["ann_2.png", 0.31, true, 0]``."""

    photograph: str
    distance: float | None  # squared, between embeddings; None if the pair does not count
    is_same: bool  # whether both pictures show one person
    place: int  # among the pairs of all images; the published folds need the order


@dataclass(frozen=True)
class Record:
    """One image of a test set."""

    index: int  # in the set
    name: str  # stem of the blurred face's file
    gt: str  # path of the sharp face below the folder of all sharp faces; blurred faces may share one; "": none
    size: int | None  # of the blur kernel in px; None if the name does not say
    pixels: str  # digest of the pixels of the blurred and the sharp face
    values: dict[str, float | None] = field(default_factory=dict)  # by metric; None: no value
    pairs: dict[str, list[PairDistance]] = field(default_factory=dict)  # by verification metric
    problem: str | None = None  # why the image was not measured
    lq_path: str = ""  # of the blurred face's file; "" if there is no file
    gt_path: str = ""  # of the sharp face's file; "" if there is no file
    picture: str | None = None  # path of the saved image below the results folder; None: not saved


@dataclass(frozen=True)
class Run:
    """The content of one evaluation's results folder."""

    folder: Path
    manifest: dict
    sets: dict[str, list[Record]]  # by set, in the manifest's order; records are sorted by name


def append_chunk(path: Path, chunk: int, records: Sequence[Record]) -> None:
    """Append one chunk's lines with a single write. A kill then cuts off at most the last chunk.

    Raises UserError, naming the file, if the lines can't be written, or not all of them.
    """
    lines = _lines(chunk, records)
    with write_errors_explained(path, "run the test again"), open(path, "ab", buffering=0) as file:
        if file.write(lines) < len(lines):  # how a disk says that it has become full
            raise OSError("no space is left on the disk")


def read_chunks(path: Path) -> Iterator[tuple[int, list[Record]]]:
    """Yield the number and the records of each whole chunk in a set's file.

    A chunk that a kill cut off is skipped. A missing file has no chunks.
    """
    if not path.exists():
        return
    chunk, left = -1, 0
    records: list[Record] = []
    with path.open("rb") as file:
        for line in file:
            try:
                content = json.loads(line)
                record = _from_json(content)
            except (ValueError, KeyError, TypeError):  # a kill cut the line off
                chunk = -1
                continue
            if content["chunk"] != chunk:
                chunk, left, records = content["chunk"], content["of"], []
            records.append(record)
            left -= 1
            if left == 0:
                yield chunk, records


def keep_whole_chunks(path: Path) -> set[int]:
    """Remove chunks that a kill cut off from a set's file. Return the numbers of the chunks that stay."""
    done = set()
    with whole_file(path) as file:
        for chunk, records in read_chunks(path):
            file.write(_lines(chunk, records))
            done.add(chunk)
    return done


def set_file(folder: Path, name: str) -> Path:
    """Return the path of a test set's records: ``<folder>/<name>.jsonl``."""
    return folder / f"{name.replace(os.sep, '_')}.jsonl"


def read_run(folder: str | Path) -> Run:
    """Read a results folder. Raises UserError, naming the folder, if the folder has no finished evaluation."""
    path = check_folder("results", folder)
    if not (path / MANIFEST).is_file():
        raise UserError(f"{path}: holds no {MANIFEST}. Run `basicsr test` for it, or name another folder.")
    manifest = read_json(path / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise UserError(f"{path / MANIFEST}: is of format {manifest.get('format')}, not {FORMAT}. Run the test again.")
    if damaged := [key for key in SECTIONS if not isinstance(manifest.get(key), dict)]:
        raise UserError(f"{path / MANIFEST}: is damaged ({', '.join(damaged)}). Run the test again.")
    sets = {}
    for name, facts in manifest["sets"].items():
        records = [record for _, chunk in read_chunks(set_file(path, name)) for record in chunk]
        if len(records) != facts["count"]:
            why = "The test was stopped" if manifest.get("finished") is None else "Records were lost"
            raise UserError(
                f"{path}: {len(records)} of {facts['count']} images of {name} are measured. {why}. Run the test "
                f"again: {manifest.get('command')}"
            )
        sets[name] = sorted(records, key=lambda record: record.name)
    return Run(path, manifest, sets)


def _lines(chunk: int, records: Sequence[Record]) -> bytes:
    lines = [json.dumps({"chunk": chunk, "of": len(records), **_to_json(record)}) for record in records]
    return "".join(f"{line}\n" for line in lines).encode()


def _to_json(record: Record) -> dict:
    return {**asdict(record), "values": {key: _value_to_json(value) for key, value in record.values.items()}}


def _value_to_json(value: float | None) -> float | str | None:
    """Return a value that JSON has: None for NaN, text such as ``"inf"`` for an infinite value."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _from_json(content: dict) -> Record:
    facts = {f.name: content[f.name] for f in fields(Record)}
    facts["values"] = {key: float(v) if isinstance(v, str) else v for key, v in content["values"].items()}
    facts["pairs"] = {key: [PairDistance(*pair) for pair in pairs] for key, pairs in content["pairs"].items()}
    return Record(**facts)
