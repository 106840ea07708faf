"""Find and recognise faces, by dlib or by facexlib's networks.

dlib's files come with the package face-recognition-models. facexlib's files have to be downloaded by hand.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.files import load_pytorch, sha256_of, state_dict_of
from dfpg_plugin.metrics.weights import best_device, find_weights
from dfpg_plugin.seeding import seeded
from dfpg_plugin.weight_names import without_wrapper

DLIB, FACEXLIB = "dlib", "facexlib"
RECOGNISERS = (DLIB, FACEXLIB)
UPSAMPLE = 1  # of dlib's detector, as OpenFace sets it
CHIP, CHIP_PADDING = 150, 0.25  # what dlib's recogniser was trained on
DLIB_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
DLIB_RESNET = "dlib_face_recognition_resnet_model_v1.dat"
ALIGNED = 112  # px, ArcFace's input
# the sides of dlib's box of a face and of ArcFace's input, by a picture's shorter side: medians of 150 pictures of LFW
DLIB_SHARE, ARCFACE_SHARE = 0.43, 0.53
FACEXLIB_URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0"
RETINAFACE, ARCFACE = "detection_Resnet50_Final.pth", "recognition_arcface_ir_se50.pth"
Image = NDArray[np.uint8]
Landmarks = NDArray[np.float64]  # (5,2), x and y in px


@dataclass(frozen=True)
class Recogniser:
    """A detector and a network that tells people apart. Report ``name`` beside every number got with it."""

    name: str
    find: Callable[[Image], list[Landmarks]]  # uint8 BGR image (H,W,3) -> five landmarks of each face
    assume: Callable[[Image], Landmarks]  # image without a found face -> landmarks of a face in its central square
    embed: Callable[[Image, Landmarks], NDArray[np.float64]]  # image and a face's landmarks -> unit vector
    weights_sha256: str = ""  # the SHA-256 over the SHA-256 of its files
    mirror: tuple[int, ...] = (1, 0, 2, 4, 3)  # landmark i of the mirrored picture is the mirrored landmark mirror[i]

    def embed_only_face(self, image: Image) -> NDArray[np.float64] | None:
        """Return the unit vector of the image's face. As in the published protocol, None for no face or several."""
        faces = self.find(image)
        return self.embed(image, faces[0]) if len(faces) == 1 else None

    def embed_middle_face(self, image: Image, *, mirrored: bool = False) -> tuple[NDArray[np.float64], int]:
        """Return the unit vector of the face nearest the image's middle, and how many faces are found.

        If no face is found, one is assumed in the central square. This suits data sets such as LFW, whose pictures have
        the named person in the middle. ``mirrored`` adds the vector of the mirrored face, and scales the sum to length
        1. The sum tells people apart a little better, and needs a second run of the network.
        """
        faces = self.find(image)
        middle = np.array([image.shape[1], image.shape[0]]) / 2
        nearest = min(faces or [self.assume(image)], key=lambda face: float(np.linalg.norm(face.mean(0) - middle)))
        vector = self.embed(image, nearest)
        if mirrored:
            other = (nearest * (-1, 1) + (image.shape[1] - 1, 0))[list(self.mirror)]
            vector = vector + self.embed(np.ascontiguousarray(image[:, ::-1]), other)
            vector /= np.linalg.norm(vector)
        return vector, len(faces)


def default_facexlib_weights() -> tuple[Path, ...]:
    """Return the paths of RetinaFace's and ArcFace's weights where facexlib would keep them after downloading."""
    spec = find_spec("facexlib")
    folder = Path(spec.origin or "").parent if spec else Path()
    return tuple(folder / "weights" / file for file in (RETINAFACE, ARCFACE))


@cache
def load_recogniser(name: str, weights: str | None) -> Recogniser:
    """Return a recogniser, loaded once a process.

    ``dlib``: its HOG detector, 5 landmarks and its ResNet (128-d). ``facexlib``: RetinaFace (ResNet-50) and ArcFace
    (IR-SE50, 512-d). facexlib's two files lie in the folder ``weights``, by default where facexlib keeps them. Raises
    UserError, naming the package or file, if one is missing.
    """
    check_choice("recogniser", name, RECOGNISERS)
    if name == DLIB and weights is not None:
        raise UserError(
            f"recogniser dlib: has its own weights. Remove weights: {weights}, or set recogniser: facexlib."
        )
    recogniser = _load_dlib() if name == DLIB else _load_facexlib(weights)
    # not get_root_logger: it would set up BasicSR's logger before BasicSR's loop can add the log file
    logging.getLogger("basicsr").info(f"Faces are recognised by {recogniser.name}.")
    return recogniser


