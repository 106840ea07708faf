"""d_VGG against a plain computation with torch."""

from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from skimage import data
from torch.nn import functional as F
from vggface_styles import network, torchvision_names

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics import vggface_distance as module
from dfpg_plugin.metrics.images import to_rgb_batch

RNG = np.random.default_rng(0)
WIDTHS = {"conv1": 2, "conv2": 2, "conv3": 3, "conv4": 3, "conv5": 3}


def plain(net: dict, image: np.ndarray) -> torch.Tensor:
    """VGG-16 up to pool5, on RGB of 0 to 255 without mean."""
    x = torch.from_numpy(image[..., ::-1].astype(np.float64)).permute(2, 0, 1)[None]
    for stage in range(1, 6):
        for number in range(1, WIDTHS[f"conv{stage}"] + 1):
            weight, bias = (torch.as_tensor(v).double() for v in net[f"conv{stage}_{number}"])
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
        x = F.max_pool2d(x, 2)
    return x


@pytest.fixture
def images() -> list[np.ndarray]:
    return [RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(4)]


def test_equals_a_plain_computation_of_the_laboratorys_definition(tmp_path: Path, images: list) -> None:
    net = {name: (weight / np.sqrt(weight[0].size / 2), bias) for name, (weight, bias) in network().items()}
    torch.save(torchvision_names(net), tmp_path / "vgg.pth")
    expected = F.mse_loss(plain(net, images[0]), plain(net, images[1])).item()
    opt = {"type": "calculate_vggface_distance", "weights": str(tmp_path / "vgg.pth"), "channel_order": "rgb"}
    value = calculate_metric({"img": images[0], "img2": images[1]}, {**opt, "better": "lower"})
    assert value == pytest.approx(expected, rel=1e-4)


def test_layers_of_unequal_sizes_count_by_their_own_means() -> None:
    rng = np.random.default_rng(0)
    features, wanted = ([rng.random((3, 4, 6, 5)), rng.random((3, 7, 2, 3))] for _ in range(2))
    expected = [sum(np.mean((f[i] - w[i]) ** 2) for f, w in zip(features, wanted, strict=True)) for i in range(3)]
    tensors = [[torch.from_numpy(f) for f in layers] for layers in (features, wanted)]
    np.testing.assert_allclose(module.feature_distance(*tensors), expected)


def test_batches_give_what_single_images_give(images: list) -> None:
    net = module.load_vggface("stand-in", "relu3_3", "pm1", None)
    together = module.vggface_distances(images[:2], images[2:], net)
    single = [
        module.calculate_vggface_distance(a, b, "stand-in", layer="relu3_3", input="pm1")
        for a, b in zip(images[:2], images[2:], strict=True)
    ]
    assert together == pytest.approx(single, rel=1e-5)
    assert module.vggface_distances(images[:1], images[:1], net) == [0]


@pytest.mark.parametrize(("weights", "layer", "input"), [("stand-in", "relu3_3", "pm1"), ("random", "pool4", "rgb255")])
def test_faces_are_as_far_apart_as_in_float64(weights: str, layer: str, input: str) -> None:
    sharp = data.astronaut()[16:144, 160:288, ::-1].copy()
    restored = [cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (0.5, 1, 3)]
    net = module.load_vggface(weights, layer, input, None)
    values = module.vggface_distances(restored, [sharp] * 3, net)
    batch = to_rgb_batch([*restored, sharp], torch.device("cpu")).double()
    exact = module.vggface_distance(batch[:3], batch[3:].expand(3, -1, -1, -1), deepcopy(net).double())
    assert values == pytest.approx(exact.tolist(), rel=1e-5)


def test_each_different_image_is_run_once(images: list, monkeypatch: pytest.MonkeyPatch) -> None:
    net = module.load_vggface("stand-in", "relu3_3", "pm1", None)
    expected = module.vggface_distances(images[:3], [images[3]] * 2 + [images[0]], net)
    counts = []

    def counted(batch: torch.Tensor) -> list[torch.Tensor]:
        counts.append(len(batch))
        return net(batch)

    monkeypatch.setattr(module, "winograd_features", lambda network: counted)
    together = module.vggface_distances(images[:3], [images[3].copy()] * 2 + [images[0]], net)
    assert together == pytest.approx(expected, rel=1e-5)
    assert counts == [3]  # without the one that the first call ended with
    again = module.vggface_distances(images[2:3], [images[0]], net)  # the sharp face of the last pair comes again
    assert again == pytest.approx(expected[2:], rel=1e-5)
    assert counts == [3, 1]
    assert len(module._last_sharp(net)) == 1


def test_with_many_threads_the_network_runs_as_it_is(images: list, monkeypatch: pytest.MonkeyPatch) -> None:
    net = module.load_vggface("stand-in", "relu3_3", "pm1", None)
    expected = module.vggface_distances(images[:2], images[2:], net)
    monkeypatch.setattr(module, "MOST_THREADS", 0)
    monkeypatch.delattr(module, "winograd_features")
    assert module.vggface_distances(images[:2], images[2:], net) == pytest.approx(expected, rel=1e-5)


def test_the_network_is_loaded_once() -> None:
    assert module.load_vggface("random", "pool5", "rgb255", None) is module.load_vggface(
        "random", "pool5", "rgb255", None
    )


def test_what_the_weights_cant_give_is_named(images: list) -> None:
    with pytest.raises(UserError, match="pool5"):
        module.calculate_vggface_distance(*images[:2], "stand-in", input="pm1")
    with pytest.raises(UserError, match="expects `input: pm1`"):
        module.calculate_vggface_distance(*images[:2], "stand-in", layer="relu3_3")
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        module.calculate_vggface_distance(*images[:2], "nowhere.pth")
