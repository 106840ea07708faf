"""Restore files: pictures and videos, one or many, and account for each."""

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dfpg_plugin import __version__
from dfpg_plugin.checks import UserError, make_folder
from dfpg_plugin.data.images import list_images
from dfpg_plugin.files import whole_file
from dfpg_plugin.restoration.pictures import LOSSLESS, LOSSY, Picture, read_picture, write_picture
from dfpg_plugin.restoration.restorer import ERRORS, DFPGRestorer
from dfpg_plugin.restoration.settings import FaceReport
from dfpg_plugin.restoration.video import restore_video
from dfpg_plugin.restoration.video_files import is_companion, is_video, suffix_of_result

REPORT = "report"
LINE = (0, 255, 0)  # of a box, BGR


@dataclass
class FileReport:
    """What became of a file."""

    input: str
    output: str | None = None
    faces: list[FaceReport] = field(default_factory=list)
    frames: int | None = None  # of a video
    failed_faces: int = 0
    notes: list[str] = field(default_factory=list)
    error: str | None = None  # why nothing was written


@dataclass
class Totals:
    """What a summary says."""

    files: int = 0
    written: int = 0
    faces: int = 0
    failed: int = 0  # faces and files

    def add(self, report: FileReport) -> None:
        """Count a file."""
        self.files += 1
        self.written += report.output is not None
        self.faces += sum(face.error is None for face in report.faces)
        self.failed += report.failed_faces + (report.error is not None)


def find_inputs(given: Sequence[str]) -> list[tuple[Path, Path]]:
    """Return (file, path below the output folder) of files, folders (in depth) and patterns. Raises UserError."""
    found: list[tuple[Path, Path]] = []
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            found += [(path / name, Path(name)) for name in [*_names(path)]]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
            if not matches:
                raise UserError(f"{text}: no such file or folder, and no file matches it as a pattern.")
            found += [(match, Path(match.name)) for match in matches]
    return found


def plan_outputs(
    inputs: Sequence[tuple[Path, Path]], folder: Path, suffix: str | None, overwrite: bool, side_by_side: bool = False
) -> list[tuple[Path, Path]]:
    """Return (file, where to write it), having looked at all before any is written.

    JPEGs become PNGs unless ``suffix`` says otherwise: a JPEG's pixels outside the faces would change when it is
    written once more. Raises UserError for what would be written over, an input above all.
    """
    planned = []
    taken: dict[Path, Path] = {}
    sources = {path.resolve() for path, _ in inputs}
    for path, below in inputs:
        output = folder / below.with_suffix(_suffix(path, suffix))
        both = [_both(output)] if side_by_side and not is_video(path) else []
        for written in (output, *both):
            real = written.resolve()
            if real in sources:
                raise UserError(f"{written} is an input itself. Choose another folder with -o.")
            if real in taken:
                raise UserError(
                    f"{path} and {taken[real]} would both be written to {written}. Restore them one by one."
                )
            if written.exists() and not overwrite:
                raise UserError(f"{written} is there already. Choose another folder with -o, or allow it: --overwrite.")
            taken[real] = path
        planned.append((path, output))
    return planned


def restore_files(
    restorer: DFPGRestorer, planned: Sequence[tuple[Path, Path]], side_by_side: bool = False
) -> Iterator[FileReport]:
    """Restore every file, and yield what became of it; one that can't be read or written leaves the others alone."""
    for path, output in tqdm(planned, unit="file", disable=len(planned) < 2):
        report = FileReport(str(path))
        if is_companion(path):
            report.notes.append("left out: it is no film or picture, but what macOS notes beside one")
            yield report
            continue
        try:
            make_folder("-o", output.parent)
            if is_video(path):
                film = restore_video(restorer, path, output)
                report.frames, report.faces, report.failed_faces = film.frames, film.faces, film.failed_faces
                report.notes += film.notes
            else:
                _restore_picture(restorer, path, output, report, side_by_side)
            report.output = str(output)
        except torch.OutOfMemoryError:
            raise
        except ERRORS as error:
            report.error = str(error) if isinstance(error, UserError) else f"{path}: {type(error).__name__}: {error}"
        yield report


def write_report(folder: Path, restorer: DFPGRestorer, reports: Sequence[FileReport], overwrite: bool) -> Path:
    """Write what was done as JSON, beside the reports of earlier runs unless ``overwrite``; return the file."""
    names = chain([REPORT], (f"{REPORT}_{i}" for i in count(2)))
    files = (folder / f"{name}.json" for name in names)
    file = next(file for file in files if overwrite or not file.exists())
    content = {
        "version": __version__,
        "device": str(restorer.device),
        "settings": asdict(restorer.settings),
        "network": restorer.about,
        "files": [asdict(report) for report in reports],
    }
    with whole_file(file) as opened:
        opened.write(f"{json.dumps(content, indent=1)}\n".encode())
    return file


def _restore_picture(restorer: DFPGRestorer, path: Path, output: Path, report: FileReport, side_by_side: bool) -> None:
    picture = read_picture(path)
    restored = restorer.restore_picture(picture)
    report.faces = restored.faces
    report.failed_faces = sum(face.error is not None for face in restored.faces)
    if not restored.faces:
        report.notes.append("no face was found, so that nothing was changed")
    if output.suffix.lower() in LOSSY:
        report.notes.append(f"{output.suffix} is lossy: pixels outside the faces change a little as well")
    write_picture(output, restored.picture)
    if side_by_side:
        write_picture(_both(output), Picture(_side_by_side(picture, restored.picture, restored.faces)))


def _side_by_side(before: Picture, after: Picture, faces: Sequence[FaceReport]) -> NDArray[np.uint8]:
    """Return both, upright, as uint8 BGR, the faces' boxes drawn into the first."""
    images = [np.rint(255 * p.colours()[..., ::-1]).astype(np.uint8).copy() for p in (before, after)]
    width = max(1, round(max(images[0].shape) / 500))
    for face in faces:
        left, top, right, bottom = (round(v) for v in face.box)
        cv2.rectangle(images[0], (left, top), (right, bottom), LINE, width)
    return np.concatenate(images, axis=1)


def _both(output: Path) -> Path:
    return output.with_name(f"{output.stem}_side_by_side.png")


def _names(folder: Path) -> list[str]:
    videos = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and is_video(p)]
    try:
        return [*list_images(folder), *sorted(videos)]
    except UserError:
        if not videos:
            raise UserError(f"no image and no video in {folder}.") from None
        return sorted(videos)


def _suffix(path: Path, wanted: str | None) -> str:
    suffix = path.suffix.lower()
    if is_video(path):
        return suffix_of_result(path)
    if wanted is not None:
        return wanted
    return suffix if suffix in LOSSLESS else ".png"
