"""The metrics in `val.metrics`, under both training loops."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import write_yaml

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
def test_a_training_validates_with_them(basicsr: Callable, tmp_path: Path, demo_options: dict, loop: list) -> None:
    demo_options["val"].update(metrics=METRICS, val_freq=4)
    demo_options["datasets"]["val"].update(split="test")
    done = basicsr("train", *loop, "-opt", write_yaml(tmp_path / "small.yml", demo_options))
    assert done.returncode == 0, done.stderr[-3000:]
    values = dict(re.findall(r"# (\w+): (nan|[\d.]+)\t", done.stderr))
    assert 0 < float(values["ssim_3d"]) < 1
    assert float(values["d_vgg"]) > 0
    assert float(values["lpips"]) > 0
    assert values["identity"] == "nan"  # dlib does not find one of the 40 sharp faces
