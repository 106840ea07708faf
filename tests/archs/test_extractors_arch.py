"""Other networks as the prior: against networks written out in float64, hooks, and what a file says."""

import builtins
import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from basicsr.archs import build_network
from facexlib.recognition.arcface_arch import Backbone
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from dfpg_plugin.archs.extractors_arch import ArcFaceFeatureExtractor, TimmFeatureExtractor, TorchvisionFeatureExtractor
from dfpg_plugin.checks import UserError
from dfpg_plugin.models.priors import channels_and_strides

MEAN = torch.tensor([0.485, 0.456, 0.406]).double().view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).double().view(1, 3, 1, 1)
RANDOM = [
    ("TorchvisionFeatureExtractor", {"model": "vgg16", "layers": ["relu1_2", "relu2_2"]}),
    ("TorchvisionFeatureExtractor", {"model": "resnet18", "layers": ["layer1", "layer2"]}),
    ("ArcFaceFeatureExtractor", {}),
    ("TimmFeatureExtractor", {"model": "resnet18", "out_indices": [0, 1]}),
]


def tapped(net: nn.Module, names: list[str], x: Tensor) -> list[Tensor]:
    """Return the outputs of modules, by hooks that keep copies."""
    found = {}

    def keep(name: str) -> Callable:
        return lambda module, inputs, output: found.update({name: output.clone()})  # None: the output stays

    modules = dict(net.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    net.eval()(x)
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]


