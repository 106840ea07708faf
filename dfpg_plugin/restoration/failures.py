"""Faces that can't be restored: they stay as they are, and their reports say why."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import torch

from dfpg_plugin.checks import UserError
from dfpg_plugin.restoration.settings import ALIGNED, FaceReport

ERRORS = (ValueError, RuntimeError, ArithmeticError, MemoryError, cv2.error)  # a face with one of these stays as it is


@contextmanager
def noting(report: FaceReport) -> Iterator[None]:
    """Note an error in a face's report. Out of memory is raised, because every face of this size needs as much."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except ERRORS as error:
        report.error = str(error)


def tell_failures(faces: Sequence[FaceReport], mode: str) -> None:
    """Warn of each face that failed. Raise UserError in mode ``aligned``, where the face is the whole picture."""
    for face in faces:
        if face.error is not None and mode == ALIGNED:
            raise UserError(f"image: can't be restored: {face.error}")
        if face.error is not None:
            box = ", ".join(f"{side:.0f}" for side in face.box)
            warnings.warn(f"The face at {box} px is left as it was: {face.error}", stacklevel=4)
