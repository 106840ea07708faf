"""Settings of a restoration act: what the network is given and computes in, where, and whom the detector names."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from kit import register
from safetensors.torch import save_file

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.restoration import aligning, restorer
from dfpg_plugin.restoration.aligning import FaceCutter
from dfpg_plugin.restoration.detectors import Detector
from dfpg_plugin.restoration.faces import Face
from dfpg_plugin.restoration.network import choose_device
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import Settings

BOXES = [(30, 30, 80, 80), (130, 40, 170, 80), (210, 60, 260, 110)]
IMAGE = np.random.default_rng(0).integers(20, 180, (150, 300, 3), np.uint8)


class Pointwise(torch.nn.Module):
    """Adds what a convolution gives, and remembers its inputs' shapes and the precision of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        change = self.conv(x)
        self.shapes.append(tuple(x.shape))
        self.precision = change.dtype
        return x + change


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., DFPGRestorer]:
    """Build a restorer of the network above; without another word nobody looks how much of the identity changed."""
    register(monkeypatch, ARCH_REGISTRY, Pointwise)
    file = tmp_path / "pointwise.safetensors"
    save_file(Pointwise().state_dict(), file, {"network_g": json.dumps({"type": "Pointwise"})})
    return lambda **settings: DFPGRestorer(file, settings=Settings(**{"recogniser": None, **settings}))


@pytest.mark.parametrize(
    ("settings", "shapes"),
    [
        ({}, [(3, 3, 128, 128)]),
        ({"face_size": 64}, [(3, 3, 64, 64)]),
        ({"batch_size": 2}, [(2, 3, 128, 128), (1, 3, 128, 128)]),
        ({"batch_size": 1, "face_size": 40}, [(1, 3, 40, 40)] * 3),
    ],
)
def test_faces_are_restored_in_squares_and_batches_of_the_sizes_asked_for(
    built: Callable, settings: dict, shapes: list
) -> None:
    made = built(boxes=BOXES, **settings)
    assert [face.error for face in made.restore_picture(Picture(IMAGE)).faces] == [None] * 3
    assert made.network.shapes == shapes


@pytest.mark.parametrize(("amp", "precision"), [(None, "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_the_network_computes_in_the_precision_asked_for(built: Callable, amp: str | None, precision: str) -> None:
    made = built(mode="aligned", amp=amp)
    made.restore(IMAGE)
    assert made.network.precision == getattr(torch, precision)


def test_the_network_lies_on_the_device_asked_for(built: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    made = built(mode="aligned", device="meta")
    assert made.device == made.network.conv.weight.device == torch.device("meta")
    for there, found in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert (choose_device("auto").type, choose_device("cpu").type) == (found, "cpu")


def test_the_identity_is_measured_by_the_recogniser_named_or_by_nobody(
    built: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []
    vectors = iter(np.array([[0.6, 0.8], [1.0, 0.0]]))

    def load(*which: object) -> SimpleNamespace:
        asked.append(which)
        return SimpleNamespace(embed_only_face=lambda image: next(vectors))

    monkeypatch.setattr(restorer, "load_recogniser", load)
    (face,) = built(boxes=BOXES[:1]).restore_picture(Picture(IMAGE)).faces
    assert (asked, face.identity_change) == ([], None)
    (face,) = built(boxes=BOXES[:1], recogniser="facexlib").restore_picture(Picture(IMAGE)).faces
    assert asked == [("facexlib", None)]
    assert face.identity_change == pytest.approx(1 - 0.6)


DETECTORS = [{}, {"detector": "dlib"}, {"detector": "facexlib"}, {"detector": "facexlib", "detector_weights": "folder"}]


@pytest.mark.parametrize("settings", DETECTORS)
def test_the_detector_and_its_folder_are_those_named(
    built: Callable, monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    asked: list[tuple] = []
    found = Detector(lambda picture, least: [Face(BOXES[0], 1.0)], threshold=0.5, doubt=0.1)
    for module in (restorer, aligning):
        monkeypatch.setattr(module, "load_detector", lambda *which: asked.append(which) or found)
    assert len(built(**settings).restore_picture(Picture(IMAGE)).faces) == 1
    default = (settings.get("detector", "centerface"), settings.get("detector_weights"))
    assert asked == [default] * 2  # when the restorer is built, and for the picture
    asked.clear()
    FaceCutter(160, 128, **settings)(cv2.imencode(".png", IMAGE)[1].tobytes(), "a.png")
    assert asked == [(settings.get("detector", "dlib"), settings.get("detector_weights"))]


def test_a_doubtful_face_is_looked_at_again_in_a_square_of_the_size_asked_for(
    built: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[tuple] = []
    doubtful = [Face(BOXES[0], 0.45)]
    detector = Detector(lambda picture, least: looked_at.append(picture.shape) or doubtful, threshold=0.5, doubt=0.1)
    monkeypatch.setattr(restorer, "load_detector", lambda *_: detector)
    built(face_size=56).restore_picture(Picture(IMAGE))
    assert looked_at == [(150, 300, 3), (56, 56, 3)]


@pytest.mark.parametrize(
    ("name", "value"), [("passes", 1), ("threshold", -0.5), ("threshold", 0.9), ("face_size", 64), ("face_size", 256)]
)
def test_a_setting_below_its_default_is_as_idle_as_one_above(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^{name}: has no effect with mode: aligned\. Remove one of them\.$"):
        Settings(mode="aligned", **{name: value})


@pytest.mark.parametrize(
    "box", [(1, 2, 3), ("a", 1, 2, 3), (80, 10, 30, 50), (10, 50, 80, 50), (0, 0, float("inf"), 9), 5]
)
def test_a_box_that_is_none_is_refused(box: object) -> None:
    with pytest.raises(UserError, match=r"^boxes: expected "):
        Settings(boxes=[box])


def test_boxes_may_be_an_array() -> None:
    assert Settings(boxes=np.array(BOXES)).boxes == tuple(tuple(map(float, box)) for box in BOXES)


@pytest.mark.parametrize(
    ("threshold", "passes", "least"), [(0.5, 2, 0.3), (0.2, 2, 0.15), (0.1, 2, 0.1), (0.2, 1, 0.2), (0.9, 2, 0.7)]
)
def test_doubtful_faces_are_not_searched_where_everything_is_a_face(
    built: Callable, monkeypatch: pytest.MonkeyPatch, threshold: float, passes: int, least: float
) -> None:
    asked: list[float] = []
    detector = Detector(lambda picture, least: asked.append(least) or [], threshold=0.5, doubt=0.2, floor=0.15)
    monkeypatch.setattr(restorer, "load_detector", lambda *which: detector)
    built(threshold=threshold, passes=passes).restore(IMAGE)
    assert asked == [pytest.approx(least)]
