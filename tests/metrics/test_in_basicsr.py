"""The metrics in `val.metrics`, under both training loops."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from kit import write_yaml

from dfpg_plugin.data.faces import orl_faces

METRICS = {
    "ssim_3d": {"type": "calculate_ssim_3d", "better": "higher"},
    "d_vgg": {
        "type": "calculate_vggface_distance", "weights": "stand-in", "layer": "relu3_3", "input": "pm1",
        "better": "lower",
    },
    "lpips": {"type": "calculate_lpips", "net": "alex", "weights": "random", "better": "lower"},
    "identity": {"type": "calculate_identity_similarity", "better": "higher"},
}  # fmt: skip


@pytest.mark.parametrize("loop", [[], ["--stock"]])
def test_a_training_validates_with_them(
    command: Callable, tmp_path: Path, demo_options: dict, capsys: pytest.CaptureFixture, loop: list
) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    for name in ("s37/3.pgm", "s37/4.pgm"):
        cv2.imwrite(str(faces / f"{name[4]}.png"), orl_faces("test").read(name))
    demo_options["train"]["total_iter"] = 1
    demo_options["val"].update(metrics=METRICS, val_freq=1)
    demo_options["datasets"]["val"].update(faces=None, split=None, dataroot_gt=str(faces))
    assert command("train", *loop, "-opt", write_yaml(tmp_path / "small.yml", demo_options)) == 0
    values = dict(re.findall(r"# (\w+): (nan|[\d.]+)\t", capsys.readouterr().err))
    assert 0 < float(values["ssim_3d"]) < 1
    assert float(values["d_vgg"]) > 0
    assert float(values["lpips"]) > 0
    assert values["identity"] == "nan"  # dlib does not find one of the two sharp faces
