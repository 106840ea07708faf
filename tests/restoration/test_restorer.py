"""Restoring photographs: faces change as the network says, everything else stays; what fails is left alone."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from kit import photo, write_yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.restoration.detectors import Detector
from dfpg_plugin.restoration.faces import Face
from dfpg_plugin.restoration.network import load_described
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import Settings


def middle(box: tuple) -> tuple[int, int]:
    left, top, right, bottom = box
    return round((top + bottom) / 2), round((left + right) / 2)


def test_faces_change_as_the_network_says_and_all_else_stays_bit_for_bit(weights: str) -> None:
    restorer = DFPGRestorer(weights)
    picture = Picture(photo())
    restored = restorer.restore_picture(picture)
    assert len(restored.faces) >= 3
    before, after = picture.pixels.astype(int), restored.picture.pixels.astype(int)
    for face in restored.faces:
        assert face.error is None
        assert face.score is not None
        y, x = middle(face.box)
        patch = (slice(y - 10, y + 10), slice(x - 10, x + 10))
        expected = np.minimum(before[patch] + 25.5, 255)
        assert np.abs(after[patch] - expected)[before[patch] < 225].max() <= 2  # what was near white is clipped
    changed = (before != after).any(axis=2)
    assert 0.05 < changed.mean() < 0.8
    assert np.array_equal(after[-20:], before[-20:])  # below all faces


@pytest.mark.parametrize("kind", ["bgr", "rgb", "path", "pil", "grey", "alpha", "16 bits"])
def test_what_comes_in_comes_out(weights: str, tmp_path: Path, kind: str) -> None:
    image = photo()
    restorer = DFPGRestorer(weights, settings=Settings(recogniser=None))
    expected = restorer.restore(image)
    assert expected.dtype == np.uint8
    assert not np.array_equal(expected, image)
    if kind == "rgb":
        assert np.array_equal(restorer.restore(image[..., ::-1], "rgb")[..., ::-1], expected)
    elif kind == "path":
        cv2.imwrite(str(tmp_path / "p.png"), image)
        assert np.array_equal(restorer.restore(tmp_path / "p.png"), expected)
    elif kind == "pil":
        result = restorer.restore(Image.fromarray(image[..., ::-1].copy()))
        assert isinstance(result, Image.Image)
        assert np.array_equal(np.asarray(result)[..., ::-1], expected)
    elif kind == "grey":
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        result = restorer.restore(grey)
        assert result.shape == grey.shape
        assert (result != grey).mean() > 0.05
    elif kind == "alpha":
        alpha = np.dstack([image, np.full(image.shape[:2], 77, np.uint8)])
        assert np.array_equal(restorer.restore(alpha), np.dstack([expected, alpha[..., 3]]))
    elif kind == "16 bits":
        result = restorer.restore(image.astype(np.uint16) * 257)
        assert result.dtype == np.uint16
        assert np.abs(result / 257.0 - expected).max() < 1.01


def test_a_picture_without_a_face_is_returned_as_it_is(weights: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    restored = DFPGRestorer(weights).restore_picture(Picture(image))
    assert restored.faces == []
    assert np.array_equal(restored.picture.pixels, image)


def test_an_aligned_face_is_restored_whole(weights: str) -> None:
    image = photo()[40:264, 20:204]
    restored = DFPGRestorer(weights, settings=Settings(mode="aligned")).restore_picture(Picture(image))
    expected = np.minimum(image + 25.5, 255)
    assert np.abs(restored.picture.pixels - expected).max() <= 1
    assert restored.faces[0].identity_change == pytest.approx(0, abs=0.1)


def test_a_box_by_hand_needs_no_detector(weights: str) -> None:
    image = np.full((300, 300, 3), 100, np.uint8)
    restored = DFPGRestorer(weights, settings=Settings(boxes=[(100, 100, 160, 160)])).restore_picture(Picture(image))
    assert restored.faces[0].score is None
    assert restored.picture.pixels[130, 130, 0] == round(100 + 25.5)
    assert (restored.picture.pixels[:40] == 100).all()


BOXES = {"photo": [(100, 100, 160, 160)], "aligned": []}  # by mode


@pytest.mark.parametrize("mode", BOXES)
@pytest.mark.parametrize(
    ("dtype", "value", "strength", "expected"),
    [  # the network adds a tenth: value + strength * 25.5 of 255, or 6553.5 of 65535
        (np.uint8, 100, 0.5, 113), (np.uint8, 100, 0.2, 105), (np.uint8, 100, 1, 126),
        (np.uint16, 20_000, 0.25, 21_638), (np.uint16, 20_000, 1.0, 26_554),
    ],
)  # fmt: skip
def test_the_strength_is_the_part_of_the_change_that_is_applied(
    weights: str, mode: str, dtype: type, value: int, strength: float, expected: int
) -> None:
    image = np.full((300, 300, 3), value, dtype)
    settings = Settings(mode=mode, boxes=BOXES[mode], strength=strength, recogniser=None)
    restored = DFPGRestorer(weights, settings=settings).restore(image)
    assert restored.dtype == dtype
    assert np.abs(restored[130, 130].astype(int) - expected).max() <= (dtype == np.uint16)  # of float32's rounding


@pytest.mark.parametrize("mode", BOXES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strength_0_gives_the_input_bit_for_bit(weights: str, mode: str, dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (300, 300, 4), dtype, endpoint=True)
    settings = Settings(mode=mode, boxes=BOXES[mode], strength=0, recogniser=None)
    assert np.array_equal(DFPGRestorer(weights, settings=settings).restore(image), image)


def test_the_change_of_identity_is_measured_at_the_strength_that_is_applied(weights: str) -> None:
    whole, none = (DFPGRestorer(weights, settings=Settings(strength=strength)) for strength in (1, 0))
    changes = [restorer.restore_picture(Picture(photo())).faces[0].identity_change for restorer in (whole, none)]
    assert changes[1] == pytest.approx(0, abs=1e-9)
    assert changes[0] > 1e-6


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan"), "half", True])
def test_a_strength_that_is_none_is_refused(strength: object) -> None:
    with pytest.raises(UserError, match=r"strength: expected a number from 0 to 1, got"):
        Settings(strength=strength)


def test_weights_that_are_not_finite_restore_nothing(weights: str, tmp_path: Path) -> None:
    broken = {name: torch.full_like(value, torch.nan) for name, value in load_file(weights).items()}
    save_file(broken, tmp_path / "nan.safetensors", {"network_g": json.dumps({"type": "Brighten"})})
    with pytest.raises(UserError, match=r"nan\.safetensors: 1 of its weights are not finite real numbers"):
        DFPGRestorer(str(tmp_path / "nan.safetensors"))


def test_a_network_that_was_trained_on_grey_pictures_leaves_colours_alone(weights: str, tmp_path: Path) -> None:
    about = {"network_g": json.dumps({"type": "Brighten"}), "sees": "grey"}
    save_file(load_file(weights), tmp_path / "grey.safetensors", about)
    restorer = DFPGRestorer(str(tmp_path / "grey.safetensors"), settings=Settings(mode="aligned", recogniser=None))
    seen = []
    restorer.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = np.random.default_rng(0).integers(0, 200, (64, 64, 3), np.uint8)
    restored = restorer.restore(image)
    assert np.abs(restored - (image + 25.5)).max() <= 1
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) / 255
    assert all(np.abs(seen[0][0, c].numpy() - grey).max() < 0.01 for c in range(3))


class Failing(torch.nn.Module):
    """Can't restore bright squares, and not two at a time."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.unused = way, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "nan":
            return x + torch.where(x.mean(dim=(1, 2, 3), keepdim=True) > 0.5, torch.nan, 0.1)
        if len(x) > 1 or x.mean() > 0.5:
            raise RuntimeError("out of memory")
        return x + 0.1


