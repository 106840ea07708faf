"""Restore pictures and videos, one or many, and report what became of each file."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
from dfpg_plugin.files import TakenError, whole_file
from dfpg_plugin.media.pictures import LOSSY, WITHOUT_METADATA, Picture, write_picture
from dfpg_plugin.media.reading import read_picture
from dfpg_plugin.media.video_files import is_video
from dfpg_plugin.restoration.faces import to_bgr
from dfpg_plugin.restoration.failures import ERRORS
from dfpg_plugin.restoration.inputs import Inputs, Job
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import FaceReport
from dfpg_plugin.restoration.video import restore_video

REPORT = "report"
NOT_REACHED = "not reached, because the run was interrupted"
BOX_COLOUR = (0, 255, 0)  # BGR


@dataclass
class FileReport:
    """What became of a file."""

    input: str
    input_bytes: int | None = None  # the size of the input; None: the input was not tried
    output: str | None = None
    faces: list[FaceReport] = field(default_factory=list)  # for a video: the faces of its first listed_frames frames
    frames: int | None = None  # for a video
    listed_frames: int | None = None  # for a video
    restored_faces: int = 0  # for a video: in all frames
    failed_faces: int = 0
    notes: list[str] = field(default_factory=list)  # what was converted or not kept
    error: str | None = None  # why nothing was written
    left_out: str | None = None  # why the file was not tried


@dataclass
class Totals:
    """The numbers of a summary. Each file counts once: as written, failed, left out or not reached."""

    files: int = 0
    written: int = 0
    failed: int = 0
    left_out: int = 0
    not_reached: int = 0  # before an interruption
    faces: int = 0
    failed_faces: int = 0

    def __str__(self) -> str:
        """Return the numbers as a line: ``2 faces in 2 of 12 files, 10 not reached``."""
        parts = [f"{self.faces} faces in {self.written} of {self.files} files"]
        for number, what in ((self.failed, "failed"), (self.left_out, "left out"), (self.not_reached, "not reached")):
            parts += [f"{number} {what}"] if number else []
        parts += [f"{self.failed_faces} faces left as they were"] if self.failed_faces else []
        return ", ".join(parts)


class Account:
    """Keeps the reports of all files that the user named, at any moment of a run."""

    def __init__(self, inputs: Inputs, jobs: Sequence[Job]) -> None:
        self.left_out = [FileReport(path, left_out=why) for path, why in inputs.left_out.items()]
        self.jobs = jobs
        self.done: list[FileReport] = []

    @property
    def files(self) -> list[FileReport]:
        """Return a report of every file. A folder that is left out as a whole has one report, for ``folder/``."""
        missing = self.jobs[len(self.done) :]
        return [*self.done, *(FileReport(str(job.input), left_out=NOT_REACHED) for job in missing), *self.left_out]

    @property
    def totals(self) -> Totals:
        """Return the numbers of :attr:`files`, without whole folders."""
        files = [file for file in self.files if not file.input.endswith("/")]
        not_reached = len(self.jobs) - len(self.done)
        return Totals(
            files=len(files),
            written=sum(file.output is not None for file in files),
            failed=sum(file.error is not None for file in files),
            left_out=sum(file.left_out is not None for file in files) - not_reached,
            not_reached=not_reached,
            faces=sum(file.restored_faces for file in files),
            failed_faces=sum(file.failed_faces for file in files),
        )


def restore_files(restorer: DFPGRestorer, jobs: Sequence[Job]) -> Iterator[FileReport]:
    """Restore each file, write the result and yield a report.

    A file that can't be read or written gets a report with an error. Then the next file follows. Raises
    torch.OutOfMemoryError if the memory does not suffice for a single face.
    """
    for job in tqdm(jobs, unit="file", disable=len(jobs) < 2):
        report = FileReport(str(job.input))
        if job.is_renamed:
            report.notes.append(f"is written as {job.output.name}: another file's result has the shorter name")
        report.notes += [f"{flag} has no effect on a film" for flag in job.idle_flags]
        try:
            report.input_bytes = job.input.stat().st_size
            make_folder("-o", job.output.parent)
            if is_video(job.input):
                film = restore_video(restorer, job.input, job.output, job.may_replace)
                report.frames, report.listed_frames, report.faces = film.frames, film.listed_frames, film.faces
                report.restored_faces, report.failed_faces = film.restored_faces, film.failed_faces
                report.notes += film.notes
            else:
                _restore_picture(restorer, job, report)
            report.output = str(job.output)
        except torch.OutOfMemoryError:
            raise
        except ERRORS as error:
            names_file = isinstance(error, UserError)
            report.error = str(error) if names_file else f"{job.input}: {type(error).__name__}: {error}"
        yield report


def write_report(folder: Path, restorer: DFPGRestorer, account: Account, overwrite: bool) -> Path:
    """Write the reports of all files as JSON; return the path of the written file.

    The path is ``report.json``. An earlier report is kept unless ``overwrite``: the path is then ``report_2.json``.
    """
    make_folder("-o", folder)
    names = chain([REPORT], (f"{REPORT}_{i}" for i in count(2)))
    files = (folder / f"{name}.json" for name in names)
    content = {
        "version": __version__,
        "device": str(restorer.device),
        "settings": asdict(restorer.settings),
        "network": restorer.about,
        "totals": asdict(account.totals),
        "files": [asdict(report) for report in account.files],
    }
    while True:
        file = next(file for file in files if overwrite or not file.exists())
        with suppress(TakenError):  # another run has just written a report
            with whole_file(file, replace=overwrite) as opened:
                opened.write(f"{json.dumps(content, indent=1)}\n".encode())
            return file


def _restore_picture(restorer: DFPGRestorer, job: Job, report: FileReport) -> None:
    picture = read_picture(job.input)
    restored = restorer.restore_picture(picture)
    report.faces = restored.faces
    report.failed_faces = sum(face.error is not None for face in restored.faces)
    report.restored_faces = len(restored.faces) - report.failed_faces
    report.notes += picture.notes
    if not restored.faces:
        report.notes.append("no face was found, so nothing was changed")
    suffix = job.output.suffix.lower()
    if suffix in LOSSY:
        report.notes.append(f"{suffix} is lossy: pixels outside the faces change a little as well")
    if suffix in WITHOUT_METADATA and picture.metadata:
        report.notes.append(f"{suffix} is written without colour profile and EXIF: --ext png keeps them")
    made = {job.output: restored.picture}
    if job.side_by_side is not None:
        made[job.side_by_side] = Picture(_side_by_side(picture, restored.picture, restored.faces))
    for path, result in made.items():
        if path not in job.kept:
            write_picture(path, result, job.may_replace)


def _side_by_side(before: Picture, after: Picture, faces: Sequence[FaceReport]) -> NDArray[np.uint8]:
    """Return both pictures, upright, as one uint8 BGR picture. The faces' boxes are drawn into ``before``."""
    left_half, right_half = to_bgr(before.colours()), to_bgr(after.colours())
    width = max(1, round(max(left_half.shape) / 500))
    for face in faces:
        left, top, right, bottom = (round(v) for v in face.box)
        cv2.rectangle(left_half, (left, top), (right, bottom), BOX_COLOUR, width)
    return np.concatenate([left_half, right_half], axis=1)
