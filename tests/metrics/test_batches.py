"""Metrics in batches give what BasicSR's one call a pair gives; what they depend on is told."""

import math

import numpy as np
import pytest
from basicsr.metrics import calculate_metric

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.metrics.batches import measure, networks_used, settings_of

METRICS = [
    {"type": "calculate_psnr", "crop_border": 2},
    {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": True},
    {"type": "calculate_ssim_3d", "crop_border": 1},
    {"type": "calculate_vggface_distance", "weights": "stand-in", "layer": "relu3_3", "input": "pm1", "crop_border": 4},
    {"type": "calculate_lpips", "net": "alex", "weights": "random", "legacy_range": True, "better": "lower"},
    {"type": "calculate_identity_similarity"},
]


def images() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Four noisy faces of two sizes; two of them of one photograph."""
    source, rng = orl_faces("test"), np.random.default_rng(0)
    sharp = [source.read(f"s{n}/1.pgm") for n in (37, 37, 38, 39)]
    sharp[2] = sharp[2][8:104]
    noisy = [np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8) for image in sharp]
    return noisy, sharp


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric["type"])
def test_batches_and_single_calls_agree(metric: dict) -> None:
    restored, sharp = images()
    single = [calculate_metric({"img": r, "img2": s}, dict(metric)) for r, s in zip(restored, sharp, strict=True)]
    assert measure(metric, restored, sharp) == pytest.approx(single, rel=1e-5, nan_ok=True)
    assert not all(math.isnan(value) for value in single)
    assert len(set(single)) == 4


@pytest.mark.parametrize("kind", ["calculate_psnr", "calculate_ssim", "calculate_niqe", "calculate_ssim_3d"])
def test_a_border_that_leaves_nothing_is_an_error(kind: str) -> None:
    restored, sharp = images()
    metric = {"type": kind, "crop_border": 48}  # the lowest face has 96 px, the narrowest 92
    with pytest.raises(UserError, match=f"{kind}: crop_border: 48 leaves less than .* of an image of 92x"):
        measure(metric, restored, None if kind == "calculate_niqe" else sharp)


def test_settings_hold_the_defaults_too() -> None:
    assert settings_of({"type": "calculate_ssim_3d", "better": "higher"}) == {"crop_border": 0, "input_order": "HWC"}
    assert settings_of({"type": "calculate_psnr", "crop_border": 3}) == {
        "crop_border": 3, "input_order": "HWC", "test_y_channel": False,
    }  # fmt: skip


def test_what_numbers_depend_on_is_told() -> None:
    assert networks_used({"type": "calculate_psnr", "crop_border": 0}) == {}
    stand_in = networks_used(METRICS[3])
    assert (stand_in["channel_order"], len(stand_in["weights_sha256"])) == ("rgb", 64)
    other = networks_used({**METRICS[3], "weights": "random"})
    assert other["weights_sha256"] != stand_in["weights_sha256"]
    assert len(networks_used(METRICS[4])["weights_sha256"]) == 64
    identity = networks_used(METRICS[5])
    assert identity["recogniser"].startswith("dlib ")
    assert len(identity["weights_sha256"]) == 64
