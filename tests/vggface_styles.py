"""Write a VGG-16 with chosen values in every style of VGGFace file, by means other than the package's.

A network here is a dict of layer name -> (weight as (out,in,height,width) for RGB images, bias) and ``fc8`` -> (weight
(outputs, inputs), bias).
"""

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from scipy.io import savemat

SHAPES = {
    "conv1_1": (64, 3), "conv1_2": (64, 64), "conv2_1": (128, 64), "conv2_2": (128, 128),
    "conv3_1": (256, 128), "conv3_2": (256, 256), "conv3_3": (256, 256),
    "conv4_1": (512, 256), "conv4_2": (512, 512), "conv4_3": (512, 512),
    "conv5_1": (512, 512), "conv5_2": (512, 512), "conv5_3": (512, 512),
}  # fmt: skip
INDEX = dict(zip(SHAPES, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))
Network = dict[str, tuple[np.ndarray, np.ndarray]]


def network(last: str = "conv5_3", outputs: int = 2622) -> Network:
    """Return random values, always the same, of the convolutions up to ``last``, and a narrow classifier."""
    rng = np.random.default_rng(0)
    names = list(SHAPES)[: list(SHAPES).index(last) + 1]
    shapes = {name: ((*SHAPES[name], 3, 3), SHAPES[name][0]) for name in names}
    shapes["fc8"] = ((outputs, 4), outputs)
    return {
        name: (rng.standard_normal(weight, dtype=np.float32), rng.standard_normal(bias, dtype=np.float32))
        for name, (weight, bias) in shapes.items()
    }


def expected(net: Network) -> dict[str, torch.Tensor]:
    """Return what every file of ``net`` must give: its convolutions by name."""
    pairs = {name: pair for name, pair in net.items() if name.startswith("conv")}
    return {
        f"{n}.{k}": torch.from_numpy(v) for n, p in pairs.items() for k, v in zip(("weight", "bias"), p, strict=True)
    }


def bgr(net: Network) -> Network:
    """Return the same network for BGR images."""
    weight, bias = net["conv1_1"]
    return {**net, "conv1_1": (np.ascontiguousarray(weight[:, ::-1]), bias)}


def named(net: Network, name_of: Callable[[str], str]) -> dict[str, torch.Tensor]:
    pairs = [(name_of(name), pair) for name, pair in net.items()]
    return {f"{n}.{k}": torch.from_numpy(v) for n, p in pairs for k, v in zip(("weight", "bias"), p, strict=True)}


def torchvision_names(net: Network) -> dict[str, torch.Tensor]:
    return named(net, lambda n: "classifier.6" if n == "fc8" else f"features.{INDEX[n]}")


def numbered(net: Network) -> dict[str, torch.Tensor]:
    return named(net, lambda n: "38.1" if n == "fc8" else str(INDEX[n]))


def pyvggface(net: Network, prefix: str = "features.") -> dict[str, torch.Tensor]:
    return named(net, lambda n: "fc.fc8" if n == "fc8" else f"{prefix}conv_{n[4:]}")


def write_matlab(path: Path, net: Network, *, two_fields: bool = False, under_net: bool = False) -> None:
    """Write MatConvNet's structs: (height, width, in, out), MATLAB's order of values."""
    layers = []
    for name, (weight, bias) in net.items():
        filters = weight.T[None, None] if name == "fc8" else weight.transpose(2, 3, 1, 0)
        layer = {"name": name, "type": "conv", "stride": np.array([[1.0, 1.0]])}
        pair = np.empty((1, 2), object)
        pair[0, 0], pair[0, 1] = filters, bias[None]
        layer.update({"filters": filters, "biases": bias[None]} if two_fields else {"weights": pair})
        layers += [layer, {"name": name.replace("conv", "relu").replace("fc8", "prob"), "type": "relu"}]
    cell = np.empty((1, len(layers)), object)
    cell[0] = layers
    meta = {"classes": {"name": "A. J. Buckley"}}
    content = {"net": {"layers": cell, **meta}} if under_net else {"layers": cell, "meta": meta}
    savemat(path, content, appendmat=False)


def write_keras(path: Path, net: Network, *, weight: str, bias: str, root: str = "") -> None:
    """Write Keras' groups: ``weight`` and ``bias`` name the data sets below the layer's group."""
    with h5py.File(path, "w") as file:
        for name, (w, b) in net.items():
            group = file.create_group(f"{root}{name}")
            group[weight.format(name)] = w.T if w.ndim == 2 else w.transpose(2, 3, 1, 0)
            group[bias.format(name)] = b
        file.create_group(f"{root}pool1")
        file["optimizer_weights/conv1_1/kernel:0"] = np.zeros((3, 3, 3, 64))


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def write_old_caffemodel(path: Path, net: Network) -> None:
    """Encode NetParameter.layers (V1) by hand: four dimensions for every blob, and fields that nobody reads."""
    content = _field(1, b"VGG_FACE_16_layers") + _field(3, b"data") + _field(4, 1)
    for name, (weight, bias) in net.items():
        layer = _field(2, b"data") + _field(3, name.encode()) + _field(4, name.encode()) + _field(5, 4)
        for array in (weight, bias):
            shape = (1, 1, 1, *array.shape)[-4:]
            blob = b"".join(_field(i, size) for i, size in enumerate(shape, start=1))
            layer += _field(6, blob + _field(5, array.tobytes()))
        content += _field(2, layer + _varint(7 << 3 | 5) + struct.pack("<f", 1.0))
    path.write_bytes(content)


