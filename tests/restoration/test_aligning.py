"""Training faces out of photographs: where their eyes lie, what is left out, and the command."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from skimage import data

from dfpg_cli.main import main
from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics.recognisers import find_dlib_models
from dfpg_plugin.restoration.aligning import FaceCutter
from dfpg_plugin.restoration.detectors import Detector
from dfpg_plugin.restoration.faces import TEMPLATE, Face

ORIENTATION = 0x0112  # EXIF's tag
EYES = TEMPLATE[:2] * 128 + 16  # px, in 160
ASTRONAUT = data.astronaut()  # RGB (512,512,3); the restorer's square of her face is 169 px wide
CUTTER = FaceCutter(160, 128)


def png(rgb: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()


def save_turned(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Save a picture as a camera does that was held upright: stored lying, with EXIF's orientation 6."""
    exif = PillowImage.Exif()
    exif[ORIENTATION] = 6
    PillowImage.fromarray(np.ascontiguousarray(np.rot90(rgb, 1))).save(path, exif=exif, quality=95)


def eyes_of(face: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the middles of a face's eyes (2,2) as dlib's 68 landmarks have them, looked at in twice the size."""
    import dlib

    predictor = dlib.shape_predictor(str(find_dlib_models("test") / "shape_predictor_68_face_landmarks.dat"))
    large = np.ascontiguousarray(cv2.resize(face, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)[..., ::-1])
    box = max(dlib.get_frontal_face_detector()(large, 0), key=lambda box: box.area())
    points = np.array([(p.x, p.y) for p in predictor(large, box).parts()]) / 2 - 0.25
    return np.array([points[36:42].mean(axis=0), points[42:48].mean(axis=0)])


def test_the_eyes_lie_in_the_templates_place() -> None:
    turned = cv2.warpAffine(ASTRONAUT, cv2.getRotationMatrix2D((220, 120), 15, 1), (512, 512), borderValue=(90,) * 3)
    for photograph in (ASTRONAUT, cv2.resize(ASTRONAUT, None, fx=2.5, fy=2.5), turned):
        faces, _ = CUTTER(png(photograph), "a.png")
        assert [(f.shape, f.dtype) for f in faces] == [((160, 160, 3), np.uint8)]
        assert np.abs(eyes_of(faces[0]) - EYES).max() < 3


def test_a_detector_without_a_least_score_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"detector: 'centerface' is not one of dlib, facexlib\."):
        FaceCutter(160, 128, "centerface")


def test_every_face_of_a_photograph_is_cut_out() -> None:
    both = np.hstack([ASTRONAUT[:300], cv2.resize(ASTRONAUT[:300], None, fx=1.5, fy=1.5)[:300]])
    faces, _ = CUTTER(png(both), "a.png")
    assert len(faces) == 2
    for face in faces:
        assert np.abs(eyes_of(face) - EYES).max() < 3


def test_grey_deep_and_transparent_photographs_are_read() -> None:
    grey = cv2.cvtColor(ASTRONAUT, cv2.COLOR_RGB2GRAY)
    alpha = np.dstack([ASTRONAUT[..., ::-1], np.full((512, 512), 255, np.uint8)])
    deep = ASTRONAUT[..., ::-1].astype(np.uint16) * 257
    faces = [CUTTER(cv2.imencode(".png", image)[1].tobytes(), "a.png")[0][0] for image in (deep, alpha, grey)]
    (plain,), _ = CUTTER(png(ASTRONAUT), "a.png")
    assert np.abs(faces[0].astype(int) - plain).max() <= 1
    np.testing.assert_array_equal(faces[1], plain)
    np.testing.assert_array_equal(faces[2][..., 0], faces[2][..., 2])


@pytest.mark.parametrize(
    ("photograph", "changes", "reason"),
    [
        (cv2.resize(ASTRONAUT, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), {}, "too small, its square is 10"),
        (ASTRONAUT, {"min_side": 250}, "too small, its square is 169 px wide, 250 px are needed"),
        (ASTRONAUT, {"min_score": 5.0}, r"doubtful, its score is 1\.\d+, below 5"),
        (ASTRONAUT[60:], {}, r"cut off, \d+ % of its square lie outside the photograph"),
        (data.coffee(), {}, "no face found"),
    ],
)
def test_what_is_left_out_has_a_reason(photograph: NDArray, changes: dict, reason: str) -> None:
    faces, reasons = FaceCutter(160, 128, **changes)(png(photograph), "a.png")
    assert faces == []
    assert any(re.match(rf"(face at \d+,\d+: )?{reason}", text) for text in reasons), reasons


@pytest.mark.parametrize(("min_score", "asked"), [(None, 0.2), (0.1, 0.1), (0.9, 0.2)])
def test_a_lower_min_score_asks_the_detector_for_more(monkeypatch, min_score: float | None, asked: float) -> None:
    given = []
    detector = Detector(lambda picture, least: given.append(least) or [], threshold=0.2, doubt=0.0)
    monkeypatch.setattr("dfpg_plugin.restoration.aligning.load_detector", lambda *_: detector)
    FaceCutter(160, 128, min_score=min_score)(png(ASTRONAUT), "a.png")
    assert given == [asked]


def test_landmarks_that_are_no_faces_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored = TEMPLATE[[1, 0, 2, 4, 3]] * 200 + 150
    spot = np.full((5, 2), 200.0)
    found = [Face((150, 150, 350, 350), 2.0, points) for points in (mirrored, spot)]
    detector = Detector(lambda picture, least: found, threshold=0.0, doubt=0.0)
    monkeypatch.setattr("dfpg_plugin.restoration.aligning.load_detector", lambda *_: detector)
    faces, reasons = CUTTER(png(ASTRONAUT), "a.png")
    assert faces == []
    assert "a landmark lies" in reasons[0]
    assert len(reasons) == 2


@pytest.mark.parametrize(("left", "top"), [(37, 8), (9, 30)])
def test_a_face_keeps_its_pixels_and_colours_with_a_margin_around_the_square(
    monkeypatch: pytest.MonkeyPatch, left: int, top: int
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (75, 90, 3), np.uint8)
    found = Face((left, top, left + 30, top + 30), 2.0, TEMPLATE * 30 + (left, top))  # neither turned nor scaled
    detector = Detector(lambda picture, least: [found], threshold=0.0, doubt=0.0)
    monkeypatch.setattr("dfpg_plugin.restoration.aligning.load_detector", lambda *_: detector)
    (face,), _ = FaceCutter(44, 30, min_side=29)(png(rgb), "a.png")
    expected = rgb[top - 7 : top + 37, left - 7 : left + 37, ::-1]  # BGR
    assert np.abs(face.astype(int) - expected).max() <= 1


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A person's folder with one face upright and one turned by EXIF, and photographs outside of it."""
    folder = tmp_path / "photos"
    (folder / "AJ_Lamas" / "party").mkdir(parents=True)
    PillowImage.fromarray(ASTRONAUT).save(folder / "AJ_Lamas" / "1.png")
    save_turned(folder / "AJ_Lamas" / "party" / "1.jpg", ASTRONAUT)
    PillowImage.fromarray(ASTRONAUT[:, ::-1]).save(folder / "George_W_Bush.png")
    PillowImage.fromarray(data.coffee()).save(folder / "cup.png")
    (folder / "phone.heic").write_bytes(b"not a picture that OpenCV reads")
    (folder / "broken.jpg").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"Bud1")
    return folder


