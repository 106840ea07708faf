"""What an evaluation writes, image by image, and what a report reads: ``results/<name>/``.

``evaluation.json`` says what was measured and how (:mod:`dfpg_plugin.evaluation.manifest`); ``<set>.jsonl`` holds a
line for each image of a test set. Images are measured in chunks; a chunk is written at once, and one that is not whole
is measured again.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.files import read_json, whole_file

MANIFEST = "evaluation.json"
FORMAT = 1  # of both files
SECTIONS = ("software", "machine", "method", "metrics", "sets")  # of the manifest that hold options

# a photograph, squared distance of the embeddings (None unless both show exactly one face), whether one person's, and
# the place among the pairs of all images, which counts for folds in the published order
PairDistance = tuple[str, float | None, bool, int]


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
    with open(path, "ab", buffering=0) as file:
        file.write(_lines(chunk, records))


def read_chunks(path: Path) -> Iterator[tuple[int, list[Record]]]:
    """Yield the whole chunks of a set's file, one after the other; none where there is no file.

    What a kill cut off is left out.
    """
    if not path.exists():
        return
    chunk, left = -1, 0
    records: list[Record] = []
    with path.open("rb") as file:
        for line in file:
            try:
                content = json.loads(line)
                record = _record(content)
            except (ValueError, KeyError, TypeError):  # half a line
                chunk = -1
                continue
            if content["chunk"] != chunk:
                chunk, left, records = content["chunk"], content["of"], []
            records.append(record)
            left -= 1
            if left == 0:
                yield chunk, records


def keep_whole_chunks(path: Path) -> set[int]:
    """Rewrite a set's file without what a kill cut off, before more is appended; return the numbers of its chunks."""
    done = set()
    with whole_file(path) as file:
        for chunk, records in read_chunks(path):
            file.write(_lines(chunk, records))
            done.add(chunk)
    return done


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
    if damaged := [key for key in SECTIONS if not isinstance(manifest.get(key), dict)]:
        raise UserError(f"{path / MANIFEST}: is damaged ({', '.join(damaged)}). Run the test again.")
    sets = {}
    for name, facts in manifest["sets"].items():
        records = [record for _, chunk in read_chunks(set_file(path, name)) for record in chunk]
        if len(records) != facts["count"]:
            what = "which goes on where it stopped" if manifest.get("finished") is None else "for some were lost"
            raise UserError(
                f"{path}: {len(records)} of {facts['count']} images of {name} are measured. Run its test again, "
                f"{what}: {manifest.get('command')}"
            )
        sets[name] = sorted(records, key=lambda record: record.name)
    return Run(path, manifest, sets)


def _lines(chunk: int, records: Sequence[Record]) -> bytes:
    lines = [json.dumps({"chunk": chunk, "of": len(records), **_plain(record)}) for record in records]
    return "".join(f"{line}\n" for line in lines).encode()


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
    pairs: dict[str, list[PairDistance]] = {
        key: [(p, d, s, n) for p, d, s, n in v] for key, v in content["pairs"].items()
    }
    others = {f.name: content[f.name] for f in fields(Record) if f.name not in ("values", "pairs")}
    return Record(**others, values=values, pairs=pairs)
