"""A slim file equals its original: the tensors, the features, the weights' hash."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from vggface_styles import STYLES, bgr, expected, network, write

import dfpg_plugin
from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor
from dfpg_plugin.checks import UserError
from dfpg_plugin.preparation.vggface import convert_vggface
from dfpg_plugin.vggface.files import needed_tensors, read_vggface, weights_sha256

PAPER = ("relu1_2", "relu2_2", "relu3_3")
NET = network("conv3_3")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "slim.safetensors"


def features(path: Path, **options: object) -> list[torch.Tensor]:
    x = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    return VGGFaceFeatureExtractor(weights=str(path), **options)(x)


@pytest.mark.parametrize("style", STYLES)
def test_features_of_the_slim_file_are_those_of_the_original(tmp_path: Path, target: Path, style: str) -> None:
    source = write(style, tmp_path / "original", NET)
    convert_vggface(source, target, layers=PAPER, input="pm1")
    assert all(torch.equal(a, b) for a, b in zip(features(source), features(target), strict=True))
    original, slim = (VGGFaceFeatureExtractor(weights=str(path)).record for path in (source, target))
    assert original["weights_sha256"] == slim["weights_sha256"]
    assert (original["file"], original["style"], slim["style"]) == ("original", style, "slim")


def test_it_holds_the_convolutions_in_rgb_order_and_says_where_they_are_from(tmp_path: Path, target: Path) -> None:
    source = write("caffemodel", tmp_path / "VGG_FACE.caffemodel", NET)
    summary = convert_vggface(source, target, layers=PAPER, input="caffe255")
    tensors = load_file(target)
    assert {name: t.dtype for name, t in tensors.items()} == dict.fromkeys(needed_tensors(PAPER), torch.float32)
    assert all(torch.equal(t, tensors[name]) for name, t in expected(NET).items())
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert metadata == {
        "format": "dfpg_plugin slim VGGFace 1", "input": "caffe255", "channel_order": "rgb",
        "layers": "relu1_2 relu2_2 relu3_3", "source": "VGG_FACE.caffemodel", "source_sha256": sha256,
        "source_style": "caffemodel", "source_channel_order": "bgr", "dfpg_plugin": dfpg_plugin.__version__,
    }  # fmt: skip
    assert summary == {
        **metadata, "target": str(target), "tensors": "14", "bytes": str(target.stat().st_size),
        "target_sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "weights_sha256": weights_sha256(expected(NET)),
    }  # fmt: skip
    assert target.stat().st_size < 7e6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["VGG_FACE.caffemodel", "slim.safetensors"]


def test_the_declared_input_is_insisted_on(tmp_path: Path, target: Path) -> None:
    convert_vggface(write("dag", tmp_path / "dag.pth", NET), target, layers=PAPER, input="caffe255")
    assert len(features(target, input="caffe255")) == 3
    with pytest.raises(UserError, match=r"slim.safetensors expects `input: caffe255`"):
        features(target)
    with pytest.raises(UserError, match=r"slim.safetensors is for `input: caffe255`, but `input: pm1` is asked for"):
        convert_vggface(target, tmp_path / "b.safetensors", layers=PAPER, input="pm1")


def test_pool5_gives_all_thirteen_and_fewer_layers_less(tmp_path: Path, target: Path) -> None:
    source = write("dag", tmp_path / "dag.pth", network())
    for layers, count in ((["pool5"], 26), (["relu1_1"], 2), (["relu2_2", "relu1_2"], 8)):
        assert convert_vggface(source, target, layers=layers, input="pm1")["tensors"] == str(count)
        assert set(load_file(target)) == set(needed_tensors(layers))
    source.unlink()


def test_the_order_given_goes_before_the_styles(tmp_path: Path, target: Path) -> None:
    source = write("torchvision-state-dict", tmp_path / "VGGFace16.pth", NET)
    convert_vggface(source, target, layers=PAPER, input="pm1", channel_order="bgr")
    assert torch.equal(load_file(target)["conv1_1.weight"], expected(bgr(NET))["conv1_1.weight"])
    wanted = features(source, channel_order="bgr")
    assert all(torch.equal(a, b) for a, b in zip(wanted, features(target), strict=True))


def test_a_slim_file_is_never_flipped(tmp_path: Path, target: Path) -> None:
    convert_vggface(write("dag", tmp_path / "dag.pth", NET), target, layers=PAPER, input="pm1")
    with pytest.raises(UserError, match=r"slim.safetensors is stored in the order rgb. Remove `channel_order`"):
        features(target, channel_order="bgr")
    convert_vggface(target, tmp_path / "b.safetensors", layers=["relu1_2"], input="pm1")
    assert torch.equal(read_vggface(tmp_path / "b.safetensors").tensors["conv1_2.bias"], expected(NET)["conv1_2.bias"])


def test_what_was_there_is_replaced_whole_or_kept(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write("dag", tmp_path / "dag.pth", NET)
    target.write_text("before")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match=r"slim.safetensors: can't be written .*No space left"):
            convert_vggface(source, target, layers=PAPER, input="pm1")
    assert target.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dag.pth", "slim.safetensors"]
    convert_vggface(source, target, layers=PAPER, input="pm1")
    assert len(load_file(target)) == 14


@pytest.mark.parametrize("name", ["same.safetensors", "link.safetensors"])
def test_the_source_is_never_overwritten(tmp_path: Path, name: str) -> None:
    source = write("dag", tmp_path / "same.safetensors", NET)
    (tmp_path / "link.safetensors").symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(UserError, match=f"{name} is the source itself"):
        convert_vggface(source, tmp_path / name, layers=PAPER, input="pm1")
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": Path("nowhere.pth")}, r"source: nowhere.pth does not exist"),
        ({"target": Path("slim.pth")}, r"slim.pth: the name of the file to write must end in .safetensors"),
        ({"target": Path("nowhere/slim.safetensors")}, "nowhere/slim.safetensors: can't be written"),
        ({"layers": []}, "at least one"),
        ({"layers": ["relu3_3", "relu33"]}, "Did you mean relu3_3"),
        ({"layers": ["pool5"]}, r"dag.pth: conv4_1.weight is missing"),
        ({"input": "pm2"}, "input: 'pm2' is not one of pm1, caffe255"),
        ({"channel_order": "gbr"}, "channel_order: 'gbr' is not one of"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write("dag", tmp_path / "dag.pth", NET)
    arguments = {"source": source, "target": Path("slim.safetensors"), "layers": PAPER, "input": "pm1", **change}
    with pytest.raises(UserError, match=message):
        convert_vggface(**arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["dag.pth"]
