"""Every style of VGGFace file gives the same tensors; what is not VGGFace, damaged or malicious is refused by name."""

import gzip
import hashlib
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from vggface_styles import (
    STYLES,
    Torch7Writer,
    bgr,
    expected,
    named,
    network,
    numbered,
    pyvggface,
    torchvision_names,
    write,
    write_keras,
    write_matlab,
    write_new_caffemodel,
    write_old_caffemodel,
    write_torch7,
)

from dfpg_plugin.archs.vggface_arch import STAND_IN
from dfpg_plugin.checks import UserError
from dfpg_plugin.vggface.files import needed_tensors, read_vggface, tensor_shapes, weights_sha256

SMALL = network("conv2_2")
SMALL_LAYERS = ["relu1_2", "relu2_2"]


def assert_same(found: dict, wanted: dict) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("style", STYLES)
def test_every_style_gives_the_same_thirteen_convolutions(tmp_path: Path, style: str) -> None:
    net = network()
    path = write(style, tmp_path / "weights", net)  # no suffix: only the content tells
    file = read_vggface(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()  # 59 MB
    assert (file.style, file.channel_order, file.input, file.sha256) == (style, STYLES[style][0], None, sha256)
    assert_same(file.convolutions(["pool5"]), expected(net))
    stored = expected(bgr(net) if file.channel_order == "bgr" else net)
    assert_same(dict(file.tensors), stored)


def strided(array: np.ndarray) -> bytes:
    writer = Torch7Writer()
    writer.count = 900
    return writer.tensor(array, (0, 0), (9, 9))


def twice(array: np.ndarray) -> bytes:
    """Return a Torch7 table that holds a tensor, and mentions it again by its number."""
    writer = Torch7Writer()
    writer.count = 900
    tensor = writer.tensor(array)
    return struct.pack("<3i", 3, 990, 2) + writer.value(1) + tensor + writer.value(2) + struct.pack("<2i", 4, 901)


VARIANTS: dict[str, tuple[str, Callable]] = {
    "module. under state_dict": (
        "torchvision-state-dict",
        lambda p, n: torch.save({"state_dict": {f"module.{k}": v for k, v in torchvision_names(n).items()}}, p),
    ),
    "module., flat": (
        "torchvision",
        lambda p, n: torch.save({f"module.{k}": v for k, v in torchvision_names(n).items()}, p),
    ),
    "before zip files": ("dag", lambda p, n: torch.save(named(n, str), p, _use_new_zipfile_serialization=False)),
    "doubles": ("dag", lambda p, n: torch.save({k: v.double() for k, v in named(n, str).items()}, p)),
    "channels last": (
        "dag",
        lambda p, n: torch.save({k: v.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if v.ndim == 4 else v
                                 for k, v in named(n, str).items()}, p),
    ),
    "parameters": ("numbered", lambda p, n: torch.save({k: torch.nn.Parameter(v) for k, v in numbered(n).items()}, p)),
    "PyVGGFace, convolutions only": ("pyvggface", lambda p, n: torch.save(pyvggface(n, ""), p)),
    "PyVGGFace, the class's name": (
        "pyvggface",
        lambda p, n: torch.save({k.replace("2_2", "2_2-conv"): v for k, v in pyvggface(n).items()}, p),
    ),
    "safetensors that declare nothing": ("pyvggface", lambda p, n: save_file(pyvggface(n), p)),
    "new caffemodel": ("caffemodel", write_new_caffemodel),
    "caffemodel, not packed": ("caffemodel", lambda p, n: write_new_caffemodel(p, n, packed=False)),
    "SpatialConvolutionMM": ("t7", lambda p, n: write_torch7(p, n, matrices=True)),
    "t7 with a strided tensor": (
        "t7",
        lambda p, n: write_torch7(p, n, extra=strided(np.ones(1, np.float32))),
    ),
    "t7 that mentions a table again": (
        "t7",  # a table, numbered 900, that holds itself
        lambda p, n: write_torch7(p, n, extra=struct.pack("<3iid2i", 3, 900, 1, 1, 1.0, 3, 900)),
    ),
    "t7 that mentions a tensor again": (
        "t7",
        lambda p, n: write_torch7(p, n, extra=twice(np.ones(3, np.float32))),
    ),
    "old MatConvNet": ("matconvnet", lambda p, n: write_matlab(p, n, two_fields=True)),
    "MatConvNet under net": ("matconvnet", lambda p, n: write_matlab(p, n, under_net=True)),
    "old MatConvNet under net": ("matconvnet", lambda p, n: write_matlab(p, n, two_fields=True, under_net=True)),
    "Keras 1": ("keras", lambda p, n: write_keras(p, n, weight="{}_W_1:0", bias="{}_b_1:0")),
    "Keras 1, first names": ("keras", lambda p, n: write_keras(p, n, weight="{}_W", bias="{}_b")),
    "Keras, not nested": ("keras", lambda p, n: write_keras(p, n, weight="kernel:0", bias="bias:0")),
    "Keras, whole model": (
        "keras",
        lambda p, n: write_keras(p, n, weight="{}/kernel:0", bias="{}/bias:0", root="model_weights/"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("classifier", [True, False], ids=["with classifier", "without"])
def test_variants_of_the_styles(tmp_path: Path, variant: str, classifier: bool) -> None:
    style, writer = VARIANTS[variant]
    net = SMALL if classifier else {k: v for k, v in SMALL.items() if k != "fc8"}
    writer(tmp_path / "weights", bgr(net) if STYLES[style][0] == "bgr" else net)
    file = read_vggface(tmp_path / "weights")
    assert file.style == style
    assert_same(file.convolutions(SMALL_LAYERS), expected(SMALL))


@pytest.mark.parametrize("style", ["dag", "torchvision"])
def test_the_channel_order_can_be_overridden(tmp_path: Path, style: str) -> None:
    file = read_vggface(write(style, tmp_path / "weights", SMALL))
    other = "bgr" if file.channel_order == "rgb" else "rgb"
    assert_same(file.convolutions(SMALL_LAYERS, other), expected(bgr(SMALL)))
    assert_same(file.convolutions(SMALL_LAYERS, file.channel_order), expected(SMALL))


def slim(path: Path, **metadata: str) -> Path:
    save_file(expected(SMALL), path, {"input": "pm1", **metadata})
    return path


def test_slim_files_declare_their_input_and_order(tmp_path: Path) -> None:
    file = read_vggface(slim(tmp_path / "a", channel_order="bgr"))
    assert (file.style, file.channel_order, file.input) == ("slim", "bgr", "pm1")
    assert_same(file.convolutions(SMALL_LAYERS), expected(bgr(SMALL)))
    with pytest.raises(UserError, match="is stored in the order bgr"):
        file.convolutions(SMALL_LAYERS, "rgb")
    for wrong in ({"channel_order": "grb"}, {"input": "pm2"}):
        with pytest.raises(UserError, match=r"b: its declared .* is not one of"):
            read_vggface(slim(tmp_path / "b", **wrong))


def test_the_shipped_stand_in_is_read_as_it_is() -> None:
    file = read_vggface(Path(str(STAND_IN)))
    assert (file.style, file.channel_order, file.input) == ("slim", "rgb", "pm1")
    assert list(file.convolutions(["relu3_3"])) == list(file.tensors)


def test_layers_need_the_tensors_before_them(tmp_path: Path) -> None:
    assert needed_tensors(["relu1_2", "relu1_1"]) == [f"conv1_{i}.{k}" for i in (1, 2) for k in ("weight", "bias")]
    assert needed_tensors(["pool5"]) == list(tensor_shapes())
    assert len(needed_tensors(["conv5_1"])) == 22
    for layers, message in ([], "at least one"), (["relu33"], "Did you mean relu3_3"):
        with pytest.raises(UserError, match=message):
            needed_tensors(layers)
    file = read_vggface(write("dag", tmp_path / "two-stages.pth", SMALL))
    with pytest.raises(UserError, match=r"two-stages.pth: conv3_1.weight is missing, .* relu1_2, pool3 need it"):
        file.convolutions(["relu1_2", "pool3"])


def test_the_hash_of_weights_sees_names_and_values_and_nothing_else() -> None:
    tensors = expected(SMALL)
    same = {name: tensor.double() for name, tensor in tensors.items()}
    assert weights_sha256(tensors) == weights_sha256(same)
    changed = {**tensors, "conv2_2.bias": tensors["conv2_2.bias"].flip(0)}
    renamed = {name.replace("2_2", "2_3"): tensor for name, tensor in tensors.items()}
    assert len({weights_sha256(t) for t in (tensors, changed, renamed)}) == 3


# ImageNet's and VGGFace2's classifiers, in every style


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("outputs", [1000, 8631])
def test_other_classifiers_are_refused_in_every_style(tmp_path: Path, style: str, outputs: int) -> None:
    path = write(style, tmp_path / "other", network("conv1_2", outputs))
    with pytest.raises(UserError, match=f"other is not a VGGFace file: its classifier has {outputs} outputs"):
        read_vggface(path)


def with_conv3_4(net: dict) -> dict:
    """Return VGG-19's third stage: the fourth convolution stands where no convolution of VGG-16 is."""
    return {**net, "conv3_4": net["conv1_2"]}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, r"layer1\.0\.conv1\.weight belongs to .*ResNet"),
        ({"features.1.running_mean": torch.zeros(64)}, r"features\.1\.running_mean belongs to .*VGG-16-BN"),
        ({"features.16.weight": torch.zeros(256, 256, 3, 3)}, r"features\.16\.weight is no convolution .*VGG-19"),
        ({"features.40.weight": torch.zeros(512, 512, 3, 3)}, r"features\.40\.weight is no convolution"),
        ({"features.2.weight": torch.zeros(64, 64, 5, 5)}, r"conv1_2\.weight has shape \(64, 64, 5, 5\)"),
        ({"features.0.weight": torch.zeros(64, 1, 3, 3)}, r"conv1_1 has shape \(64, 1, 3, 3\), expected \(64, 3,"),
        ({"features.0.weight": torch.zeros(64, 3, 3)}, r"conv1_1 has shape \(64, 3, 3\)"),
        ({"features.0.bias": torch.full((64,), torch.nan)}, r"conv1_1\.bias holds values that are not finite"),
        ({"features.2.bias": torch.full((64,), -torch.inf)}, r"conv1_2\.bias holds values that are not finite"),
        ({"features.2.bias": torch.zeros(64, dtype=torch.int64)}, r"conv1_2\.bias holds no plain floating point"),
        ({"features.2.bias": torch.zeros(64).to_sparse()}, r"conv1_2\.bias holds no plain floating point"),
        ({"features.2.bias": torch.zeros(64, device="meta")}, r"conv1_2\.bias holds no plain floating point"),
        ({"classifier.6.bias": torch.zeros(1000)}, "its classifier has 1000 outputs"),
        ({"classifier.6.weight": torch.tensor(1.0)}, "its classifier has 0 outputs"),
    ],
)
def test_other_networks_and_broken_tensors_are_refused(tmp_path: Path, tensors: dict, reason: str) -> None:
    torch.save({**torchvision_names(SMALL), **tensors}, tmp_path / "other.pth")
    assert_refused(tmp_path / "other.pth", reason)


@pytest.mark.parametrize(
    ("writer", "reason"),
    [
        (lambda p: write_old_caffemodel(p, with_conv3_4(SMALL)), "conv3_4.* is no convolution of VGG-16 .*VGG-19"),
        (lambda p: write_matlab(p, with_conv3_4(SMALL)), "conv3_4.* is no convolution of VGG-16 .*VGG-19"),
        (lambda p: write_keras(p, with_conv3_4(SMALL), weight="kernel:0", bias="bias:0"), "conv3_4.* is no conv"),
        (lambda p: torch.save({"16.weight": torch.zeros(1), **numbered(SMALL)}, p), "16.weight is no convolution"),
        (lambda p: torch.save({"a.b": torch.zeros(1)}, p), "convolutions found, its first tensor is 'a.b'"),
        (lambda p: torch.save({"1_1.weight": torch.zeros(1)}, p), "none of VGG-16's convolutions"),
        (lambda p: torch.save({}, p), "none of VGG-16's convolutions found, it has no tensors"),
        (lambda p: torch.save([torch.zeros(1)], p), "holds no weights"),
        (lambda p: write_keras(p, {"conv1_2": SMALL["conv1_2"]}, weight="kernel:0", bias="b:0"), "conv1_1 is missing"),
        (lambda p: write_torch7(p, {**SMALL, "conv1_2": (SMALL["conv1_2"][0][:, :3].copy(), SMALL["conv1_2"][1])}),
         r"conv1_2\.weight has shape \(64, 3, 3, 3\)"),
    ],
)  # fmt: skip
def test_other_networks_are_refused_in_other_formats_too(tmp_path: Path, writer: Callable, reason: str) -> None:
    writer(tmp_path / "other")
    assert_refused(tmp_path / "other", reason)


def assert_refused(path: Path, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        read_vggface(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert re.search(reason, message), message


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kept", [9, 600, 0.5, -100])
def test_files_that_are_cut_short_are_refused(tmp_path: Path, style: str, kept: float) -> None:
    path = write(style, tmp_path / "short", SMALL)
    content = path.read_bytes()
    size = int(len(content) * kept) if isinstance(kept, float) else kept
    path.write_bytes(content[:size])
    assert_refused(path, r"readable|can't be read|is none of the files|not a VGGFace file")


def zip_without_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("VGGFace16.pth", b"weights")


@pytest.mark.parametrize(
    ("writer", "reason"),
    [
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_text("<html>404</html>\n" * 50), "is none of the files that hold VGGFace"),
        (lambda p: p.write_text('name: "VGG_FACE_16_layers"\ninput: "data"\n'), "is none of the files"),
        (lambda p: p.write_text("\nnot a protobuf\n"), "can't be read as a Caffe file"),
        (lambda p: p.write_bytes(gzip.compress(b"VGG_FACE.caffemodel")), "is a compressed archive. Unpack it"),
        (zip_without_pickle, "is a zip archive, not a PyTorch file. Unpack it"),
        (lambda p: p.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"), "MATLAB 7.3 .*-v7"),
        (lambda p: p.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"\7" * 99), "as a MATLAB file"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), "can't be read as a Keras HDF5 file"),
        (lambda p: p.write_bytes(struct.pack("<Q", 90) + b'{"a": 1}'), "can't be read as a safetensors file"),
        (lambda p: p.write_bytes(b"\x80\x02K\x01."), "is not a readable PyTorch file|holds no weights"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, writer: Callable, reason: str) -> None:
    writer(tmp_path / "VGGFace16.pth")
    assert_refused(tmp_path / "VGGFace16.pth", reason)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["zip", "old", "bare pickle"])
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, how: str) -> None:
    content = {"state_dict": {**torchvision_names(SMALL), "features.30.weight": Evil(tmp_path / "executed")}}
    if how == "bare pickle":
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=how == "zip")
    assert_refused(tmp_path / "evil.pth", "is not a readable PyTorch file")
    assert not (tmp_path / "executed").exists()


