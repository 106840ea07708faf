"""Cut the faces of photographs out as training faces: the square that the restorer gives a network, with a margin."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import Image
from dfpg_plugin.media.reading import decode_picture
from dfpg_plugin.restoration.detectors import check_detector, load_detector
from dfpg_plugin.restoration.faces import TEMPLATE, Colours, Face, crop

# below, a detector's face is doubtful: on 150 of LFW's pictures dlib gives 99 % of the faces more than 0.28, and to
# what is no face, such as a patch of the astronaut's suit, mostly less
DOUBTFUL = {"dlib": 0.3, "facexlib": 0.9}
MOST_MISFIT = 0.12  # of the square's side, a landmark from its place; at most 0.094 on these 150 pictures
MOST_OUTSIDE = 0.1  # of the square's area, beyond the photograph's edges


@dataclass(frozen=True)
class FaceCutter:
    """Cuts out the faces of a photograph that are large and sure enough.

    A face's square of ``inner`` px is the restorer's (FFHQ's alignment, by five landmarks). It lies in the middle of
    ``size`` px; what the margin needs beyond the photograph's edges is reflected.
    """

    size: int  # px, of what is cut out
    inner: int  # px, of the restorer's square in the middle of it
    detector: str = "dlib"  # or facexlib
    detector_weights: str | None = None  # the folder of facexlib's
    min_side: float = 128  # px of the photograph that the restorer's square must be wide
    min_score: float | None = None  # of the detector; default: 0.3 of dlib's, 0.9 of facexlib's

    def __post_init__(self) -> None:
        """Raise UserError for a detector that is unknown, or has no weights of its own where some are named."""
        check_detector(self.detector, self.detector_weights)

    def __call__(self, content: bytes, name: str) -> tuple[list[Image], list[str]]:
        """Return the faces, uint8 BGR (size,size,3), the surest first, and why others were left out.

        ``content``: the file's; EXIF's orientation counts. A photograph that can't be read or holds no face gives one
        reason, naming ``name``. Raises UserError where the detector is missing.
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
        """Return a face; raise UserError, saying why, for one that is not good enough."""
        matrix = face.to_square(self.inner)
        for reason in self._doubts(photograph, face, matrix):
            raise UserError(reason)
        matrix[:, 2] += (self.size - self.inner) / 2
        square = crop(photograph, matrix, self.size)
        return np.ascontiguousarray(np.rint(255 * square[..., ::-1].clip(0, 1)).astype(np.uint8))

    def _doubts(self, photograph: Colours, face: Face, matrix: NDArray[np.float64]) -> Iterator[str]:
        least = self._least_score()
        if face.score is not None and face.score < least:
            yield f"doubtful, its score is {face.score:.2f}, below {least}"
        if (misfit := self._misfit(face, matrix)) > MOST_MISFIT:
            yield f"doubtful, a landmark lies {100 * misfit:.0f} % of the face's square away from its place"
        if (side := self.inner / np.sqrt(abs(np.linalg.det(matrix[:, :2])))) < self.min_side:
            yield f"too small, its square is {side:.0f} px wide, {self.min_side:g} px are needed"
        if (outside := self._outside(photograph, matrix)) > MOST_OUTSIDE:
            yield f"cut off, {100 * outside:.0f} % of its square lie outside the photograph"

    def _least_score(self) -> float:
        return DOUBTFUL[self.detector] if self.min_score is None else self.min_score

    def _misfit(self, face: Face, matrix: NDArray[np.float64]) -> float:
        if face.landmarks is None:
            return 0.0
        moved = cv2.transform(face.landmarks[None], matrix)[0] / self.inner
        return float(np.linalg.norm(moved - TEMPLATE, axis=1).max())

    def _outside(self, photograph: Colours, matrix: NDArray[np.float64]) -> float:
        inside = np.ones(photograph.shape[:2], np.float32)
        return 1 - float(cv2.warpAffine(inside, matrix, (self.inner, self.inner)).mean())


def _middle(face: Face) -> str:
    left, top, right, bottom = face.box
    return f"{(left + right) / 2:.0f},{(top + bottom) / 2:.0f}"
