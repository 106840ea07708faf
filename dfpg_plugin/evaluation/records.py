"""What an evaluation writes, image by image, and what a report reads: ``results/<name>/``.

``evaluation.json`` says what was measured and how (:mod:`dfpg_plugin.evaluation.manifest`); ``<set>.jsonl`` holds a
line for each image of a test set. Images are measured in chunks; a chunk is written at once, and one that is not whole
is measured again.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.files import read_json, whole_file

MANIFEST = "evaluation.json"
FORMAT = 1  # of both files

# a photograph, squared distance of the embeddings (None unless both show exactly one face), whether one person's
PairDistance = tuple[str, float | None, bool]


@dataclass(frozen=True)
class Record:
    """One image of a test set."""

    index: int  # in the set
    name: str  # stem of the blurred face's file
    gt: str  # the sharp face's path below the folder of all, which several blurred ones share; empty without one
    size: int | None  # px of the blur kernel, where the name tells
    pixels: str  # digest of the blurred and of the sharp face's pixels
    values: dict[str, float | None] = field(default_factory=dict)  # of each metric; None where it has no value
    pairs: dict[str, list[PairDistance]] = field(default_factory=dict)  # of each verification metric
    problem: str | None = None  # why the image was not measured
    lq_path: str = ""  # of the blurred face, where it is a file
    gt_path: str = ""  # of the sharp face
    picture: str | None = None  # of the measured image, where it was saved: a path below the results folder


@dataclass(frozen=True)
class Run:
    """The results folder of one evaluation, read back."""

    folder: Path
    manifest: dict
    sets: dict[str, list[Record]]  # by the set's name, in the order of the manifest; sorted by image name


def append_chunk(path: Path, chunk: int, records: Sequence[Record]) -> None:
    """Append one chunk's lines with a single write, so that a kill leaves whole chunks and at most one broken line."""
    lines = [json.dumps({"chunk": chunk, "of": len(records), **_plain(record)}) for record in records]
    with open(path, "ab", buffering=0) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def read_chunks(path: Path) -> dict[int, list[Record]]:
    """Return the whole chunks of a set's file; none where there is no file. What a kill cut off is left out."""
    found: dict[int, dict[int, Record]] = {}
    wanted: dict[int, int] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            content = json.loads(line)
            chunk, wanted[chunk] = content["chunk"], content["of"]
            record = _record(content)
        except (ValueError, KeyError, TypeError):  # half a line, or a line after it
            continue
        found.setdefault(chunk, {})[record.index] = record
    return {chunk: list(records.values()) for chunk, records in found.items() if len(records) == wanted[chunk]}


def keep_chunks(path: Path, chunks: dict[int, list[Record]]) -> None:
    """Rewrite a set's file with these chunks alone, before others are appended."""
    with whole_file(path) as file:
        for chunk, records in chunks.items():
            for record in records:
                file.write(f"{json.dumps({'chunk': chunk, 'of': len(records), **_plain(record)})}\n".encode())


def set_file(folder: Path, name: str) -> Path:
    """Return the path of a test set's records."""
    return folder / f"{name.replace(os.sep, '_')}.jsonl"


def read_run(folder: str | Path) -> Run:
    """Read a results folder. Raises UserError, naming it, where it holds no finished evaluation."""
    path = check_folder("results", folder)
    if not (path / MANIFEST).is_file():
        raise UserError(f"{path}: holds no {MANIFEST}. Run `basicsr test` for it, or name another folder.")
    manifest = read_json(path / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise UserError(f"{path / MANIFEST}: is of format {manifest.get('format')}, not {FORMAT}. Run the test again.")
    sets = {}
    for name, facts in manifest["sets"].items():
        records = [record for chunk in read_chunks(set_file(path, name)).values() for record in chunk]
        if len(records) != facts["count"]:
            raise UserError(
                f"{path}: {len(records)} of {facts['count']} images of {name} are measured. Run its test again, which "
                f"goes on where it stopped: {manifest.get('command')}"
            )
        sets[name] = sorted(records, key=lambda record: record.name)
    return Run(path, manifest, sets)


def mean_of(values: Iterable[float | None]) -> float:
    """Return the mean of the values that are there; NaN where none is."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else math.nan


def _plain(record: Record) -> dict:
    content = asdict(record)
    content["values"] = {key: _finite(value) for key, value in record.values.items()}
    return content


def _finite(value: float | None) -> float | str | None:
    """Return what JSON can hold: NaN has no value, an infinite PSNR is one."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _record(content: dict) -> Record:
    values = {key: float(value) if isinstance(value, str) else value for key, value in content["values"].items()}
    pairs: dict[str, list[PairDistance]] = {key: [(p, d, s) for p, d, s in v] for key, v in content["pairs"].items()}
    others = {f.name: content[f.name] for f in fields(Record) if f.name not in ("values", "pairs")}
    return Record(**others, values=values, pairs=pairs)