def run(target: Path, photos: Path, *more: str) -> int:
    return main(["prepare", "faces", str(target), "--photos", str(photos), *more])


def test_a_folder_of_photographs_becomes_faces_by_split_and_person(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "own"
    assert run(target, photos) == 0
    out, err = capsys.readouterr()
    assert out == f"{target}: 3 faces (1 train, 0 val, 2 test)\n"
    files = sorted(p.relative_to(target).as_posix() for p in target.rglob("*.png"))
    assert files == [
        "test/AJ_Lamas/AJ_Lamas_1_1.png",
        "test/AJ_Lamas/AJ_Lamas_party_1_1.png",
        "train/George_W_Bush/George_W_Bush_1.png",
    ]
    for file in files:
        assert np.abs(eyes_of(cv2.imread(str(target / file))) - EYES).max() < 3, file
    for line in ("cup.png: no face found", "broken.jpg: not an image that can be read", "phone.heic: not of a kind"):
        assert line in err
    assert ".DS_Store: hidden" in err
    manifest = json.loads((target / "manifest.json").read_text())
    entry = manifest["photographs"]["cup.png"]
    assert (entry["person"], entry["faces"], entry["left_out"]) == ("cup", {}, ["no face found"])
    assert (manifest["detector"], manifest["min_side"], manifest["size"]) == ("dlib", 128, 160)


def test_photographs_are_looked_at_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "own"
    run(target, photos)
    looked: list[str] = []
    cut: Callable = FaceCutter.__call__

    def note(self: FaceCutter, content: bytes, name: str) -> tuple:
        looked.append(name)
        return cut(self, content, name)

    monkeypatch.setattr(FaceCutter, "__call__", note)
    PillowImage.fromarray(data.coffee()).save(photos / "George_W_Bush.png")  # no face any more
    PillowImage.fromarray(ASTRONAUT).save(photos / "new.png")
    assert run(target, photos) == 0
    assert sorted(looked) == ["George_W_Bush.png", "new.png"]
    assert not list(target.rglob("George_W_Bush_1.png"))
    assert list(target.rglob("new_1.png"))


def test_photographs_of_the_same_name_and_wrong_flags_are_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    PillowImage.fromarray(ASTRONAUT).save(photos / "AJ_Lamas_1.png")
    assert run(tmp_path / "own", photos) == 0
    # both would be AJ_Lamas_1_1.png, of another person each
    assert "AJ_Lamas_1.png: its faces would be called like those of AJ_Lamas/1.png" in capsys.readouterr().err
    assert run(tmp_path / "own", photos, "--min_side", "64") == 2
    assert "was made with other settings (min_side)" in capsys.readouterr().err
    assert main(["prepare", "faces", str(tmp_path / "x"), "--lfw", str(photos), "--detector", "dlib"]) == 2
    assert "--detector: has no effect on LFW's faces" in capsys.readouterr().err
    assert run(tmp_path / "x", tmp_path / "nowhere") == 2
    assert "--photos: the folder" in capsys.readouterr().err


def test_a_missing_detector_is_an_error_and_no_reason(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise UserError("detector: dlib is missing")

    monkeypatch.setattr("dfpg_plugin.restoration.aligning.load_detector", missing)
    with pytest.raises(UserError, match="dlib is missing"):
        CUTTER(png(ASTRONAUT), "a.png")
