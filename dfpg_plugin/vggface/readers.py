"""Read the tensors of the file formats in which VGG-16's weights are published. The first bytes tell the format.

No reader executes anything in a file. PyTorch, safetensors and Torch7 files keep their own names of tensors. The others
get VGG-16's names (``conv1_1.weight``). Convolutions have the shape (out, in, height, width).
"""

import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import load_pytorch, state_dict_of
from dfpg_plugin.vggface.caffemodel import read_caffemodel
from dfpg_plugin.vggface.torch7 import OBJECT, TABLE, T7Tensor, read_torch7
from dfpg_plugin.weight_names import without_wrapper

HEAD_SIZE = 512  # bytes that tell the format
MAX_HEADER = 2**27  # of safetensors, bytes
MAX_VALUES = 2**24  # of one tensor in HDF5; VGG-16's largest convolution has 2.4 million, fc8 10.7 million
LAYER = re.compile(r"conv\d_\d|fc8")
KINDS = ("weight", "bias")  # of a layer's tensors, in the order of the files
KERAS_TENSOR = re.compile(r"(?:.*/)?(conv\d_\d|fc8)/(?:.*/)?(?:\1_)?(kernel|W|bias|b)(?:_\d+)?(?::0)?")
KERAS_KINDS = {"kernel": "weight", "W": "weight", "bias": "bias", "b": "bias"}


@dataclass(frozen=True)
class Contents:
    """What a file holds, before its tensors are recognised as VGGFace's."""

    tensors: Mapping[str, Tensor]
    format: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    wrapped: bool = False  # whether the tensors were under the key `state_dict`


def read_contents(path: Path) -> Contents:
    """Read ``path`` in the format that its first bytes tell.

    Fully connected layers may come without values (on the ``meta`` device), because only their shapes matter here.
    Raises UserError, in one line with file and reason, if the file can't be read.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_SIZE)
    name, read = _format_of(path, head)
    try:
        return read(path)
    except UserError:
        raise
    except Exception as error:  # the libraries raise a dozen kinds of error for damaged files
        reason = str(error).strip().split("\n")[0][:120]
        raise UserError(f"{path} can't be read as a {name} file ({type(error).__name__}: {reason}).") from error


def _format_of(path: Path, head: bytes) -> tuple[str, Callable[[Path], Contents]]:
    if not head:
        raise UserError(f"{path} is empty.")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        raise UserError(f"{path} is a compressed archive. Unpack it, and give the file of weights in it.")
    if head.startswith((b"PK\x03\x04", b"\x80")) or head[257:262] == b"ustar":
        return "PyTorch", _read_pytorch
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "Keras HDF5", _read_keras
    if head.startswith(b"MATLAB 7.3"):
        raise UserError(f"{path} is a MATLAB 7.3 file, which is not read. Save it in MATLAB with `-v7`.")
    if head.startswith(b"MATLAB 5.0"):
        return "MATLAB", _read_matlab
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return "safetensors", _read_safetensors
    if len(head) > 8 and struct.unpack("<2i", head[:8]) in ((OBJECT, 1), (TABLE, 1)):
        return "Torch7", _read_torch7
    if head.startswith((b"\n", b"\x12", b"\xa2\x06")):  # NetParameter's fields name, layers and layer
        return "Caffe", _read_caffemodel
    raise UserError(
        f"{path} is none of the files that hold VGGFace: PyTorch, safetensors, Torch7, caffemodel, MATLAB 5 or "
        "Keras HDF5."
    )


def _read_pytorch(path: Path) -> Contents:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                raise UserError(f"{path} is a zip archive, not a PyTorch file. Unpack it, and give the file in it.")
    content = load_pytorch(path)
    inner = content.get("state_dict") if isinstance(content, Mapping) else None
    wrapped = isinstance(inner, Mapping)
    state = without_wrapper(state_dict_of(path, inner if wrapped else content), path)
    return Contents(state, "pytorch", wrapped=wrapped)


def _read_safetensors(path: Path) -> Contents:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return Contents(tensors, "safetensors", file.metadata() or {})


def _read_keras(path: Path) -> Contents:
    import h5py  # here: only such files need it

    tensors = {}

    def visit(name: str, item: object) -> None:
        match = KERAS_TENSOR.fullmatch(name)
        if match and isinstance(item, h5py.Dataset) and not name.startswith("optimizer_weights/"):
            if item.size > MAX_VALUES:
                raise ValueError(f"{name} has {item.size} values")
            tensors[f"{match[1]}.{KERAS_KINDS[match[2]]}"] = _from_hwio(item[()])

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return Contents(tensors, "keras")


def _read_matlab(path: Path) -> Contents:
    from scipy.io import loadmat

    content = loadmat(path, simplify_cells=True)
    layers = content.get("net", content).get("layers", [])
    tensors = {}
    for layer in layers:
        if LAYER.fullmatch(str(layer.get("name"))):
            # newer files of MatConvNet keep {filters, biases} in one cell, older files in two fields
            pair = layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])
            for kind, array in zip(KINDS, pair, strict=True):
                tensors[f"{layer['name']}.{kind}"] = _from_hwio(array)
    return Contents(tensors, "matconvnet")


def _read_torch7(path: Path) -> Contents:
    network = read_torch7(path)
    if not isinstance(network, dict):
        raise UserError(f"{path} holds no network, but a {type(network).__name__}.")
    return Contents(dict(_module_tensors(network)), "t7")


def _module_tensors(module: dict, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for kind in (*KINDS, "running_mean"):
        if isinstance(tensor := module.get(kind), T7Tensor):
            array = tensor.array()
            if kind == "weight" and array.ndim == 2 and "kW" in module:  # SpatialConvolutionMM keeps a matrix
                array = array.reshape([int(module[k]) for k in ("nOutputPlane", "nInputPlane", "kH", "kW")])
            yield f"{prefix}{kind}", _tensor(array)
    for number, child in module.get("modules", {}).items():
        yield from _module_tensors(child, f"{prefix}{int(number) - 1}.")


def _read_caffemodel(path: Path) -> Contents:
    layers = {name: blobs for name, blobs in read_caffemodel(path) if LAYER.fullmatch(name)}
    tensors = {}
    for name, blobs in layers.items():
        for kind, blob in zip(KINDS, blobs, strict=False):
            tensors[f"{name}.{kind}"] = _tensor(blob.array())
    return Contents(tensors, "caffemodel")


def _from_hwio(array: np.ndarray) -> Tensor:
    """Bring (height, width, in, out) or (in, out), of MatConvNet and TensorFlow, into PyTorch's order."""
    array = np.asarray(array)
    if array.ndim == 4:
        return _tensor(array.transpose(3, 2, 0, 1))
    return _tensor(array.T)


def _tensor(array: np.ndarray) -> Tensor:
    if array.ndim == 2:  # fully connected, up to 410 MB: only the shape is needed
        return torch.empty(array.shape, device="meta")
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