def find_dlib_models(needed_by: str) -> Path:
    """Return the folder of dlib's files. Raises UserError if the files or dlib are not installed."""
    models = find_spec("face_recognition_models")  # its import would need pkg_resources, which setuptools dropped
    if models is None or find_spec("dlib") is None:
        raise UserError(f"{needed_by} dlib: needs two packages. Run: pip install dlib-bin face-recognition-models")
    return Path((models.submodule_search_locations or [""])[0]) / "models"


def _load_dlib() -> Recogniser:
    folder = find_dlib_models("recogniser")
    import dlib

    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(folder / DLIB_LANDMARKS))
    network = dlib.face_recognition_model_v1(str(folder / DLIB_RESNET))

    def landmarks_in(rgb: Image, box: dlib.rectangle) -> Landmarks:
        return np.array([(p.x, p.y) for p in predictor(rgb, box).parts()], np.float64)

    def find(image: Image) -> list[Landmarks]:
        rgb = np.ascontiguousarray(image[..., ::-1])
        return [landmarks_in(rgb, box) for box in detector(rgb, UPSAMPLE)]

    def assume(image: Image) -> Landmarks:
        left, top, side = (round(v) for v in _central_square(image, DLIB_SHARE))
        return landmarks_in(np.ascontiguousarray(image[..., ::-1]), dlib.rectangle(left, top, left + side, top + side))

    def embed(image: Image, landmarks: Landmarks) -> NDArray[np.float64]:
        rgb = np.ascontiguousarray(image[..., ::-1])
        points = dlib.points([dlib.point(int(x), int(y)) for x, y in landmarks])
        shape = dlib.full_object_detection(dlib.rectangle(0, 0, rgb.shape[1], rgb.shape[0]), points)
        chip = dlib.get_face_chip(rgb, shape, CHIP, CHIP_PADDING)
        vector = np.array(network.compute_face_descriptor(chip), np.float64)
        return vector / np.linalg.norm(vector)

    files = (folder / DLIB_RESNET, folder / DLIB_LANDMARKS)
    name = f"dlib {dlib.__version__}: HOG, ResNet"
    return Recogniser(name, find, assume, embed, _sha256_of(files), mirror=(2, 3, 0, 1, 4))


def _load_facexlib(weights: str | None) -> Recogniser:
    from facexlib.detection.align_trans import get_reference_facial_points, warp_and_crop_face
    from facexlib.detection.retinaface import RetinaFace
    from facexlib.recognition.arcface_arch import Backbone

    folder = default_facexlib_weights()[0].parent if weights is None else Path(weights).expanduser()
    device = best_device()
    with seeded(0):
        detector, network = RetinaFace("resnet50", device=device), Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
    load_facexlib_network(detector, folder, RETINAFACE)
    load_facexlib_network(network, folder, ARCFACE)
    reference = get_reference_facial_points(default_square=True)

    @torch.no_grad()
    def find(image: Image) -> list[Landmarks]:
        # a face is (left, top, right, bottom, score, x and y of five landmarks)
        return [np.asarray(face[5:15], np.float64).reshape(5, 2) for face in detector.detect_faces(image)]

    def assume(image: Image) -> Landmarks:
        left, top, side = _central_square(image, ARCFACE_SHARE)
        return np.asarray(reference, np.float64) * (side / ALIGNED) + (left, top)

    @torch.no_grad()
    def embed(image: Image, landmarks: Landmarks) -> NDArray[np.float64]:
        face = warp_and_crop_face(image, landmarks, reference, crop_size=(ALIGNED, ALIGNED))
        rgb = torch.from_numpy(face[..., ::-1].copy()).permute(2, 0, 1)[None].float().to(device)
        vector: torch.Tensor = network((rgb / 255 - 0.5) / 0.5)[0]
        return vector.double().cpu().numpy()

    name = "facexlib: RetinaFace ResNet-50, ArcFace IR-SE50"
    return Recogniser(name, find, assume, embed, _sha256_of((folder / RETINAFACE, folder / ARCFACE)))


def _central_square(image: Image, share: float) -> tuple[float, float, float]:
    """Return left, top and side, in px, of the central square with this share of the shorter side."""
    height, width = image.shape[:2]
    side = share * min(height, width)
    return (width - side) / 2, (height - side) / 2, side


def _sha256_of(files: Sequence[Path]) -> str:
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def load_facexlib_network(network: torch.nn.Module, folder: Path, file: str) -> None:
    """Load one of facexlib's files into its network, in eval mode. Raises UserError if the file is missing or unfit."""
    path = find_weights("recogniser facexlib", None, f"{FACEXLIB_URL}/{file}", folder)
    try:
        network.load_state_dict(without_wrapper(state_dict_of(path, load_pytorch(path)), path))
    except RuntimeError as error:
        raise UserError(f"recogniser facexlib: {path} does not fit {type(network).__name__}.") from error
    network.to(best_device()).eval()
