"""Finding faces, and moving them to the network's place and back."""

import cv2
import numpy as np
import pytest
from skimage import data

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.restoration.detectors import load_detector
from dfpg_plugin.restoration.faces import (
    TEMPLATE,
    Face,
    crop,
    face_from_landmarks,
    paste,
    same_face,
    shrink,
    to_bgr,
    without_doubles,
)


@pytest.mark.parametrize("detector", ["centerface", "dlib"])
def test_a_face_is_moved_to_the_template(detector: str) -> None:
    photo = data.astronaut().astype(np.float32) / 255
    find, threshold = load_detector(detector).find, load_detector(detector).threshold
    (face, *_) = find(photo, threshold)
    assert face.box == pytest.approx((175, 77, 265, 167), abs=10)
    matrix = face.to_square(128)
    moved = cv2.transform(face.landmarks[None], matrix)[0]
    assert np.abs(moved - 128 * TEMPLATE).max() < 8  # px: a similarity fits five points roughly
    (again, *_) = find(crop(photo, face.to_square(256), 256), threshold)
    assert np.abs(again.landmarks - 256 * TEMPLATE).max() < 16


@pytest.mark.parametrize("detector", ["centerface", "dlib"])
def test_a_large_picture_is_searched_at_a_smaller_size_and_boxes_are_its_own(detector: str) -> None:
    photo = data.astronaut().astype(np.float32) / 255
    large = cv2.resize(photo, None, fx=5, fy=5)
    small, big = (load_detector(detector).find(image, 0.5)[0] for image in (photo, large))
    assert np.array(big.box) / 5 == pytest.approx(np.array(small.box), abs=10)