def torch7(*parts: bytes) -> bytes:
    """Return an nn.Sequential that holds one field ``a``, whose value is given."""
    writer = Torch7Writer()
    head = writer.torch("nn.Sequential") + struct.pack("<i", 3) + writer.index() + struct.pack("<i", 1)
    return head + writer.value("a") + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch7(struct.pack("<3i", 8, 9, 4), b"\x1bLua"), "it holds Lua functions"),
        (torch7(struct.pack("<2i", 6, 4), b"\x1bLua"), "it holds Lua functions"),
        (torch7(struct.pack("<i", 99)), "unknown type 99"),
        (torch7(struct.pack("<2i", 2, -5)), "it ends before byte"),
        (torch7(struct.pack("<2i", 2, 2**30)), "it ends before byte"),
        (torch7(struct.pack("<3i", 3, 9, 2**31 - 1)), "it ends before byte"),
        (torch7(struct.pack("<4i", 4, 9, 3, 0)[:12], b"V 1", Torch7Writer.text("tds.Hash")), "unknown class tds.Hash"),
        (torch7(struct.pack("<3i", 4, 9, 3), b"V 1", Torch7Writer.text("torch.FloatStorage"), struct.pack("<q", 2**60)),
         "it ends before byte"),
        (torch7(struct.pack("<3i", 4, 9, 3), b"V 1", Torch7Writer.text("torch.FloatTensor"), struct.pack("<i", 2**30)),
         "it ends before byte"),
        (torch7(struct.pack("<2i", 4, 1)), "none of VGG-16's convolutions"),  # holds itself
        (torch7(b"".join(struct.pack("<3i2i", 3, 100 + i, 1, 5, 1) for i in range(5000))), "RecursionError"),
    ],
)  # fmt: skip
def test_torch7_files_that_would_do_harm_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "VGG_FACE.t7").write_bytes(content)
    assert_refused(tmp_path / "VGG_FACE.t7", reason)