def test_vgg_is_written_out_and_activations_do_not_write_over_it() -> None:
    layers = ["conv1_1", "relu1_1", "conv1_2", "pool1", "relu2_1"]
    net = TorchvisionFeatureExtractor(model="vgg16", layers=layers, weights="random", feature_scale=[1, 2, 1, 1, 0.5])
    w = {k: v.double() for k, v in net.state_dict().items()}
    image = torch.rand(2, 3, 20, 28)

    def conv(x: Tensor, index: int) -> Tensor:
        return F.conv2d(x, w[f"net.features.{index}.weight"], w[f"net.features.{index}.bias"], padding=1)

    conv1_1 = conv((image.double() - MEAN) / STD, 0)
    conv1_2 = conv(conv1_1.clamp(min=0), 2)
    pool1 = F.max_pool2d(conv1_2.clamp(min=0), 2)
    expected = [conv1_1, 2 * conv1_1.clamp(min=0), conv1_2, pool1, 0.5 * conv(pool1, 5).clamp(min=0)]
    assert (conv1_1 < 0).any()
    for got, want in zip(net(image), expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


def test_any_node_of_a_torchvision_graph(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = get_model("resnet18", weights=None)
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    names = ["layer1.0.bn1", "layer2", "layer3.1.conv2"]
    net = TorchvisionFeatureExtractor(model="resnet18", layers=names, weights=str(tmp_path / "resnet18.pth"))
    image = torch.rand(1, 3, 64, 48)
    expected = tapped(whole, names, ((image.double() - MEAN) / STD).float())
    for got, want in zip(net(image), expected, strict=True):
        torch.testing.assert_close(got, want)
    assert net.record["file"] == "resnet18.pth" and len(net.record["sha256"]) == 64


def test_arcface_is_facexlibs_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").eval()
    torch.save(whole.state_dict(), tmp_path / "arcface.pth")
    names = ["input_layer.2", "body.2", "body.6", "body.20"]
    net = ArcFaceFeatureExtractor(layers=names, weights=str(tmp_path / "arcface.pth"))
    image = torch.rand(1, 3, 112, 112)
    for got, want in zip(net(image), tapped(whole, names, 2 * image - 1), strict=True):
        torch.testing.assert_close(got, want)
    assert [f.shape[1:] for f in net(torch.rand(1, 3, 40, 56))] == [
        (64, 40, 56), (64, 20, 28), (128, 10, 14), (256, 5, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_timm_with_a_file_of_the_whole_model(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("resnet18").eval()
    file = tmp_path / f"resnet18.{kind}"
    (save_file if kind == "safetensors" else torch.save)(whole.state_dict(), file)
    net = TimmFeatureExtractor(model="resnet18", out_indices=[0, 2], weights=str(file))
    image = torch.rand(1, 3, 64, 64)
    expected = tapped(whole, ["act1", "layer2"], ((image.double() - MEAN) / STD).float())
    for got, want in zip(net(image), expected, strict=True):
        torch.testing.assert_close(got, want)
    assert net.record["layers"] == ["0", "2"]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        (RANDOM[0][1], ([64, 128], [1, 2])),
        (RANDOM[1][1], ([64, 128], [4, 8])),
        ({}, ([64, 64, 128], [1, 2, 4])),
        (RANDOM[3][1], ([64, 64], [2, 4])),
    ],
)  # fmt: skip
def test_sizes_are_read_from_the_extractor(options: dict, sizes: tuple) -> None:
    name = next(n for n, o in RANDOM if o == options)
    assert channels_and_strides(build_network({"type": name, "weights": "random", **options})) == sizes


@pytest.mark.parametrize(("name", "options"), RANDOM)
def test_gradients_pass_through_and_never_into_it(name: str, options: dict) -> None:
    net = build_network({"type": name, "weights": "random", **options})
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    net.train()
    assert not any(module.training for module in net.modules())
    torch.stack([f.square().mean() for f in net(x)]).sum().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert "mean" not in before


@pytest.mark.parametrize(("name", "options"), RANDOM)
def test_random_weights_are_always_the_same_and_leave_the_runs_numbers(name: str, options: dict) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = build_network({"type": name, "weights": "random", **options})
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    second = build_network({"type": name, "weights": "random", **options})
    assert first.record == second.record
    assert first.record["file"] == "random"


def test_the_record_tells_priors_apart() -> None:
    def record(**changes: object) -> dict:
        options = {"model": "resnet18", "layers": ["layer1"], "weights": "random", **changes}
        return TorchvisionFeatureExtractor(**options).record

    same = ("weights_sha256", "input", "layers", "feature_scale")
    base = record()
    for key, changes in [
        ("weights_sha256", {"model": "resnet34"}), ("layers", {"layers": ["layer2"]}),
        ("feature_scale", {"feature_scale": [2]}), ("input", {"mean": [0.5, 0.5, 0.5]}), ("input", {"std": [1, 1, 1]}),
    ]:  # fmt: skip
        changed = record(**changes)
        assert {k for k in same if changed[k] != base[k]} - {"weights_sha256"} == {key} - {"weights_sha256"}, changes
        assert changed[key] != base[key]


TORCHVISION = {"model": "resnet18", "layers": ["layer1"], "weights": "random"}
TIMM = {"model": "resnet18", "out_indices": [0], "weights": "random"}


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("TorchvisionFeatureExtractor", {"model": "vgg61"}, "model: 'vgg61' is not one of"),
        (
            "TorchvisionFeatureExtractor",
            {"model": "vgg16", "layers": ["relu1_3"]},
            "layers: VGG has no 'relu1_3'. Did you mean relu",
        ),
        ("TorchvisionFeatureExtractor", {"layers": []}, "layers: expected names, got none"),
        ("TorchvisionFeatureExtractor", {"layers": ["fc"]}, r"fc is no feature map .*\[1, 1000\]"),
        ("TorchvisionFeatureExtractor", {"weights": "no.pth"}, "no.pth does not exist. Download https://.*/resnet18-"),
        ("TorchvisionFeatureExtractor", {"weights": None}, "weights: expected a file's name, got None"),
        ("TorchvisionFeatureExtractor", {"std": [1, 1, 0]}, "std: expected three numbers"),
        ("TorchvisionFeatureExtractor", {"feature_scale": [1, 2]}, "feature_scale: expected a list of 1 factors"),
        ("ArcFaceFeatureExtractor", {"layers": ["body.24"]}, "layers: 'body.24' is not one of"),
        ("ArcFaceFeatureExtractor", {"weights": "no.pth"}, "Download https://.*recognition_arcface_ir_se50.pth to it"),
        ("TimmFeatureExtractor", {"model": "resnet81"}, "model: 'resnet81' is not one of .* Did you mean resnet18"),
        ("TimmFeatureExtractor", {"out_indices": [0, 9]}, r"out_indices: .*resnet18"),
        ("TimmFeatureExtractor", {"weights": "no.pth"}, "Download https://huggingface.co/timm/resnet18.* to it"),
        ("TimmFeatureExtractor", {"model": "vit_tiny_patch16_224"}, "of an image of 64 px"),
    ],
)
def test_refused(name: str, options: dict, text: str) -> None:
    usual = {"TorchvisionFeatureExtractor": TORCHVISION, "TimmFeatureExtractor": TIMM}
    with pytest.raises(UserError, match=f"{name} .*{text}") as caught:
        build_network({"type": name, **usual.get(name, {"weights": "random"}), **options})
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = get_model("resnet18", weights=None).state_dict()
    file = tmp_path / "resnet18.pth"
    options = {**TORCHVISION, "weights": str(file)}
    torch.save({key: value for key, value in state.items() if key != "layer1.0.bn1.bias"}, file)
    with pytest.raises(UserError, match=r"lacks 1 of 25 weights, layer1\.0\.bn1\.bias first"):
        TorchvisionFeatureExtractor(**options)
    torch.save({**state, "conv1.weight": torch.zeros(8, 3, 3, 3)}, file)
    with pytest.raises(UserError, match=r"conv1\.weight has the shape \[8, 3, 3, 3\], expected \[64, 3, 7, 7\]"):
        TorchvisionFeatureExtractor(**options)
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"resnet18\.pth is not a readable PyTorch file"):
        TorchvisionFeatureExtractor(**options)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(UserError, match=r"TimmFeatureExtractor weights: .* lacks \d+ of \d+ weights"):
        TimmFeatureExtractor(**{**TIMM, "weights": str(file)})
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        TimmFeatureExtractor(**{**TIMM, "weights": str(tmp_path / "broken.safetensors")})


def test_timm_with_another_classifier(tmp_path: Path) -> None:
    whole = timm.create_model("resnet18", num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "faces.pth")
    net = TimmFeatureExtractor(**{**TIMM, "weights": str(tmp_path / "faces.pth")})
    assert torch.equal(net.net.conv1.weight, whole.conv1.weight)


def test_timm_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name == "timm":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install timm"):
        TimmFeatureExtractor(**TIMM)
