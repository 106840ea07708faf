"""The extractor against torchvision's VGG-16, its conventions, and what it refuses."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import vgg16
from vggface_styles import STYLES, network, write

from dfpg_plugin.archs.vggface_arch import MEAN_RGB, STAND_IN, VGGFaceFeatureExtractor, layer_names
from dfpg_plugin.checks import UserError
from dfpg_plugin.vggface.files import weights_sha256

TORCHVISION_INDEX = {"relu1_2": 3, "pool1": 4, "conv2_2": 7, "relu2_2": 8, "relu3_3": 15, "pool4": 23, "pool5": 30}


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the style of VGGFace16.pth: torchvision's keys under state_dict, 2622 classes, random values."""
    torch.manual_seed(0)
    net = vgg16(weights=None)
    tensors = {k: v for k, v in net.state_dict().items() if k.startswith("features")}
    tensors["classifier.6.weight"] = torch.zeros(2622, 4)
    path = tmp_path_factory.mktemp("vgg") / "VGGFace16.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, path)
    return path


def reference(path: Path, x: torch.Tensor, layer: str) -> torch.Tensor:
    net = vgg16(weights=None).features.eval()
    state = torch.load(path, weights_only=True)["state_dict"]
    net.load_state_dict({k.removeprefix("module.features."): v for k, v in state.items() if "features" in k})
    with torch.no_grad():
        for module in net[: TORCHVISION_INDEX[layer] + 1]:
            module.inplace = False
            x = module(x)
    return x


@pytest.mark.parametrize("layer", TORCHVISION_INDEX)
def test_layers_are_torchvisions(vgg_file: Path, layer: str) -> None:
    net = VGGFaceFeatureExtractor(weights=str(vgg_file), layers=[layer])
    x = torch.rand(2, 3, 33, 35)
    torch.testing.assert_close(net(x)[0], reference(vgg_file, 2 * x - 1, layer))


def test_defaults_are_the_papers_layers_cut_after_the_last(vgg_file: Path) -> None:
    net = VGGFaceFeatureExtractor(weights=str(vgg_file))
    assert [tuple(p.shape) for p in net(torch.rand(1, 3, 21, 18))] == [(1, 64, 21, 18), (1, 128, 10, 9), (1, 256, 5, 4)]
    assert [name for name, _ in net.features.named_children()][-1] == "relu3_3"


def test_features_come_in_the_order_asked_for(vgg_file: Path) -> None:
    net = VGGFaceFeatureExtractor(weights=str(vgg_file), layers=["relu2_2", "relu1_2"])
    assert [p.shape[1] for p in net(torch.rand(1, 3, 16, 16))] == [128, 64]


def test_caffe_input_is_grey_levels_minus_the_mean(vgg_file: Path) -> None:
    net = VGGFaceFeatureExtractor(weights=str(vgg_file), layers=["relu1_2"], input="caffe255", feature_scale=[1.0])
    x = torch.rand(1, 3, 16, 16)
    grey_levels = 255 * x - torch.tensor(MEAN_RGB).view(1, 3, 1, 1)
    torch.testing.assert_close(net(x)[0], reference(vgg_file, grey_levels, "relu1_2"))


def test_caffe_features_are_scaled_to_the_magnitude_of_pm1(vgg_file: Path) -> None:
    x = torch.rand(1, 3, 16, 16)
    pm1 = VGGFaceFeatureExtractor(weights=str(vgg_file))(x)
    caffe = VGGFaceFeatureExtractor(weights=str(vgg_file), input="caffe255")(x)
    for a, b in zip(pm1, caffe, strict=True):
        assert 0.5 < (a.norm() / b.norm()).item() < 2


def test_bgr_weights_see_blue_first(vgg_file: Path) -> None:
    x = torch.rand(1, 3, 16, 16)
    bgr = VGGFaceFeatureExtractor(weights=str(vgg_file), layers=["relu1_2"], channel_order="bgr")(x)[0]
    torch.testing.assert_close(bgr, reference(vgg_file, 2 * x.flip(1) - 1, "relu1_2"))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_fed_in_its_own_order(tmp_path: Path, style: str) -> None:
    net = network("conv1_2")
    path = write(style, tmp_path / "weights", net)
    extractor = VGGFaceFeatureExtractor(weights=str(path), layers=["conv1_1"])
    x = torch.rand(1, 3, 8, 8)
    weight, bias = (torch.from_numpy(a) for a in net["conv1_1"])
    assert torch.equal(extractor(x)[0], torch.nn.functional.conv2d(2 * x - 1, weight, bias, padding=1))
    assert (extractor.record["style"], extractor.record["channel_order"]) == (style, STYLES[style][0])


def test_the_record_says_in_plain_values_which_prior_it_is(tmp_path: Path, vgg_file: Path) -> None:
    sha256 = hashlib.sha256(vgg_file.read_bytes()).hexdigest()
    extractor = VGGFaceFeatureExtractor(
        weights=str(vgg_file), layers=["relu1_2"], input="caffe255", channel_order="bgr"
    )
    assert extractor.record == {
        "file": "VGGFace16.pth", "sha256": sha256, "style": "torchvision-state-dict", "channel_order": "bgr",
        "input": "caffe255", "layers": ["relu1_2"], "feature_scale": [2 / 255],
        "weights_sha256": weights_sha256(extractor.features.state_dict()),
    }  # fmt: skip
    assert extractor.source == f"file VGGFace16.pth, sha256 {sha256}, style torchvision-state-dict, channel_order bgr"
    torch.save(extractor.record, tmp_path / "record")
    assert torch.load(tmp_path / "record", weights_only=True) == extractor.record