@pytest.mark.parametrize(
    ("shape", "strides", "reason"),
    [
        ((64, 3, 3, 30), (270, 90, 30, 1), "lies outside of its storage"),
        ((64, 3, 3, 3), (0, 0, 0, 0), "is not contiguous"),
        ((64, 3, 3, -3), (27, 9, 3, 1), "is not contiguous"),
    ],
)
def test_torch7_tensors_never_leave_their_storage(tmp_path: Path, shape: tuple, strides: tuple, reason: str) -> None:
    weight, bias = SMALL["conv1_1"]
    writer = Torch7Writer()
    head = writer.torch("nn.Sequential")
    fields = {"weight": writer.tensor(weight, strides, shape), "bias": bias}
    fields = {"modules": {1: ("nn.SpatialConvolution", fields)}}
    writer.count = 100  # the tensor above was numbered already
    (tmp_path / "a.t7").write_bytes(head + writer.value(fields))
    assert_refused(tmp_path / "a.t7", reason)


def test_caffe_blobs_of_another_size_than_their_shape_are_refused(tmp_path: Path) -> None:
    path = write("caffemodel", tmp_path / "a.caffemodel", SMALL)
    shape, smaller = b"\x08\x40\x10\x03\x18\x03\x20\x03", b"\x08\x40\x10\x03\x18\x03\x20\x02"  # num 64, channels 3, ...
    path.write_bytes(path.read_bytes().replace(shape, smaller))
    assert_refused(path, "can't be read as a Caffe file .*reshape")


def test_huge_data_sets_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("conv1_1/kernel:0", shape=(2**40,), chunks=(2**10,), dtype="f4")
    assert_refused(tmp_path / "a.h5", "has 1099511627776 values")