def test_a_face_that_fails_is_told_to_who_calls_from_python(weights: str) -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    outside = DFPGRestorer(weights, settings=Settings(boxes=[(700, 700, 800, 800)], recogniser=None))
    with pytest.warns(UserWarning, match="The face at 700, 700, 800, 800 px is left as it was: "):
        result = outside.restore(image)
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image)
    aligned = DFPGRestorer(weights, settings=Settings(mode="aligned", recogniser=None))
    aligned.network = Failing("raise")
    with pytest.raises(UserError, match=r"image: can't be restored: .*out of memory"):
        aligned.restore(np.full_like(image, 200))


@pytest.mark.parametrize("way", ["nan", "raise"])
def test_a_face_that_fails_is_left_as_it_is_and_the_others_are_restored(monkeypatch, tmp_path: Path, way: str) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Failing", Failing)
    options = json.dumps({"type": "Failing", "way": way})
    save_file({"unused": torch.zeros(1)}, tmp_path / "f.safetensors", {"network_g": options})
    image = np.full((300, 600, 3), 50, np.uint8)
    image[:, 300:] = 200
    boxes = [(100, 100, 160, 160), (420, 100, 480, 160)]
    restorer = DFPGRestorer(str(tmp_path / "f.safetensors"), settings=Settings(boxes=boxes, recogniser=None))
    restored = restorer.restore_picture(Picture(image))
    assert [face.error is None for face in restored.faces] == [True, False]
    assert ("not finite" if way == "nan" else "out of memory") in restored.faces[1].error
    assert np.array_equal(restored.picture.pixels[:, 300:], image[:, 300:])
    assert restored.picture.pixels[130, 130, 0] == round(50 + 25.5)


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What a detector looked at, whose score of one face is the brightness where the face lies."""
    looked_at: list[np.ndarray] = []

    def find(picture: np.ndarray, least: float) -> list[Face]:
        looked_at.append(picture.copy())
        whole = picture.shape == (300, 300, 3)
        score = float(picture[130, 130, 0] if whole else picture[64, 64, 0])
        box = (100, 100, 160, 160) if whole else (26, 40, 100, 114)  # where that box lies in its square
        return [Face(box, score)] if score >= least else []

    detector = Detector(find, threshold=0.45, doubt=0.1)
    monkeypatch.setattr("dfpg_plugin.restoration.restorer.load_detector", lambda name, weights: detector)
    return looked_at


def test_a_doubtful_face_is_confirmed_in_its_restored_square(weights: str, brightness: list) -> None:
    """The second look sees the restored square only, and the face is restored from what was given."""
    image = np.full((300, 300, 3), 102, np.uint8)
    settings = Settings(recogniser=None)
    restored = DFPGRestorer(weights, settings=settings).restore_picture(Picture(image))
    assert [picture.shape for picture in brightness] == [(300, 300, 3), (128, 128, 3)]
    assert brightness[1][64, 64, 0] == pytest.approx(0.5, abs=1e-3)  # 0.4 and a tenth
    (face,) = restored.faces
    assert face.score == pytest.approx(0.5, abs=1e-3)
    assert face.box == pytest.approx((100, 100, 160, 160), abs=2)
    assert restored.picture.pixels[130, 130, 0] == round(102 + 25.5)  # not twice
    settings.passes = 1
    assert DFPGRestorer(weights, settings=settings).restore_picture(Picture(image)).faces == []


@pytest.mark.parametrize(
    ("value", "threshold", "faces", "looks"),
    [
        (102, None, 1, 2), (128, None, 1, 1), (89, None, 0, 1), (102, 0.4, 1, 1), (102, 0.48, 1, 2),
        (115, 0.6, 0, 1), (133, 0.6, 1, 2), (131, 0.65, 0, 1),
    ],
)  # fmt: skip
def test_sure_faces_need_no_second_look_and_unlikely_ones_get_none(
    weights: str, brightness: list, value: int, threshold: float | None, faces: int, looks: int
) -> None:
    settings = Settings(recogniser=None, threshold=threshold)
    restored = DFPGRestorer(weights, settings=settings).restore_picture(
        Picture(np.full((300, 300, 3), value, np.uint8))
    )
    assert (len(restored.faces), len(brightness)) == (faces, looks)


def noise(height: int = 300, width: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(20, 180, (height, width, 3), np.uint8)


@pytest.fixture
def detected(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Face], list[list[Face]]], list]:
    """Let a detector find these faces in the picture, then these in its squares; return what it looked at."""

    def install(first: list[Face], then: list[list[Face]]) -> list:
        looked_at: list[np.ndarray] = []

        def find(picture: np.ndarray, least: float) -> list[Face]:
            looked_at.append(picture)
            return [face for face in [first, *then][len(looked_at) - 1] if face.score >= least]

        detector = Detector(find, threshold=0.5, doubt=0.2)
        monkeypatch.setattr("dfpg_plugin.restoration.restorer.load_detector", lambda name, weights: detector)
        return looked_at

    return install


def in_square(box: tuple, seen_at: tuple, score: float) -> Face:
    """Return the face that lies at ``box``, in the square of one that was seen at another place."""
    matrix = Face(seen_at).to_square(128)
    corners = np.array([box[:2], box[2:]]) @ matrix[:, :2].T + matrix[:, 2]
    return Face(tuple(corners.ravel()), score)


SURE, DOUBTFUL = (60, 100, 120, 160), (260, 120, 320, 180)


@pytest.mark.parametrize(
    ("doubtful", "again", "expected"),
    [
        (DOUBTFUL, [DOUBTFUL], [SURE, DOUBTFUL]),
        (DOUBTFUL, [], [SURE]),
        (DOUBTFUL, [(300, 150, 360, 210)], [SURE]),  # somebody else, in the corner of the square
        ((86, 100, 146, 160), [(86, 100, 146, 160)], [SURE, (86, 100, 146, 160)]),  # 34/86 in common: two faces
        ((86, 100, 146, 160), [(76, 100, 136, 160)], [SURE]),  # 44/76: a closer look finds the sure one again
    ],
)
def test_sure_faces_stay_and_confirmed_ones_join_them(
    weights: str, detected: Callable, doubtful: tuple, again: list, expected: list
) -> None:
    detected([Face(SURE, 0.9), Face(doubtful, 0.4)], [[in_square(box, doubtful, 0.8) for box in again]])
    image = noise()
    restored = DFPGRestorer(weights, settings=Settings(recogniser=None)).restore_picture(Picture(image))
    assert [face.box for face in restored.faces] == [pytest.approx(box, abs=1e-3) for box in expected]
    change = restored.picture.pixels.astype(int) - image
    for box in expected:
        assert np.isin(change[middle(box)], (25, 26)).all()
    for box in {SURE, DOUBTFUL} - set(expected):
        assert (change[middle(box)] == 0).all()


def test_of_many_doubtful_faces_the_surest_sixteen_are_looked_at_again(weights: str, detected: Callable) -> None:
    boxes = [(20 + 40 * (i % 9), 20 + 40 * (i // 9), 50 + 40 * (i % 9), 50 + 40 * (i // 9)) for i in range(20)]
    surest_last = [Face(box, 0.35 + 0.005 * i) for i, box in enumerate(boxes)]
    again = [[in_square(box, box, 0.8)] for box in boxes[::-1]]
    looked_at = detected(surest_last, again)
    restored = DFPGRestorer(weights, settings=Settings(recogniser=None)).restore_picture(Picture(noise()))
    assert len(looked_at) == 1 + 16
    found = sorted(face.box for face in restored.faces)
    assert found == [pytest.approx(box, abs=1e-3) for box in sorted(boxes[4:])]


def test_where_faces_overlap_their_changes_are_averaged(weights: str) -> None:
    image = noise()
    boxes = [(100, 100, 160, 160), (140, 110, 210, 180), (130, 80, 190, 140)]
    settings = Settings(boxes=boxes, recogniser=None)
    restored = DFPGRestorer(weights, settings=settings).restore_picture(Picture(image))
    change = restored.picture.pixels.astype(int) - image
    assert [face.error for face in restored.faces] == [None] * 3
    assert set(np.unique(change)) <= set(range(27))  # nowhere more than the network's tenth
    for box in boxes:
        assert np.isin(change[middle(box)], (25, 26)).all()


@pytest.mark.parametrize("shape", [(61, 45), (64, 41), (5, 3)])
def test_the_network_sees_a_picture_that_is_continued_by_its_edge(weights: str, shape: tuple[int, int]) -> None:
    image = noise(*shape)
    restorer = DFPGRestorer(weights, settings=Settings(mode="aligned", recogniser=None))
    seen = []
    restorer.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert np.abs(restorer.restore(image) - (image + 25.5)).max() <= 1
    height, width = shape
    continued = np.pad(image[..., ::-1], ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0).numpy(), continued / 255, atol=1e-6)


class Mean(torch.nn.Module):
    """Averages 9x9 px, zeros around the picture: at the edge of a tile as well."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 9, 1, 4)