def write_new_caffemodel(path: Path, net: Network, *, packed: bool = True) -> None:
    """Write NetParameter.layer with Google's own package."""
    kinds = descriptor_pb2.FieldDescriptorProto
    schema = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    fields = {
        "BlobShape": [("dim", 1, kinds.TYPE_INT64, packed)],
        "BlobProto": [("data", 5, kinds.TYPE_FLOAT, packed), ("shape", 7, "BlobShape", None)],
        "LayerParameter": [("name", 1, kinds.TYPE_STRING, None), ("blobs", 7, "BlobProto", None)],
        "NetParameter": [("name", 1, kinds.TYPE_STRING, None), ("layer", 100, "LayerParameter", None)],
    }
    for message, rows in fields.items():
        described = schema.message_type.add(name=message)
        for name, number, kind, is_packed in rows:
            repeated = kinds.LABEL_REPEATED if name in ("dim", "data", "blobs", "layer") else kinds.LABEL_OPTIONAL
            field = described.field.add(name=name, number=number, label=repeated)
            if isinstance(kind, str):
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = kind
            if is_packed is not None:
                field.options.packed = is_packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))(name="VGG_FACE")
    for name, arrays in net.items():
        layer = message.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.data.extend(array.ravel().tolist())
    path.write_bytes(message.SerializeToString())


class Torch7Writer:
    """Torch7's binary format, as File.lua writes it. Modules are pairs of class name and dict."""

    def __init__(self) -> None:
        self.count = 0

    def index(self) -> bytes:
        self.count += 1
        return struct.pack("<i", self.count)

    @staticmethod
    def text(value: str) -> bytes:
        return struct.pack("<i", len(value)) + value.encode()

    def torch(self, name: str) -> bytes:
        return struct.pack("<i", 4) + self.index() + self.text("V 1") + self.text(name)

    def tensor(self, array: np.ndarray, strides: tuple | None = None, shape: tuple | None = None) -> bytes:
        shape = shape or array.shape
        strides = strides or [s // array.itemsize for s in array.strides]
        out = self.torch("torch.FloatTensor") + struct.pack("<i", len(shape))
        out += struct.pack(f"<{len(shape)}q", *shape) + struct.pack(f"<{len(shape)}q", *strides)
        out += struct.pack("<q", 3)  # two values before it in its storage
        storage = np.concatenate([np.zeros(2, np.float32), array.ravel()])
        return out + self.torch("torch.FloatStorage") + struct.pack("<q", len(storage)) + storage.tobytes()

    def value(self, value: object) -> bytes:
        if value is None:
            return struct.pack("<i", 0)
        if isinstance(value, bool):
            return struct.pack("<2i", 5, value)
        if isinstance(value, int | float):
            return struct.pack("<id", 1, value)
        if isinstance(value, str):
            return struct.pack("<i", 2) + self.text(value)
        if isinstance(value, np.ndarray):
            return self.tensor(value)
        if isinstance(value, bytes):
            return value
        if isinstance(value, tuple):
            return self.torch(value[0]) + self.value(value[1])
        out = struct.pack("<i", 3) + self.index() + struct.pack("<i", len(value))
        return out + b"".join(self.value(k) + self.value(v) for k, v in value.items())


def write_torch7(path: Path, net: Network, *, matrices: bool = False, extra: object = None) -> None:
    """Write nn.Sequential as VGG_FACE.t7 has it: 31 feature layers, View, three Linear with ReLU and Dropout."""
    writer = Torch7Writer()
    modules: dict = {i: ("nn.ReLU", {"inplace": True, "train": False}) for i in range(1, 41)}
    header = writer.torch("nn.Sequential")
    for name, (weight, bias) in net.items():
        fields: dict = {"bias": bias, "gradWeight": None}
        if name == "fc8":
            modules[39] = ("nn.Linear", {"weight": weight, **fields})
            continue
        out, inner = weight.shape[:2]
        fields.update(kW=3, kH=3, nInputPlane=inner, nOutputPlane=out)
        fields["weight"] = weight.reshape(out, -1) if matrices else weight
        modules[INDEX[name] + 1] = ("nn.SpatialConvolution" + ("MM" if matrices else ""), fields)
    fields = {"modules": modules, "_type": "torch.FloatTensor", "train": False, "note": extra}
    path.write_bytes(header + writer.value(fields))


STYLES: dict[str, tuple[str, Callable[[Path, Network], object]]] = {  # -> the order of its channels, how to write it
    "torchvision-state-dict": ("rgb", lambda p, n: torch.save({"state_dict": torchvision_names(n), "epoch": 3}, p)),
    "torchvision": ("bgr", lambda p, n: torch.save(torchvision_names(n), p)),
    "numbered": ("bgr", lambda p, n: torch.save(numbered(n), p)),
    "pyvggface": ("bgr", lambda p, n: torch.save(pyvggface(n), p)),
    "dag": ("rgb", lambda p, n: torch.save(named(n, str), p)),
    "caffemodel": ("bgr", write_old_caffemodel),
    "t7": ("bgr", write_torch7),
    "matconvnet": ("rgb", write_matlab),
    "keras": ("bgr", lambda p, n: write_keras(p, n, weight="{}/kernel:0", bias="{}/bias:0")),
}


def write(style: str, path: Path, net: Network) -> Path:
    """Write ``net``, given for RGB images, in the order that files of ``style`` have, and return ``path``."""
    order, writer = STYLES[style]
    writer(path, bgr(net) if order == "bgr" else net)
    return path
