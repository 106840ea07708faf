"""Cut training faces out of photographs: the square that the restorer gives a network, with a margin."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.data.images import Image
from dfpg_plugin.media.reading import decode_picture
from dfpg_plugin.restoration.detectors import check_detector, load_detector
from dfpg_plugin.restoration.faces import TEMPLATE, Colours, Face, crop, scale_of, to_bgr

# The face of a detector is doubtful below this score. On 150 of LFW's pictures, dlib gives 99 % of the faces more than
# 0.28. dlib mostly gives less to a patch that is no face, such as one of the astronaut's suit.
DOUBTFUL = {"dlib": 0.3, "facexlib": 0.9}
# The greatest distance of a landmark from its place, as a share of the square's side. On the 150 pictures: 0.094.
MOST_MISFIT = 0.12
MOST_OUTSIDE = 0.1  # the greatest share of the square's area that may lie outside the photograph


@dataclass(frozen=True)
class FaceCutter:
    """Cuts the faces out of a photograph. Leaves out faces that are doubtful, too small or cut off.

    The restorer's square is FFHQ's alignment, by five landmarks. The restorer's square, of ``inner`` px, is the middle
    of the returned face, of ``size`` px. Pixels outside the photograph are the photograph's reflection.
    """

    size: int  # px, side of a returned face
    inner: int  # px, side of the restorer's square in the middle of a returned face
    detector: str = "dlib"  # or facexlib
    detector_weights: str | None = None  # folder of facexlib's file; default: where facexlib keeps the file
    min_side: float = 128  # px of the photograph, the least side of the restorer's square
    min_score: float | None = None  # the detector's least score; default: 0.3 for dlib, 0.9 for facexlib

    def __post_init__(self) -> None:
        """Raise UserError for a detector other than dlib or facexlib, and for ``detector_weights`` without facexlib."""
        check_choice("detector", self.detector, DOUBTFUL)
        check_detector(self.detector, self.detector_weights)

    def __call__(self, content: bytes, name: str) -> tuple[list[Image], list[str]]:
        """Return the faces, uint8 BGR (size,size,3), the surest face first, and why other faces were left out.

        ``content`` is a photograph's file. EXIF's orientation is applied. A photograph that can't be read or holds no
        face gives one reason. Reasons do not repeat ``name``. Raises UserError if the detector is not installed.
        """
        detector = load_detector(self.detector, self.detector_weights)
        try:
            photograph = decode_picture(content, name).colours()
        except UserError as error:
            return [], [str(error).removeprefix(f"{name}: ")]
        faces, reasons = [], []
        for face in detector.find(photograph, min(self._least_score(), detector.threshold)):
            try:
                faces.append(self._cut(photograph, face))
            except UserError as error:
                reasons.append(f"face at {_middle(face)}: {error}")
        return faces, reasons if faces or reasons else ["no face found"]

    def _cut(self, photograph: Colours, face: Face) -> Image:
        """Return a face. Raise UserError, with the reason, for a face that has to be left out."""
        matrix = face.to_square(self.inner)
        self._check(photograph, face, matrix)
        matrix[:, 2] += (self.size - self.inner) / 2
        return to_bgr(crop(photograph, matrix, self.size))

    def _check(self, photograph: Colours, face: Face, matrix: NDArray[np.float64]) -> None:
        least = self._least_score()
        if face.score is not None and face.score < least:
            raise UserError(f"doubtful, its score is {face.score:.2f}, below {least}")
        if (misfit := self._misfit(face, matrix)) > MOST_MISFIT:
            raise UserError(f"doubtful, a landmark lies {100 * misfit:.0f} % of the square's side away from its place")
        if (side := self.inner / scale_of(matrix)) < self.min_side:
            raise UserError(f"too small, its square is {side:.0f} px wide, {self.min_side:g} px are needed")
        if (outside := self._share_outside(photograph, matrix)) > MOST_OUTSIDE:
            raise UserError(f"cut off, {100 * outside:.0f} % of its square lie outside the photograph")

    def _least_score(self) -> float:
        return DOUBTFUL[self.detector] if self.min_score is None else self.min_score

    def _misfit(self, face: Face, matrix: NDArray[np.float64]) -> float:
        """Return the greatest distance of a landmark from its place, as a share of the square's side."""
        if face.landmarks is None:
            return 0.0
        moved = cv2.transform(face.landmarks[None], matrix)[0] / self.inner
        return float(np.linalg.norm(moved - TEMPLATE, axis=1).max())

    def _share_outside(self, photograph: Colours, matrix: NDArray[np.float64]) -> float:
        inside = np.ones(photograph.shape[:2], np.float32)
        return 1 - float(cv2.warpAffine(inside, matrix, (self.inner, self.inner)).mean())


def _middle(face: Face) -> str:
    left, top, right, bottom = face.box
    return f"{(left + right) / 2:.0f},{(top + bottom) / 2:.0f}"