@pytest.mark.parametrize("shape", [(40, 1104), (1104, 48)])
def test_a_large_picture_is_restored_without_seams(monkeypatch, tmp_path: Path, shape: tuple[int, int]) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Mean", Mean)
    save_file({"unused": torch.zeros(1)}, tmp_path / "m.safetensors", {"network_g": json.dumps({"type": "Mean"})})
    image = noise(*shape)
    restorer = DFPGRestorer(str(tmp_path / "m.safetensors"), settings=Settings(mode="aligned", recogniser=None))
    expected = cv2.blur(image.astype(np.float64), (9, 9), borderType=cv2.BORDER_CONSTANT)
    assert np.abs(restorer.restore(image) - expected).max() < 0.51


def test_squares_of_several_sizes_come_back_in_their_order(weights: str) -> None:
    sizes = [(8, 16), (16, 8), (8, 16), (8, 8), (16, 8), (8, 16), (8, 16)]
    squares = [np.random.default_rng(i).random((*size, 3), np.float32) * 0.8 for i, size in enumerate(sizes)]
    restorer = DFPGRestorer(weights, settings=Settings(recogniser=None, batch_size=3))
    shapes = []
    restorer.network.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    for square, restored in zip(squares, restorer.restore_squares(squares), strict=True):
        np.testing.assert_allclose(restored, square + 0.1, atol=1e-6)
    assert shapes == [(3, 3, 8, 16), (1, 3, 8, 16), (2, 3, 16, 8), (1, 3, 8, 8)]


