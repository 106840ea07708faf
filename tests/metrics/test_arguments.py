"""Arguments of metrics act: on one pair, and in the batches of `basicsr test`."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from vggface_styles import network, torchvision_names

from dfpg_plugin.metrics import batches, identity_similarity, pyiqa_metric
from dfpg_plugin.metrics.batches import measure, networks_used

RNG = np.random.default_rng(0)
SHARP = RNG.integers(0, 256, (70, 82, 3), dtype=np.uint8)
RESTORED = np.clip(SHARP + RNG.normal(0, 20, SHARP.shape), 0, 255).astype(np.uint8)
RESTORED[:6] = RESTORED[:, -4:] = (200, 20, 90)  # a border of its own
METRICS = [
    {"type": "calculate_ssim_3d"},
    {"type": "calculate_lpips", "net": "alex", "weights": "random"},
    {"type": "calculate_vggface_distance", "weights": "stand-in", "layer": "relu3_3", "input": "pm1"},
    {"type": "calculate_identity_similarity"},
    {"type": "calculate_pyiqa", "metric": "of the stand-in"},
]
RECOGNISERS = {("dlib", None): (0.0, 1.0), ("facexlib", None): (3.0, 1.0), ("facexlib", "folder"): (3.0, 5.0)}


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognisers that embed by plain sums, another for each name and folder; and a metric of pyiqa."""

    def load_recogniser(name: str, weights: str | None) -> SimpleNamespace:
        first, second = RECOGNISERS[name, weights]

        def embed(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            vector = image.mean((0, 1)) - (100 + first, 100 + second, 130)
            return vector / np.linalg.norm(vector)

        found = np.zeros((5, 2))
        return SimpleNamespace(
            find=lambda image: [found], embed=embed, name=f"{name} {weights}", weights_sha256=f"of {name} {weights}"
        )

    class Difference(torch.nn.Module):
        metric_mode, lower_better = "FR", False

        def forward(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
            return (image - reference).abs().mean()

    monkeypatch.setattr(identity_similarity, "load_recogniser", load_recogniser)
    monkeypatch.setattr(batches, "load_recogniser", load_recogniser)
    monkeypatch.setattr(pyiqa_metric, "load_pyiqa", lambda metric: Difference())


def value(metric: dict, restored: np.ndarray = RESTORED, sharp: np.ndarray = SHARP, **more: object) -> float:
    """Return a metric's value, after a look whether a batch gives the same."""
    options = {**metric, **more}
    found = float(calculate_metric({"img": restored, "img2": sharp}, dict(options)))
    if options.get("input_order", "HWC") == "HWC":  # `basicsr test` has no others
        assert measure(options, [restored], [sharp]) == pytest.approx([found], rel=1e-5)
    return found


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric["type"])
def test_a_border_is_cut_off_and_the_order_of_the_axes_is_the_one_told(metric: dict) -> None:
    inner = value(metric, RESTORED[9:-9, 9:-9].copy(), SHARP[9:-9, 9:-9].copy())
    assert value(metric, crop_border=9) == pytest.approx(inner, rel=1e-5)
    assert value(metric) != pytest.approx(inner, rel=1e-3)
    planes = [image.transpose(2, 0, 1) for image in (RESTORED, SHARP)]
    assert value(metric, *planes, crop_border=9, input_order="CHW") == pytest.approx(inner, rel=1e-5)


def test_identity_is_that_of_the_recogniser_and_the_folder_named() -> None:
    metric = {"type": "calculate_identity_similarity"}
    for (name, weights), away in RECOGNISERS.items():
        options = {} if name == "dlib" else {"recogniser": name, **({"weights": weights} if weights else {})}
        a, b = (image.mean((0, 1)) - (100 + away[0], 100 + away[1], 130) for image in (RESTORED, SHARP))
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert value(metric, **options) == pytest.approx(cosine, rel=1e-9)
        assert networks_used({**metric, **options})["recogniser"] == f"{name} {weights}"
    assert len({value(metric, recogniser=n, weights=w) for n, w in RECOGNISERS}) == len(RECOGNISERS)


def test_d_vgg_feeds_the_weights_in_the_order_told(tmp_path: Path) -> None:
    torch.save(torchvision_names(network("conv1_2")), tmp_path / "vgg.pth")
    metric = {"type": "calculate_vggface_distance", "weights": str(tmp_path / "vgg.pth"), "layer": "relu1_2"}
    rgb, bgr = (value(metric, channel_order=order) for order in ("rgb", "bgr"))
    swapped = [np.ascontiguousarray(image[..., ::-1]) for image in (RESTORED, SHARP)]
    assert value(metric, *swapped, channel_order="rgb") == pytest.approx(bgr, rel=1e-5)
    assert rgb != pytest.approx(bgr, rel=1e-3)
    assert networks_used({**metric, "channel_order": "bgr"})["channel_order"] == "bgr"