def test_the_weights_hash_is_that_of_what_was_loaded(vgg_file: Path) -> None:
    def hash_of(**options: object) -> str:
        return VGGFaceFeatureExtractor(**{"weights": str(vgg_file), **options}).record["weights_sha256"]

    other = [{"channel_order": "bgr"}, {"layers": ["relu1_2"]}, {"weights": "stand-in"}, {"weights": "random"}]
    assert len({hash_of(), *(hash_of(**options) for options in other)}) == 5
    assert hash_of(input="caffe255") == hash_of(channel_order="rgb") == hash_of()


def test_it_is_frozen_and_passes_gradients_on() -> None:
    net = VGGFaceFeatureExtractor(weights="random").train()
    assert not net.training
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(p.sum() for p in net(x)).backward()
    assert x.grad.abs().sum() > 0
    assert all(not p.requires_grad and p.grad is None for p in net.parameters())


def test_random_weights_are_always_the_same_and_leave_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = VGGFaceFeatureExtractor(weights="random").state_dict()
    after = torch.rand(1)
    torch.manual_seed(2)
    net = VGGFaceFeatureExtractor(weights="".join(["ran", "dom"]))  # not the literal, as from YAML
    assert net.source == "random"
    second = net.state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(after, torch.rand(1))


def test_weights_must_be_named() -> None:
    with pytest.raises(TypeError, match="weights"):
        VGGFaceFeatureExtractor()


def test_the_stand_in_is_half_precision_and_calls_itself_one() -> None:
    tensors = load_file(str(STAND_IN))
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert STAND_IN.stat().st_size < 4e6
    net = VGGFaceFeatureExtractor(weights="stand-in")
    assert "standin_prior_lfw.safetensors" in net.source
    assert all(p.dtype == torch.float32 for p in net.features.parameters())
    assert torch.equal(net.features.conv3_3.weight, tensors["conv3_3.weight"].float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"classifier.6.weight": torch.zeros(1000, 4)}), "1000 outputs"),
        (lambda t: t.update({"classifier.6.weight": torch.zeros(8631, 4)}), "8631 outputs"),
        (lambda t: t.update({"features.0.weight": torch.zeros(64, 3, 7, 7)}), r"conv1_1 has shape \(64, 3, 7, 7\)"),
        (lambda t: t.pop("features.0.weight"), "conv1_1 is missing"),
        (lambda t: t.pop("features.12.bias"), "conv3_2.bias is missing"),
        (lambda t: t.update({"features.12.bias": torch.zeros(3)}), "conv3_2.bias has shape"),
    ],
)
def test_files_that_are_not_vggface_are_refused_by_name(tmp_path: Path, vgg_file: Path, change, message: str) -> None:
    tensors = {k.removeprefix("module."): v for k, v in torch.load(vgg_file, weights_only=True)["state_dict"].items()}
    change(tensors)
    path = tmp_path / "other.pth"
    torch.save(tensors, path)
    with pytest.raises(UserError, match=f"other.pth.*{message}"):
        VGGFaceFeatureExtractor(weights=str(path))


def test_another_input_convention_than_the_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slim.safetensors"
    save_file(load_file(str(STAND_IN)), path, {"input": "pm1"})
    with pytest.raises(UserError, match=r"slim.safetensors expects `input: pm1`"):
        VGGFaceFeatureExtractor(weights=str(path), input="caffe255")


def test_missing_files_unknown_layers_and_wrong_scales_are_refused() -> None:
    with pytest.raises(UserError, match=r"nowhere.pth does not exist"):
        VGGFaceFeatureExtractor(weights="nowhere.pth")
    with pytest.raises(UserError, match="Did you mean relu3_3"):
        VGGFaceFeatureExtractor(weights="random", layers=["relu33"])
    with pytest.raises(UserError, match="channel_order: 'grb' is not one of None, rgb, bgr"):
        VGGFaceFeatureExtractor(weights="random", channel_order="grb")
    with pytest.raises(UserError, match="feature_scale"):
        VGGFaceFeatureExtractor(weights="random", feature_scale=[1.0])


def test_layer_names_are_vgg16s() -> None:
    kinds = [type(m).__name__ for m in vgg16(weights=None).features]
    named = {"conv": "Conv2d", "relu": "ReLU", "pool": "MaxPool2d"}
    assert [named[name[:4]] for name in layer_names()] == kinds


@pytest.mark.parametrize("scale", [2.0, [], [1, 2], ["a", "b", "c"]])
def test_a_feature_scale_is_one_number_a_layer(scale: object) -> None:
    with pytest.raises(UserError, match="feature_scale: expected a list of 3 factors"):
        VGGFaceFeatureExtractor(weights="random", feature_scale=scale)


def test_weights_are_a_files_name() -> None:
    with pytest.raises(UserError, match="weights: expected a file's name, got None"):
        VGGFaceFeatureExtractor(weights=None)
