"""Faces of photographs: move them to the place that the network knows, and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError

# eyes, nose and mouth corners in FFHQ's alignment at 512 px, which CelebAMask-HQ, MSPL's training faces, has too
TEMPLATE = np.array([(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)]) / 512
# medians of dlib's boxes on 54 of the demo's training faces, aligned by their landmarks
BOX_TO_SQUARE = 1.73  # the box is that much narrower than FFHQ's square
BOX_BELOW = 0.095  # of the square's side: where the box's middle lies below the square's
FEATHER = 1 / 8  # of the square's side, over which a pasted face fades into the picture
OVERLAP = 0.4  # of two boxes, intersection over union: then they are the same face
Colours = NDArray[np.float32]  # RGB (H,W,3) in [0,1]


@dataclass(frozen=True)
class Face:
    """A face in a picture: its box (left, top, right, bottom) in px, the detector's score, five landmarks (5,2)."""

    box: tuple[float, float, float, float]
    score: float | None = None  # None: given by hand
    landmarks: NDArray[np.float64] | None = field(default=None, compare=False)

    def to_square(self, size: int) -> NDArray[np.float64]:
        """Return the similarity (2,3) that moves the face into a square of ``size`` px."""
        if self.landmarks is not None:
            matrix, _ = cv2.estimateAffinePartial2D(self.landmarks, TEMPLATE * size, method=cv2.LMEDS)
            if matrix is None:
                raise UserError("its landmarks lie on one spot")
            return np.asarray(matrix, np.float64)
        left, top, right, bottom = self.box
        side = BOX_TO_SQUARE * max(right - left, bottom - top)
        middle = np.array([(left + right) / 2, (top + bottom) / 2 - BOX_BELOW * side])
        return np.column_stack([np.eye(2) * size / side, size / 2 - middle * size / side])

    def moved_from(self, matrix: NDArray[np.float64]) -> "Face":
        """Return the face that lies here in a square, in the picture from which a similarity (2,3) moved it there."""
        left, top, right, bottom = self.box
        inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
        x, y = inverse @ ((left + right) / 2, (top + bottom) / 2, 1)
        half = np.sqrt(abs(np.linalg.det(inverse[:, :2]))) * np.array([right - left, bottom - top]) / 2
        box = (float(x - half[0]), float(y - half[1]), float(x + half[0]), float(y + half[1]))
        landmarks = None if self.landmarks is None else self.landmarks @ inverse[:, :2].T + inverse[:, 2]
        return replace(self, box=box, landmarks=landmarks)


def face_from_landmarks(landmarks: NDArray[np.float64], score: float) -> Face:
    """Return a face whose box, of the kind that dlib finds, lies in the square of its landmarks (5,2).

    Raises UserError for landmarks that lie on one spot.
    """
    inverse = cv2.invertAffineTransform(Face((0, 0, 0, 0), score, landmarks).to_square(1))
    side = float(np.sqrt(np.linalg.det(inverse[:, :2])))
    x, y = map(float, inverse @ (0.5, 0.5, 1) + (0, BOX_BELOW * side))
    half = side / BOX_TO_SQUARE / 2
    return Face((x - half, y - half, x + half, y + half), score, landmarks)


def shrink(picture: Colours, scale: float) -> Colours:
    """Return a picture at ``scale`` of its size, averaged; itself from 1 on."""
    if scale >= 1:
        return picture
    size = [max(1, round(scale * side)) for side in (picture.shape[1], picture.shape[0])]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def same_face(a: Face, b: Face) -> bool:
    """Tell whether two boxes are of the same face."""
    left, top = max(a.box[0], b.box[0]), max(a.box[1], b.box[1])
    right, bottom = min(a.box[2], b.box[2]), min(a.box[3], b.box[3])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]) for face in (a, b)]
    return common > OVERLAP * (sum(areas) - common)


def without_doubles(faces: Sequence[Face]) -> list[Face]:
    """Return the faces, the surest first, and of those that are the same face the surest."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -(face.score or 0)):
        if not any(same_face(face, other) for other in kept):
            kept.append(face)
    return kept


def crop(picture: Colours, matrix: NDArray[np.float64], size: int) -> Colours:
    """Return the square that ``matrix`` moves to ``size`` px, averaged where it becomes smaller.

    What lies outside the picture is its reflection.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    part, offset = _around(picture.shape[:2], matrix, size, margin=2 / scale)
    pixels = _smooth(picture[part], scale)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ offset
    square = cv2.warpAffine(pixels, moved, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(square, np.float32)


def paste(change: Colours, total: Colours, weight: NDArray[np.float32], matrix: NDArray[np.float64]) -> None:
    """Add a square's change, fading at its edges, to those of a picture (H,W,3), and its share to ``weight`` (H,W)."""
    size = len(change)
    part, offset = _around(weight.shape, matrix, size, margin=1)
    height, width = weight[part].shape
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    inverse[:, 2] -= offset
    change = _smooth(change, 1 / float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))))
    share = cv2.warpAffine(_fading(size), inverse, (width, height), flags=cv2.INTER_LINEAR)
    moved = cv2.warpAffine(change, inverse, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    total[part] += moved * share[..., None]
    weight[part] += share


def as_lists(landmarks: NDArray | None) -> list[list[float]] | None:
    """Return landmarks (5,2) as JSON has them."""
    return None if landmarks is None else landmarks.tolist()


def to_bgr(picture: Colours) -> NDArray[np.uint8]:
    """Return a picture as OpenCV has it: BGR, uint8."""
    return np.rint(255 * picture[..., ::-1].clip(0, 1)).astype(np.uint8)


def _smooth(picture: Colours, scale: float) -> Colours:
    """Blur a picture that is about to become smaller by ``scale``, so that fine patterns do not turn into others."""
    if scale >= 1:
        return picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.5 * (1 / scale - 1) + 1e-3), np.float32)


def _fading(size: int) -> NDArray[np.float32]:
    """Return 1 in the middle of a square, 0 at its edges, with a smooth way between."""
    from_edge = np.minimum(np.arange(size), np.arange(size)[::-1]) / (FEATHER * size)
    ramp = np.clip(from_edge, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)


def _around(
    shape: Sequence[int], matrix: NDArray[np.float64], size: int, margin: float
) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
    """Return the part of a picture that a square comes from, and where that begins (x, y)."""
    corners = cv2.transform(
        np.array([[(0.0, 0.0), (size, 0), (0, size), (size, size)]]), cv2.invertAffineTransform(matrix)
    )[0]
    height, width = shape
    left, top = np.floor(corners.min(axis=0) - margin).astype(int).clip(0)
    right, bottom = np.ceil(corners.max(axis=0) + margin).astype(int) + 1
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise UserError("it lies outside the picture")
    part = (slice(top, min(bottom, height)), slice(left, min(right, width)))
    return part, np.array([left, top], np.float64)
