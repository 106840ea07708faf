"""Move a face of a photograph into the square that the network knows, and the restored face back."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError

# x and y of the eyes, the nose and the mouth corners in FFHQ's alignment, as shares of the square's side. MSPL's
# training faces, CelebAMask-HQ, have this alignment too.
TEMPLATE = np.array([(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)]) / 512
# medians of dlib's boxes on 54 of the demo's training faces, aligned by their landmarks
BOX_TO_SQUARE = 1.73  # the side of FFHQ's square, divided by the side of the box
BOX_BELOW = 0.095  # how far the box's middle lies below the square's middle, as a share of the square's side
FEATHER = 1 / 8  # a pasted face fades into the picture over this share of the square's side
OVERLAP = 0.4  # two boxes with a greater intersection over union are of the same face
Colours = NDArray[np.float32]  # RGB (H,W,3) in [0,1]


@dataclass(frozen=True)
class Face:
    """A face in a picture, in px."""

    box: tuple[float, float, float, float]  # left, top, right, bottom
    score: float | None = None  # the detector's; None: the box was given by hand
    landmarks: NDArray[np.float64] | None = field(default=None, compare=False)  # (5,2), x and y, as in TEMPLATE

    def to_square(self, size: int) -> NDArray[np.float64]:
        """Return the similarity (2,3) that moves the face into a square of ``size`` px.

        The landmarks decide; without landmarks, the box decides. Raises UserError for landmarks that lie on one spot.
        """
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
        """Return this face of a square as a face of the picture. ``matrix`` (2,3) moved the picture to the square."""
        left, top, right, bottom = self.box
        inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
        x, y = inverse @ ((left + right) / 2, (top + bottom) / 2, 1)
        half = scale_of(inverse) * np.array([right - left, bottom - top]) / 2
        box = (float(x - half[0]), float(y - half[1]), float(x + half[0]), float(y + half[1]))
        landmarks = None if self.landmarks is None else self.landmarks @ inverse[:, :2].T + inverse[:, 2]
        return replace(self, box=box, landmarks=landmarks)


def scale_of(matrix: NDArray[np.float64]) -> float:
    """Return the factor by which a similarity (2,3) enlarges."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def face_from_landmarks(landmarks: NDArray[np.float64], score: float) -> Face:
    """Return a face with these landmarks (5,2) and the box that dlib would find, by the medians above.

    Raises UserError for landmarks that lie on one spot.
    """
    inverse = np.asarray(cv2.invertAffineTransform(Face((0, 0, 0, 0), score, landmarks).to_square(1)), np.float64)
    side = scale_of(inverse)
    x, y = map(float, inverse @ (0.5, 0.5, 1) + (0, BOX_BELOW * side))
    half = side / BOX_TO_SQUARE / 2
    return Face((x - half, y - half, x + half, y + half), score, landmarks)


def shrink(picture: Colours, scale: float) -> Colours:
    """Return a picture scaled by ``scale``, by area averages. From scale 1 on, return the picture itself."""
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
    """Return the faces, the surest face first. Of several boxes of the same face, only the surest box is returned."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -(face.score or 0)):
        if not any(same_face(face, other) for other in kept):
            kept.append(face)
    return kept


def crop(picture: Colours, matrix: NDArray[np.float64], size: int) -> Colours:
    """Return the square (size,size,3) into which ``matrix`` (2,3) moves a face of the picture (H,W,3).

    The picture is blurred first if the square is smaller. Pixels outside the picture are the picture's reflection.
    Raises UserError if the whole square lies outside.
    """
    scale = scale_of(matrix)
    part, offset = _part_of_square(picture.shape[:2], matrix, size, margin=2 / scale)
    pixels = _smooth(picture[part], scale)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ offset
    square = cv2.warpAffine(pixels, moved, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(square, np.float32)


def paste(change: Colours, total: Colours, weight: NDArray[np.float32], matrix: NDArray[np.float64]) -> None:
    """Add the change of a square (size,size,3) to the changes ``total`` of a picture (H,W,3), in place.

    ``matrix`` (2,3) moved the picture to the square. The change fades at the square's edges. ``weight`` (H,W) grows by
    the share of the change, from 0 to 1, at each pixel.
    """
    size = len(change)
    part, offset = _part_of_square(weight.shape, matrix, size, margin=1)
    height, width = weight[part].shape
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    inverse[:, 2] -= offset
    change = _smooth(change, 1 / scale_of(matrix))
    share = cv2.warpAffine(_fading(size), inverse, (width, height), flags=cv2.INTER_LINEAR)
    moved = cv2.warpAffine(change, inverse, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    total[part] += moved * share[..., None]
    weight[part] += share


def to_uint8(picture: Colours) -> NDArray[np.uint8]:
    """Return a picture as uint8, with the same order of channels. Values outside [0,1] are clipped."""
    return np.ascontiguousarray(np.rint(255 * picture.clip(0, 1)).astype(np.uint8))


def to_bgr(picture: Colours) -> NDArray[np.uint8]:
    """Return an RGB picture as uint8 BGR, as OpenCV expects. Values outside [0,1] are clipped."""
    return to_uint8(picture[..., ::-1])


def _smooth(picture: Colours, scale: float) -> Colours:
    """Blur a picture before it is scaled down by ``scale``, against aliasing. From scale 1 on, do nothing."""
    if scale >= 1:
        return picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.5 * (1 / scale - 1) + 1e-3), np.float32)


def _fading(size: int) -> NDArray[np.float32]:
    """Return weights (size,size) of a square: 0 at the edges, 1 in the middle, and a smooth rise between."""
    from_edge = np.minimum(np.arange(size), np.arange(size)[::-1]) / (FEATHER * size)
    ramp = np.clip(from_edge, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)


def _part_of_square(
    shape: Sequence[int], matrix: NDArray[np.float64], size: int, margin: float
) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
    """Return the part of a picture (rows, columns) that holds a square, with a margin in px, and its corner (x, y)."""
    square = np.array([[(0.0, 0.0), (size, 0), (0, size), (size, size)]])
    corners = cv2.transform(square, cv2.invertAffineTransform(matrix))[0]
    height, width = shape
    left, top = np.floor(corners.min(axis=0) - margin).astype(int).clip(0)
    right, bottom = np.ceil(corners.max(axis=0) + margin).astype(int) + 1
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise UserError("it lies outside the picture")
    part = (slice(top, min(bottom, height)), slice(left, min(right, width)))
    return part, np.array([left, top], np.float64)