@pytest.mark.parametrize("angle", [0, 33])
@pytest.mark.parametrize("side", [60.0, 128.0, 300.0])
def test_a_crop_that_is_pasted_back_lies_where_it_was(angle: float, side: float) -> None:
    photo = cv2.GaussianBlur(data.astronaut().astype(np.float32) / 255, (0, 0), 6)
    matrix = cv2.getRotationMatrix2D((250.0, 200.0), angle, 128 / side)
    matrix[:, 2] += 64 - np.array([250.0, 200.0])
    square = crop(photo, matrix, 128)
    total, weight = np.zeros_like(photo), np.zeros(photo.shape[:2], np.float32)
    paste(square, total, weight, matrix)
    full = weight > 0.999
    assert full.sum() > 0.4 * side**2
    assert np.abs(total[full] / weight[full][:, None] - photo[full]).mean() < 0.01
    assert weight.max() <= 1.0001
    outside = np.ones_like(weight, bool)
    ys, xs = np.nonzero(weight)
    outside[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = False
    assert max(ys.max() - ys.min(), xs.max() - xs.min()) < 1.5 * side + 4
    assert not total[outside].any()


def test_the_edge_of_a_pasted_square_fades() -> None:
    total, weight = np.zeros((300, 300, 3), np.float32), np.zeros((300, 300), np.float32)
    paste(np.ones((128, 128, 3), np.float32), total, weight, np.array([[1.0, 0, -80], [0, 1.0, -80]]))
    steps = np.abs(np.diff(weight[144]))
    assert weight[144, 144] == 1
    assert steps.max() < 1.6 / (128 / 8)  # the steepest of a smooth step over an eighth of the side


def test_a_fine_pattern_that_is_pasted_smaller_becomes_its_mean() -> None:
    stripes = np.zeros((128, 128, 3), np.float32)
    stripes[:, ::2] = 1
    total, weight = np.zeros((100, 100, 3), np.float32), np.zeros((100, 100), np.float32)
    paste(stripes, total, weight, np.array([[3.2, 0, -100.0], [0, 3.2, -100.0]]))
    inside = total[weight > 0.999]
    assert inside.mean() == pytest.approx(0.5, abs=0.02)
    assert inside.std() < 0.05


def test_a_fine_pattern_that_is_cropped_smaller_becomes_its_mean() -> None:
    stripes = np.zeros((300, 330, 3), np.float32)
    stripes[::2] = (0.9, 0.6, 0.3)
    square = crop(stripes, np.array([[0.3, 0, -10.0], [0, 0.3, -8.0]]), 60)
    assert np.abs(square - (0.45, 0.3, 0.15)).max() < 0.05


def test_a_picture_is_shrunk_to_the_means_of_its_pixels() -> None:
    picture = np.random.default_rng(0).random((36, 20, 3), np.float32)
    half = shrink(picture, 0.5)
    np.testing.assert_allclose(half, picture.reshape(18, 2, 10, 2, 3).mean(axis=(1, 3)), atol=1e-6)
    third = picture[:30, :15].reshape(10, 3, 5, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink(picture[:30, :15], 1 / 3), third, atol=1e-6)
    assert shrink(picture, 0.63).shape == (23, 13, 3)
    assert shrink(picture, 0.01).shape == (1, 1, 3)
    assert shrink(picture, 1) is picture
    assert shrink(picture, 1.5) is picture


def test_opencvs_picture_is_bgr_rounded_and_clipped() -> None:
    red, green, blue = (np.array([[-0.2, 0.0, 0.5], [100.6 / 255, 1.0, 1.3]], np.float32) * f for f in (1, 0.5, 0.1))
    expected = [[[0, 0, 0], [0, 0, 0], [13, 64, 128]], [[10, 50, 101], [26, 128, 255], [33, 166, 255]]]
    np.testing.assert_array_equal(to_bgr(np.dstack([red, green, blue])), expected)


def test_boxes_by_hand_give_the_squares_that_landmarks_give_in_the_median_of_faces() -> None:
    source, shares, shifts = orl_faces("val"), [], []
    for name in source.names[::5]:
        photo = np.repeat(cv2.resize(source.read(name)[..., :1], (276, 336))[..., None], 3, axis=2)
        (face,) = load_detector("dlib").find(photo.astype(np.float32) / 255, 0)
        by_box, by_landmarks = (cv2.invertAffineTransform(f.to_square(128)) for f in (Face(face.box), face))
        assert by_box[0, 1] == by_box[1, 0] == 0  # not turned
        middles = [cv2.transform(np.array([[(64.0, 64.0)]]), matrix)[0, 0] for matrix in (by_box, by_landmarks)]
        sides = [128 * np.sqrt(np.linalg.det(matrix[:, :2])) for matrix in (by_box, by_landmarks)]
        shares.append(sides[0] / sides[1])
        shifts.append((middles[0] - middles[1]) / sides[1])
    assert len(shares) == 8
    assert np.median(shares) == pytest.approx(1, abs=0.05)
    assert np.abs(np.median(shifts, axis=0)).max() < 0.02


def test_a_square_outside_the_picture_is_refused() -> None:
    with pytest.raises(UserError, match="outside the picture"):
        crop(np.zeros((50, 50, 3), np.float32), Face((500, 500, 520, 520)).to_square(128), 128)


@pytest.mark.parametrize(
    ("left", "top"),
    [(-43, 0), (0, -43), (49, 0), (0, 63)],  # with the 2 px that are looked at around a square of 40 px
)
def test_a_square_that_touches_the_picture_from_outside_is_refused(left: int, top: int) -> None:
    picture = np.random.default_rng(0).random((61, 47, 3), np.float32)
    with pytest.raises(UserError, match="outside the picture"):
        crop(picture, np.array([[1.0, 0, -left], [0, 1.0, -top]]), 40)
    nearer = np.sign([30 - left, 30 - top]) * [left != 0, top != 0]
    square = crop(picture, np.array([[1.0, 0, -left - nearer[0]], [0, 1.0, -top - nearer[1]]]), 40)
    assert square.shape == (40, 40, 3)


@pytest.mark.parametrize(("left", "top"), [(-15, -12), (22, -12), (-15, 33), (22, 33)])
def test_what_lies_outside_the_picture_is_its_reflection(left: int, top: int) -> None:
    picture = np.random.default_rng(0).random((61, 47, 3), np.float32)
    square = crop(picture, np.array([[1.0, 0, -left], [0, 1.0, -top]]), 40)
    mirrored = np.pad(picture, ((20, 20), (20, 20), (0, 0)), mode="reflect")
    np.testing.assert_allclose(square, mirrored[20 + top : 60 + top, 20 + left : 60 + left], atol=1e-6)


@pytest.mark.parametrize(
    ("box", "same"),
    [  # of 100x50 px, intersection over union by hand
        ((0, 0, 41, 50), True), ((0, 0, 39, 50), False),  # 0.41 and 0.39
        ((41, 0, 141, 50), True), ((44, 0, 144, 50), False),  # 59/141 = 0.418 and 56/144 = 0.389
        ((0, -20, 100, 30), True), ((0, -22, 100, 28), False),  # 30/70 = 0.429 and 28/72 = 0.389
        ((30, 12, 85, 50), True), ((30, 12, 80, 50), False),  # 2090/5000 = 0.418 and 1900/5000 = 0.38
    ],
)  # fmt: skip
def test_boxes_that_share_two_fifths_are_of_one_face(box: tuple, same: bool) -> None:
    whole, other = Face((0, 0, 100, 50), 0.9), Face(box, 0.7)
    assert (same_face(whole, other), same_face(other, whole)) == (same, same)
    assert without_doubles([other, whole]) == ([whole] if same else [whole, other])


def test_boxes_of_one_face_are_recognised() -> None:
    assert same_face(Face((0, 0, 100, 100)), Face((10, 10, 110, 110)))
    assert not same_face(Face((0, 0, 100, 100)), Face((60, 60, 160, 160)))
    assert not same_face(Face((0, 0, 10, 10)), Face((50, 50, 60, 60)))


def test_a_box_from_landmarks_lies_in_their_square() -> None:
    face = face_from_landmarks(200 * TEMPLATE + (30, 50), 0.9)  # a square of 200 px at (30, 50)
    assert face.score == 0.9
    half, middle = 200 / 1.73 / 2, (130, 150 + 0.095 * 200)
    assert face.box == pytest.approx((130 - half, middle[1] - half, 130 + half, middle[1] + half), abs=0.01)
    np.testing.assert_allclose(Face(face.box).to_square(128), face.to_square(128), atol=1e-3)
    with pytest.raises(UserError, match="on one spot"):
        face_from_landmarks(np.full((5, 2), 7.0), 0.9)


def test_of_boxes_of_one_face_the_surest_is_kept() -> None:
    faces = [Face((0, 0, 100, 100), 0.6), Face((200, 0, 300, 100), 0.5), Face((10, 10, 110, 110), 0.9)]
    assert [face.score for face in without_doubles(faces)] == [0.9, 0.5]


@pytest.mark.parametrize("angle", [0, 25])
def test_a_face_that_is_moved_to_a_square_and_back_is_where_it_was(angle: float) -> None:
    matrix = cv2.getRotationMatrix2D((250.0, 200.0), angle, 0.4)
    landmarks = np.array([(230.0, 190.0), (270, 190), (250, 205), (235, 220), (265, 220)])
    middle = cv2.transform(np.array([[(250.0, 210.0)]]), matrix)[0, 0]
    moved = Face((*(middle - 16), *(middle + 16)), 0.7, cv2.transform(landmarks[None], matrix)[0])
    face = moved.moved_from(matrix)
    assert face.box == pytest.approx((210, 170, 290, 250))  # 32 px of a square at 0.4 are 80 px
    assert face.score == 0.7
    np.testing.assert_allclose(face.landmarks, landmarks)