def test_nothing_is_restored_where_no_face_is_likely(weights: str) -> None:
    restorer = DFPGRestorer(weights, settings=Settings(recogniser=None))
    runs = []
    restorer.network.register_forward_pre_hook(lambda module, args: runs.append(args[0].shape))
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    assert restorer.restore_picture(Picture(image)).faces == []
    assert runs == []


def test_a_threshold_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="threshold: expected a number, got nan"):
        Settings(threshold=float("nan"))


def test_which_weights_and_whose_options(tmp_path: Path, weights: str) -> None:
    torch.save(
        {"params_ema": {"amount": torch.tensor(0.2)}, "params": {"amount": torch.tensor(9.0)}}, tmp_path / "n.pth"
    )
    with pytest.raises(UserError, match=r"n\.pth: which network is it\? Name the option file"):
        DFPGRestorer(str(tmp_path / "n.pth"))
    models = tmp_path / "run" / "models"
    models.mkdir(parents=True)
    (tmp_path / "n.pth").rename(models / "net_g_best.pth")
    (tmp_path / "run" / "run.yml").write_text("network_g: {type: Brighten}\n")
    beside = DFPGRestorer(str(models / "net_g_best.pth"))
    assert float(beside.network.amount) == pytest.approx(0.2)
    named = DFPGRestorer(weights, str(tmp_path / "run" / "run.yml"))
    assert float(named.network.amount) == pytest.approx(0.1)
    (tmp_path / "other.yml").write_text("network_g: {type: Brigten}\n")
    with pytest.raises(UserError, match="network_g"):
        DFPGRestorer(weights, str(tmp_path / "other.yml"))
    (tmp_path / "cut.safetensors").write_bytes(Path(weights).read_bytes()[:-3])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        DFPGRestorer(str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(weights: str, device: str) -> None:
    with pytest.raises(UserError, match=f"--device {device}: is not there"):
        DFPGRestorer(weights, settings=Settings(device=device))


def test_a_network_that_was_sized_to_its_prior_is_loaded_in_that_size(tmp_path: Path, demo_options: dict) -> None:
    arcface = {"type": "ArcFaceFeatureExtractor", "weights": "elsewhere.pth"}
    trained = build_network({**demo_options["network_g"], "prior_channels": [64, 64, 128]})
    file = tmp_path / "net.pth"
    torch.save({"params": trained.state_dict()}, file)
    loaded, _ = load_described(
        str(file), str(write_yaml(tmp_path / "o.yml", {**demo_options, "network_prior": arcface}))
    )
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
