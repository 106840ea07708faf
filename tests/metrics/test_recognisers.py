"""Recognisers on real faces, and networks of facexlib with random weights."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
import torch
from facexlib.detection.retinaface import RetinaFace
from facexlib.recognition.arcface_arch import Backbone
from skimage import data

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.metrics import recognisers
from dfpg_plugin.metrics.identity_similarity import calculate_identity_similarity, identity_similarity
from dfpg_plugin.metrics.recognisers import load_recogniser

ASTRONAUT = np.ascontiguousarray(data.astronaut()[:256, 96:352, ::-1])  # BGR
NOTHING = np.full((96, 96, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def orl() -> dict[str, np.ndarray]:
    source = orl_faces("test")
    return {name: source.read(name) for name in source.names if name.endswith(("/1.pgm", "/2.pgm"))}


def test_dlib_finds_a_face_where_it_is() -> None:
    (landmarks,) = load_recogniser("dlib", None).find(ASTRONAUT)
    assert landmarks.shape == (5, 2)
    left, top, right, bottom = (70, 60, 190, 190)  # her face in the picture
    assert ((landmarks > (left, top)) & (landmarks < (right, bottom))).all()
    assert load_recogniser("dlib", None).find(NOTHING) == []
    assert load_recogniser("dlib", None).embed_only_face(NOTHING) is None


def test_two_faces_are_no_embedding() -> None:
    assert load_recogniser("dlib", None).embed_only_face(np.hstack([ASTRONAUT, ASTRONAUT])) is None


def test_of_several_faces_the_one_nearest_the_middle_counts(orl: dict) -> None:
    recogniser = load_recogniser("dlib", None)
    alone = recogniser.embed_only_face(ASTRONAUT)
    vector, count = recogniser.embed_middle_face(ASTRONAUT)
    np.testing.assert_array_equal(vector, alone)
    assert count == 1
    for rows in (slice(112), slice(-112, None)):  # somebody else, above or below, is found before or after her
        crowd = cv2.copyMakeBorder(ASTRONAUT, 112, 112, 112, 112, cv2.BORDER_REPLICATE)
        crowd[rows, 200:292] = orl["s37/1.pgm"]
        vector, count = recogniser.embed_middle_face(crowd)
        assert count == 2
        assert vector @ alone > 0.98


def test_a_mirrored_picture_has_the_same_mean_vector() -> None:
    recogniser = load_recogniser("dlib", None)
    (found,) = recogniser.find(ASTRONAUT)
    turned = np.ascontiguousarray(ASTRONAUT[:, ::-1])
    other = (found * (-1, 1) + (ASTRONAUT.shape[1] - 1, 0))[list(recogniser.mirror)]
    (seen,) = recogniser.find(turned)
    assert np.abs(other - seen).max() < 6  # px: the landmarks have kept their meaning
    pair = [recogniser.embed(ASTRONAUT, found), recogniser.embed(turned, other)]
    vector, _ = recogniser.embed_middle_face(ASTRONAUT, mirrored=True)
    np.testing.assert_allclose(vector, sum(pair) / np.linalg.norm(sum(pair)), atol=1e-12)
    assert pair[0] @ pair[1] > 0.9
    swapped = dataclasses.replace(recogniser, find=lambda image: [other])
    np.testing.assert_allclose(swapped.embed_middle_face(turned, mirrored=True)[0], vector, atol=1e-12)


@pytest.mark.parametrize("shape", [(100, 240), (240, 100)])
def test_the_middle_and_the_mirror_are_those_of_any_shape(shape: tuple[int, int]) -> None:
    height, width = shape
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    corner = np.array([(30, 40), (50, 40), (40, 50), (30, 60), (50, 60)], np.float64)
    inner = np.add(corner, (width / 2 - 45, height / 2 - 45))
    seen: list[tuple] = []

    def embed(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        seen.append((image, landmarks))
        return np.array([1.0, 0.0]) if len(seen) < 2 else np.array([0.6, 0.8])

    recogniser = recognisers.Recogniser("fake", lambda image: [corner, inner, corner], lambda image: corner, embed)
    vector, count = recogniser.embed_middle_face(picture, mirrored=True)
    assert count == 3
    np.testing.assert_allclose(vector, np.array([1.6, 0.8]) / np.hypot(1.6, 0.8))
    (first, landmarks), (second, mirrored) = seen
    np.testing.assert_array_equal(first, picture)
    np.testing.assert_array_equal(landmarks, inner)
    np.testing.assert_array_equal(second, picture[:, ::-1])
    x, y = inner[[1, 0, 2, 4, 3]].T  # the left eye becomes the right one
    np.testing.assert_allclose(mirrored, np.column_stack([width - 1 - x, y]))


def test_where_no_face_is_found_the_central_square_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = load_recogniser("dlib", None)
    (found,) = recogniser.find(ASTRONAUT)
    x, y = np.rint(found.mean(0)).astype(int)
    half = round((found[0] - found[2])[0] * 250 / 58 / 2)  # LFW's outer corners of the eyes: 58 of 250 px
    centred = cv2.copyMakeBorder(ASTRONAUT, half, half, half, half, cv2.BORDER_REPLICATE)[
        y : y + 2 * half, x : x + 2 * half
    ]
    blind = dataclasses.replace(recogniser, find=lambda image: [])
    vector, count = blind.embed_middle_face(centred)
    assert count == 0
    assert vector @ recogniser.embed_only_face(ASTRONAUT) > 0.95
    assert blind.embed_middle_face(NOTHING)[0].shape == (128,)
    assert blind.embed_only_face(centred) is None


def test_dlibs_embedding_is_dlibs_own_of_the_face_alone() -> None:
    recogniser = load_recogniser("dlib", None)
    folder = Path(recognisers.find_spec("face_recognition_models").submodule_search_locations[0]) / "models"
    rgb = np.ascontiguousarray(ASTRONAUT[..., ::-1])
    box = dlib.get_frontal_face_detector()(rgb, 1)[0]
    shape = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))(rgb, box)
    network = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
    expected = np.array(network.compute_face_descriptor(rgb, shape))
    vector = recogniser.embed_only_face(ASTRONAUT)
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_the_same_person_is_nearer_than_any_other(orl: dict) -> None:
    vectors = {name: load_recogniser("dlib", None).embed_only_face(image) for name, image in orl.items()}
    for name, vector in vectors.items():
        person, partner = name.split("/")[0], name.replace("/1.", "/x.").replace("/2.", "/1.").replace("/x.", "/2.")
        others = [v for n, v in vectors.items() if n.split("/")[0] != person]
        assert vector @ vectors[partner] > max(vector @ other for other in others)


def test_identity_similarity_is_1_for_the_same_image_and_falls_with_blur() -> None:
    values = [calculate_identity_similarity(cv2.blur(ASTRONAUT, (k, k)), ASTRONAUT) for k in (1, 9, 25)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]
    assert np.isnan(identity_similarity(ASTRONAUT[:96, :96], NOTHING, load_recogniser("dlib", None)))


@pytest.fixture
def facexlib_weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(
        {f"module.{k}": v for k, v in RetinaFace("resnet50").state_dict().items()}, tmp_path / recognisers.RETINAFACE
    )
    torch.save(Backbone(50, 0.6, "ir_se").state_dict(), tmp_path / recognisers.ARCFACE)
    return tmp_path


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    load_recogniser.cache_clear()


def test_facexlibs_networks_are_read_from_files(facexlib_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = load_recogniser("facexlib", str(facexlib_weights))
    eyes_nose_mouth = np.array([[38, 52], [74, 51], [56, 72], [42, 92], [71, 92]], np.float64)  # nearly ArcFace's own
    network = Backbone(50, 0.6, "ir_se").eval()
    network.load_state_dict(torch.load(facexlib_weights / recognisers.ARCFACE))
    vector = recogniser.embed(cv2.resize(ASTRONAUT, (112, 112)), eyes_nose_mouth)
    assert vector.shape == (512,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    # ArcFace's reference points for 112x112, as insightface publishes them
    wanted = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    matrix = cv2.estimateAffinePartial2D(eyes_nose_mouth, np.array(wanted), method=cv2.LMEDS)[0]
    aligned = cv2.warpAffine(cv2.resize(ASTRONAUT, (112, 112)), matrix, (112, 112))
    rgb = torch.from_numpy(aligned[..., ::-1].copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network(rgb.float() / 127.5 - 1)[0].numpy()
        swapped = network(rgb.flip(1).float() / 127.5 - 1)[0].numpy()
    assert vector @ expected > 0.995
    assert vector @ swapped < 0.99
    found = np.arange(15, dtype=np.float32)[None]  # left, top, right, bottom, score, five points
    monkeypatch.setattr(RetinaFace, "detect_faces", lambda self, image: found)
    np.testing.assert_array_equal(recogniser.find(NOTHING), [np.arange(5, 15).reshape(5, 2)])
    # ArcFace's 112 px in the middle of a picture's shorter side, of which they are 53 %
    assumed = recogniser.assume(np.zeros((300, 250, 3), np.uint8))
    np.testing.assert_allclose(assumed, np.array(wanted) * 132.5 / 112 + (58.75, 83.75), atol=1e-3)


def test_missing_files_and_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"has its own weights\. Remove weights: x, or set recogniser: facexlib"):
        load_recogniser("dlib", "x")
    with pytest.raises(
        UserError, match=rf"{tmp_path}/detection_Resnet50_Final\.pth does not exist\. Download https://"
    ):
        load_recogniser("facexlib", str(tmp_path))
    torch.save({"x": torch.zeros(1)}, tmp_path / recognisers.RETINAFACE)
    with pytest.raises(UserError, match=r"detection_Resnet50_Final\.pth does not fit RetinaFace"):
        load_recogniser("facexlib", str(tmp_path))
    with pytest.raises(UserError, match="recogniser: 'arcfce' is not one of dlib, facexlib"):
        load_recogniser("arcfce", None)
    monkeypatch.setattr(recognisers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install dlib-bin face-recognition-models"):
        load_recogniser("dlib", None)
