"""LPIPS against the lpips package itself, on backbones with random weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from lpips import LPIPS, im2tensor
from torchvision.models import alexnet, squeezenet1_1, vgg16

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics import lpips_distance as module
from dfpg_plugin.metrics.vggface_distance import load_vggface

BACKBONES = {"vgg": vgg16, "alex": alexnet, "squeeze": squeezenet1_1}
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (64, 72, 3), dtype=np.uint8) for _ in range(4)]


def bgr(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_equals_the_package_with_the_backbone_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: str
) -> None:
    torch.manual_seed(5)
    backbone = BACKBONES[net](weights=None).eval()
    torch.save(backbone.state_dict(), tmp_path / "backbone.pth")
    monkeypatch.setattr(f"lpips.pretrained_networks.tv.{BACKBONES[net].__name__}", lambda pretrained: backbone)
    reference = LPIPS(net=net, verbose=False)
    monkeypatch.undo()
    with torch.no_grad():
        expected = reference(im2tensor(IMAGES[0]), im2tensor(IMAGES[1])).item()
    opt = {"type": "calculate_lpips", "net": net, "weights": str(tmp_path / "backbone.pth"), "better": "lower"}
    value = calculate_metric({"img": bgr(IMAGES[0]), "img2": bgr(IMAGES[1])}, opt)
    assert value == pytest.approx(expected, rel=1e-4)


def test_batches_and_the_legacy_range() -> None:
    network = module.load_lpips("alex", "random")
    first, second = [bgr(i) for i in IMAGES[:2]], [bgr(i) for i in IMAGES[2:]]
    single = [module.calculate_lpips(a, b, "alex", "random") for a, b in zip(first, second, strict=True)]
    assert module.lpips_distances(first, second, network) == pytest.approx(single, rel=1e-4)
    raw = [torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1)[None].float() for i in (first[0], second[0])]
    expected = network(*(image.to(next(network.parameters()).device) for image in raw)).item()
    assert module.calculate_lpips(first[0], second[0], "alex", "random", legacy_range=True) == pytest.approx(expected)
    assert expected != pytest.approx(single[0], rel=0.01)
    assert module.lpips_distances(first[:1], first[:1], network) == [0]


def test_random_weights_are_always_the_same() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(module.load_lpips.__wrapped__("squeeze", "random").state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("load", "arguments"),
    [(module.load_lpips, ("alex", "random")), (load_vggface, ("stand-in", "relu3_3", "pm1", None))],
)
def test_the_random_numbers_of_a_run_are_left_alone(
    load: Callable, arguments: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    load.cache_clear()
    state = torch.get_rng_state()
    load(*arguments)
    assert torch.equal(torch.get_rng_state(), state)
    assert seeded == []


def test_missing_and_foreign_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    pattern = r"hub/checkpoints/vgg16-397923af\.pth does not exist\. Download https://.*/vgg16-397923af\.pth to it"
    with pytest.raises(UserError, match=pattern):
        module.calculate_lpips(IMAGES[0], IMAGES[1])
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth does not hold torchvision's weights of alex"):
        module.calculate_lpips(IMAGES[0], IMAGES[1], net="alex", weights=str(tmp_path / "x.pth"))
    with pytest.raises(UserError, match=r"net: 'vggg' is not one of vgg, alex, squeeze\. Did you mean vgg"):
        module.calculate_lpips(IMAGES[0], IMAGES[1], net="vggg")
