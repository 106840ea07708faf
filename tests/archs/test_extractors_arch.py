"""Other networks as the prior: against networks written out in float64, hooks, and what a file says."""

import builtins
import copy
import hashlib
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
from torchvision import models
from torchvision.models import get_model

from dfpg_plugin.archs.extractors_arch import ArcFaceFeatureExtractor, TimmFeatureExtractor, TorchvisionFeatureExtractor
from dfpg_plugin.archs.frozen_extractor import FrozenExtractor
from dfpg_plugin.checks import UserError
from dfpg_plugin.models.priors import channels_and_strides
from dfpg_plugin.vggface.files import weights_sha256

MEAN = torch.tensor([0.485, 0.456, 0.406]).double().view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).double().view(1, 3, 1, 1)
TORCHVISION = {"model": "resnet18", "layers": ["layer1"], "weights": "random"}
TIMM = {"model": "resnet18", "out_indices": [0], "weights": "random"}
T, A, M = "TorchvisionFeatureExtractor", "ArcFaceFeatureExtractor", "TimmFeatureExtractor"
RANDOM = [
    (T, {"model": "vgg11", "layers": ["relu1_1", "relu2_1"]}),
    (T, {"model": "resnet18", "layers": ["layer1", "layer2"]}),
    (A, {}),
    (M, {"model": "resnet18", "out_indices": [0, 1]}),
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


def trained(net: nn.Module) -> nn.Module:
    """Return the network in eval mode, with such values in its batch normalisation as only a training gives."""
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return net.eval()


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


def test_vggs_with_batch_normalisation_have_basicsrs_names_too() -> None:
    layers = ["relu1_1", "bn1_1", "conv1_1"]
    net = TorchvisionFeatureExtractor(model="vgg11_bn", layers=layers, weights="random")
    w = {k.removeprefix("net.features."): v.double() for k, v in net.state_dict().items()}
    image = torch.rand(1, 3, 12, 20)
    conv1_1 = F.conv2d((image.double() - MEAN) / STD, w["0.weight"], w["0.bias"], padding=1)
    bn1_1 = F.batch_norm(conv1_1, w["1.running_mean"], w["1.running_var"], w["1.weight"], w["1.bias"])
    for got, want in zip(net(image), [bn1_1.clamp(min=0), bn1_1, conv1_1], strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "layer", "after"),
    [
        ("resnet18", "layer1.0.bn2", "layer2"),  # then `out += identity`
        ("densenet121", "features.norm5", "relu"),  # then relu(x, inplace=True)
        ("squeezenet1_1", "features.0", "features.3"),  # then ReLU(inplace=True)
    ],
)
def test_what_comes_after_does_not_write_over_a_layer(model: str, layer: str, after: str) -> None:
    net = TorchvisionFeatureExtractor(model=model, layers=[layer], weights="random")
    later = TorchvisionFeatureExtractor(model=model, layers=[layer, after], weights="random")
    whole = get_model(model, weights=None)
    whole.load_state_dict(later.net.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    (want,) = tapped(whole, [layer], ((image.double() - MEAN) / STD).float())
    assert (want < 0).any()
    for got in (net(image)[0], later(image)[0]):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("model", ["googlenet", "inception_v3"])
def test_googles_networks_see_what_torchvision_feeds_their_weights(model: str) -> None:
    layer = {"googlenet": "conv1.conv", "inception_v3": "Conv2d_1a_3x3.conv"}[model]
    net = TorchvisionFeatureExtractor(model=model, layers=[layer], weights="random")
    (weight,) = (v.double() for k, v in net.state_dict().items() if k.endswith("conv.weight"))
    image = torch.rand(1, 3, 64, 64)
    want = F.conv2d(2 * image.double() - 1, weight, stride=2, padding=3 if model == "googlenet" else 0)
    torch.testing.assert_close(net(image)[0].double(), want, rtol=1e-4, atol=1e-5)


def test_other_means_than_imagenets(monkeypatch: pytest.MonkeyPatch) -> None:
    imagenet = "mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]"
    assert TorchvisionFeatureExtractor(**TORCHVISION).record["input"].endswith(imagenet)
    large = models.get_model_weights("efficientnet_v2_l")  # the one model with others; building it takes seconds
    monkeypatch.setattr(models, "get_model_weights", lambda model: large)
    net = TorchvisionFeatureExtractor(**TORCHVISION)
    assert net.record["input"].endswith("mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]")
    assert TimmFeatureExtractor(**{**TIMM, "model": "resnet34.a1_in1k"}).record["input"].endswith(imagenet)
    other = TimmFeatureExtractor(**{**TIMM, "model": "resnet34.ra4_e3600_r224_in1k"})
    assert other.record["input"].endswith("mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]")


@pytest.mark.parametrize(
    ("name", "key", "order", "options"),
    [
        (T, "layers", ["layer2", "layer1", "layer2"], {"model": "resnet18"}),
        (T, "layers", ["layer1.1.relu_1", "layer1", "layer1.1"], {"model": "resnet18"}),
        (A, "layers", ["body.6", "input_layer.2", "body.2"], {}),
        (M, "out_indices", [2, 0, 2, 1], {"model": "test_convnext"}),
        (M, "out_indices", [3, 1], {"model": "test_vit"}),
    ],
)
def test_features_come_in_the_order_asked_for(name: str, key: str, order: list, options: dict) -> None:
    image = torch.rand(1, 3, 128, 64)
    features = build_network({"type": name, "weights": "random", key: order, **options})(image)
    assert len(features) == len(order)
    for layer, got in zip(order, features, strict=True):
        (want,) = build_network({"type": name, "weights": "random", key: [layer], **options})(image)
        torch.testing.assert_close(got, want)


def test_only_what_the_layers_need_is_kept_and_wanted_of_a_file(tmp_path: Path) -> None:
    options = {"model": "resnet18", "layers": ["relu", "layer1.0.conv1"]}
    net = TorchvisionFeatureExtractor(**options, weights="random")
    assert {key.rpartition(".")[0] for key in net.net.state_dict()} == {"conv1", "bn1", "layer1.0.conv1"}
    torch.save(net.net.state_dict(), tmp_path / "part.pth")
    again = TorchvisionFeatureExtractor(**options, weights=str(tmp_path / "part.pth"))
    assert again.record["weights_sha256"] == net.record["weights_sha256"]
    assert not [
        key for key in ArcFaceFeatureExtractor(weights="random").state_dict() if "body.7" in key or "out" in key
    ]


def test_torchvisions_files_of_densenets_have_older_names(tmp_path: Path) -> None:
    """``norm.1`` for what is ``norm1``: its own builder renames them, see torchvision's densenet.py."""
    net = trained(get_model("densenet121"))
    renamed = {}
    for key, value in net.state_dict().items():
        head, layer, tail = key.partition("denselayer")
        for part in ("norm1", "norm2", "conv1", "conv2"):
            tail = tail.replace(f".{part}.", f".{part[:4]}.{part[4]}.")
        renamed[head + layer + tail] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in renamed
    torch.save(renamed, tmp_path / "densenet.pth")
    layers = ["features.denseblock1.denselayer2.conv1"]
    extractor = TorchvisionFeatureExtractor(
        model="densenet121", layers=layers, weights=str(tmp_path / "densenet.pth"), mean=[0, 0, 0], std=[1, 1, 1]
    )
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(extractor(x), tapped(net, layers, x))


def test_any_node_of_a_torchvision_graph(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = trained(get_model("resnet18", weights=None))
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    names = ["layer1.0.bn1", "layer2", "layer1.0.bn2", "layer3.1.conv2"]
    net = TorchvisionFeatureExtractor(model="resnet18", layers=names, weights=str(tmp_path / "resnet18.pth"))
    image = torch.rand(1, 3, 64, 48)
    expected = tapped(whole, names, ((image.double() - MEAN) / STD).float())
    for got, want in zip(net(image), expected, strict=True):
        torch.testing.assert_close(got, want)
    sha256 = hashlib.sha256((tmp_path / "resnet18.pth").read_bytes()).hexdigest()
    assert net.record == {
        "file": "resnet18.pth", "sha256": sha256, "style": "torchvision resnet18", "channel_order": "rgb",
        "input": "TorchvisionFeatureExtractor, mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]",
        "layers": names, "feature_scale": [1.0] * 4, "weights_sha256": weights_sha256(net.net.state_dict()),
    }  # fmt: skip
    assert net.source == f"file resnet18.pth, sha256 {sha256}, style torchvision resnet18, channel_order rgb"


def test_arcface_is_facexlibs_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = trained(Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se"))
    torch.save(whole.state_dict(), tmp_path / "arcface.pth")
    names = ["input_layer.2", "body.2", "body.6", "body.20"]
    net = ArcFaceFeatureExtractor(layers=names, weights=str(tmp_path / "arcface.pth"))
    image = torch.rand(1, 3, 112, 112)
    for got, want in zip(net(image), tapped(whole, names, 2 * image - 1), strict=True):
        torch.testing.assert_close(got, want)
    assert [f.shape[1:] for f in net(torch.rand(1, 3, 40, 56))] == [
        (64, 40, 56), (64, 20, 28), (128, 10, 14), (256, 5, 7),
    ]  # fmt: skip


def test_arcface_of_another_depth_and_kind(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = trained(Backbone(num_layers=100, drop_ratio=0.6, mode="ir"))
    needed = ("input_layer.", *(f"body.{i}." for i in range(16)))
    torch.save({k: v for k, v in whole.state_dict().items() if k.startswith(needed)}, tmp_path / "arcface.pth")
    options = {"layers": ["body.3.res_layer.1", "body.15"], "weights": str(tmp_path / "arcface.pth")}
    net = ArcFaceFeatureExtractor(**options, num_layers=100, mode="ir")
    image = torch.rand(1, 3, 112, 112)
    for got, want in zip(net(image), tapped(whole, options["layers"], 2 * image - 1), strict=True):
        torch.testing.assert_close(got, want)
    with pytest.raises(UserError, match=r"ArcFaceFeatureExtractor weights: .*arcface\.pth lacks \d+ of \d+ weights"):
        ArcFaceFeatureExtractor(**options)


@pytest.mark.parametrize(
    ("model", "modules"),
    [
        ("resnet18", {0: "act1", 2: "layer2"}),
        ("test_convnext", {1: "stages.1", 3: "stages.3"}),  # timm writes stages_1
        ("test_efficientnet", {0: "blocks.0.0", 2: "blocks.2"}),
        ("test_byobnet", {0: "stem", 1: "stages.0"}),
    ],
)
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_timm_with_a_file_of_the_whole_model(tmp_path: Path, model: str, modules: dict, kind: str) -> None:
    torch.manual_seed(1)
    whole = trained(timm.create_model(model))
    file = tmp_path / f"whole.{kind}"
    (save_file if kind == "safetensors" else torch.save)(whole.state_dict(), file)
    net = TimmFeatureExtractor(model=model, out_indices=list(modules), weights=str(file))
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(whole.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    for got, want in zip(net(image), tapped(whole, list(modules.values()), (image - mean) / std), strict=True):
        torch.testing.assert_close(got, want)
    assert net.record["layers"] == [str(i) for i in modules]


def test_timms_tokens_as_maps(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("test_vit").eval()
    torch.save(whole.state_dict(), tmp_path / "vit.pth")
    net = TimmFeatureExtractor(model="test_vit", out_indices=[1], weights=str(tmp_path / "vit.pth"))
    image = torch.rand(1, 3, 160, 160)
    (tokens,) = tapped(whole, ["blocks.1"], 2 * image - 1)  # the first is the class
    torch.testing.assert_close(net(image)[0], tokens[:, 1:].transpose(1, 2).unflatten(2, (10, 10)))


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
    assert not any(module.training or getattr(module, "inplace", False) for module in net.modules())
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
    assert first.record["file"] == first.source == "random"


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


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (T, {"model": "vgg61"}, "model: 'vgg61' is not one of .* Did you mean vgg1"),
        (T, {"model": "fasterrcnn_resnet50_fpn"}, "model: 'fasterrcnn_resnet50_fpn' is not one of"),  # would download
        (T, {"model": ["vgg19"]}, r"model: \['vgg19'\] is not one of"),
        (T, {"model": "vgg16", "layers": ["relu1_3"]}, "layers: VGG has no 'relu1_3'. Did you mean relu"),
        (T, {"layers": ["layr1"]}, "layers: ResNet has no 'layr1'. Did you mean layer1"),
        (T, {"layers": ["zzz"]}, "layers: ResNet has no 'zzz'. It has x, conv1, bn1, .* and 62 others"),
        (T, {"layers": []}, r"layers: expected a list of names, got \[\]"),
        (T, {"layers": "layer1"}, "layers: expected a list of names, got 'layer1'"),
        (T, {"layers": [1]}, r"layers: expected a list of names, got \[1\]"),
        (T, {"layers": ["fc"]}, r"fc is no feature map .*\[1, 1000\]"),
        (T, {"layers": ["layer1", "avgpool"]}, r"avgpool is no feature map .*\[1, 512, 1, 1\]"),
        (
            T,
            {"model": "swin_t", "layers": ["features.1"]},
            r"features\.1 is no .* is \[1, 32, 32, 96\] and \[1, 32, 48",
        ),
        (
            T,
            {"model": "vit_b_32", "layers": ["encoder.ln"]},
            r"encoder\.ln can't be computed of .*, here 128 px \(Wrong",
        ),
        (T, {"weights": "no.pth"}, "no.pth does not exist. Download https://.*/resnet18-"),
        (T, {"weights": None}, "weights: expected a file's name, got None"),
        (T, {"std": [1, 1, 0]}, r"std: expected three numbers, std's above 0, got \[1, 1, 0\]"),
        (T, {"mean": 0.5}, "mean: expected three numbers, std's above 0, got 0.5"),
        (T, {"mean": ["0", "0", "0"]}, "mean: expected three numbers"),
        (T, {"feature_scale": [1, 2]}, "feature_scale: expected a list of 1 factors"),
        (A, {"layers": ["body.24"]}, "layers: Backbone has no 'body.24'. Did you mean body"),
        (A, {"layers": ["body.2", "output_layer.3"]}, "body.2, output_layer.3 can't be computed of images of any size"),
        (A, {"layers": ["output_layer.2"]}, r"output_layer\.2 is no feature map .*\[1, 32768\]"),
        (A, {"num_layers": 34}, "num_layers: 34 is not one of 50, 100, 152"),
        (A, {"mode": "se"}, "mode: 'se' is not one of ir, ir_se"),
        (A, {"weights": "no.pth"}, "Download https://.*recognition_arcface_ir_se50.pth to it"),
        (M, {"model": "resnet81"}, "model: timm has no 'resnet81'. Did you mean resnet18"),
        (M, {"model": "resnet18.a9_in1k"}, "model: timm has no weights 'resnet18.a9_in1k'. It has .*resnet18.a1_in1k"),
        (M, {"model": "hf-hub:timm/resnet18"}, "model: timm has no 'hf-hub:timm/resnet18'"),  # would download
        (M, {"model": None}, "model: timm has no None"),
        (M, {"out_indices": [0, 9]}, r"out_indices: resnet18 has 5 features, 0 to 4, not \[0, 9\]"),
        (M, {"out_indices": []}, r"out_indices: expected a list of whole numbers from 0, got \[\]"),
        (M, {"out_indices": [-1]}, r"out_indices: expected a list of whole numbers from 0, got \[-1\]"),
        (M, {"out_indices": [True]}, r"out_indices: expected a list of whole numbers from 0, got \[True\]"),
        (M, {"out_indices": 2}, "out_indices: expected a list of whole numbers from 0, got 2"),
        (M, {"weights": "no.pth"}, "Download https://huggingface.co/timm/resnet18.* to it"),
        (M, {"model": "vit_tiny_patch16_224"}, "0 can't be computed of images of any size, here 128 px"),
        (
            M,
            {"model": "test_mambaout"},
            r"0 is no feature map .*\[1, 32, 32, 16\] and \[1, 32, 48, 16\]",
        ),  # channels last
    ],
)
def test_refused(name: str, options: dict, text: str) -> None:
    usual = {T: TORCHVISION, M: TIMM}
    with pytest.raises(UserError, match=f"{name} .*{text}") as caught:
        build_network({"type": name, **usual.get(name, {"weights": "random"}), **options})
    assert "\n" not in str(caught.value)


def test_values_between_all_columns_are_no_map() -> None:
    class Affinity(nn.Module):  # (B,1,W,W), as attention is
        def forward(self, x: Tensor) -> list[Tensor]:
            columns = x.mean(2)
            return [(columns.transpose(1, 2) @ columns)[:, None]]

    with pytest.raises(UserError, match=r"it is no feature map .*\[1, 1, 128, 128\] and \[1, 1, 192, 192\]"):
        FrozenExtractor(Affinity(), layers=["it"], keys=[0], mean=[0] * 3, std=[1] * 3, feature_scale=None, origin={})


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
    torch.save({**state, "bn1.weight": torch.full((64,), torch.nan)}, file)
    with pytest.raises(UserError, match=r"resnet18\.pth: 1 of its weights are not finite"):
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
    save_file({**state, "bn1.weight": torch.full((64,), torch.inf)}, tmp_path / "infinite.safetensors")
    with pytest.raises(UserError, match=r"infinite\.safetensors: 1 of its weights .* bn1\.weight first"):
        TorchvisionFeatureExtractor(**{**options, "weights": str(tmp_path / "infinite.safetensors")})


def test_a_model_that_fx_can_not_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean() > 0 else -x

    monkeypatch.setattr(models, "get_model", lambda model, weights: Deciding())
    with pytest.raises(UserError, match=r"TorchvisionFeatureExtractor model: torch\.fx can't trace Deciding"):
        TorchvisionFeatureExtractor(**TORCHVISION)


def test_a_timm_model_without_features(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timm.create_model("resnet18")

    def without(model: str, features_only: bool = False, **options: object) -> nn.Module:
        if features_only:
            raise RuntimeError("\nfeatures_only not implemented\nfor this model")
        return whole

    monkeypatch.setattr(timm, "create_model", without)
    with pytest.raises(UserError, match=r"timm gives no features of resnet18 \(features_only not implemented"):
        TimmFeatureExtractor(**TIMM)


def test_the_files_own_code_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    for name, options in ((T, TORCHVISION), (A, {}), (M, TIMM)):
        with pytest.raises(UserError, match=r"evil\.pth is not a readable PyTorch file"):
            build_network({"type": name, **options, "weights": str(tmp_path / "evil.pth")})
    assert not (tmp_path / "ran").exists()


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
