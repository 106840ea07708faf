"""Recognise a VGGFace file by its content, whatever its name, and give its convolutions VGG-16's layer names.

The network of Parkhi et al. 2015 is published in many files. The files differ in format, in the names of the tensors,
and in the order of the channels that the first convolution expects:

=======================  ==================================  =====  ====================================================
style                    recognised by                       order  file and source
=======================  ==================================  =====  ====================================================
torchvision-state-dict   ``features.0.weight`` under         rgb    VGGFace16.pth: MSPL-GAN,
                         ``state_dict``                             ustclby/Unsupervised-Domain-Specific-Deblurring;
                                                                    order not stated, all its users feed RGB
torchvision              ``features.0.weight``, flat         bgr    vgg_face.ptorch: kilotaras/vgg_face_pytorch
numbered                 ``0.weight``, ``38.1.weight``       bgr    VGG_FACE.pth: rajeevyasarla/UMSN-Face-Deblurring,
                                                                    made with clcarwin/convert_torch_to_pytorch
pyvggface                ``features.conv_1_1.weight``        bgr    vggface.pth, vggface_conv.pth (without
                                                                    ``features.``): chi0tzp/PyVGGFace
dag                      ``conv1_1.weight``                  rgb    vgg_face_dag.pth:
                                                                    robots.ox.ac.uk/~albanie/pytorch-models.html
caffemodel               NetParameter, old or new layers     bgr    VGG_FACE.caffemodel:
                                                                    robots.ox.ac.uk/~vgg/software/vgg_face
t7                       Torch7's binary format              bgr    VGG_FACE.t7: the same page
matconvnet               MATLAB 5, ``layers``                rgb    vgg-face.mat: vlfeat.org/matconvnet/pretrained;
                                                                    vgg_face.mat: the same page as VGG_FACE.t7
keras                    HDF5, ``conv1_1/...``               bgr    rcmalli_vggface_tf_vgg16.h5, with and without
                                                                    classifier: rcmalli/keras-vggface
slim                     safetensors that declare ``input``  rgb    ``basicsr prepare vggface``, and this package's
                                                                    stand-in
=======================  ==================================  =====  ====================================================

All were trained on grey levels 0-255 minus the same mean: 129.1863, 104.7624, 93.5940 for R, G, B. A safetensors file
that declares no ``input`` is recognised by its names, as a PyTorch file is.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.files import sha256_of
from dfpg_plugin.vggface.readers import Contents, read_contents

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of VGG-16's five stages
NUM_CLASSES = 2622  # identities of the VGG Face data set
INPUTS = ("pm1", "caffe255", "rgb255")
CHANNEL_ORDERS = ("rgb", "bgr")
CHANNEL_ORDER = {
    "torchvision-state-dict": "rgb", "torchvision": "bgr", "numbered": "bgr", "pyvggface": "bgr", "dag": "rgb",
    "caffemodel": "bgr", "t7": "bgr", "matconvnet": "rgb", "keras": "bgr", "slim": "rgb",
}  # fmt: skip


class Naming(NamedTuple):
    """How a style names its tensors, as patterns."""

    style: str
    convolution: re.Pattern  # groups: the convolution's number or name; weight or bias
    classifier: re.Pattern  # the last layer


NAMINGS = (
    Naming("torchvision", re.compile(r"features\.(\d+)\.(\w+)"), re.compile(r"classifier\.6\.(weight|bias)")),
    Naming("numbered", re.compile(r"([12]?\d|30)\.(\w+)"), re.compile(r"38\.(1\.)?(weight|bias)")),
    # PyVGGFace's class names one of its layers conv_2_2-conv
    Naming("pyvggface", re.compile(r"(?:features\.)?conv_(\d_\d)(?:-conv)?\.(\w+)"), re.compile(r"fc\.fc8\.\w+")),
    Naming("dag", re.compile(r"conv(\d_\d)\.(\w+)"), re.compile(r"fc8\.\w+")),
)
OTHER_NETWORK = re.compile(r".*(running_mean$|(^|\.)layer\d\.\d+\.)")


def layer_names() -> list[str]:
    """Return the names of VGG-16's layers in order: conv1_1, relu1_1, conv1_2, relu1_2, pool1, ... relu5_3, pool5."""
    names = []
    for stage, (_, num_conv) in enumerate(STAGES, start=1):
        for conv in range(1, num_conv + 1):
            names += [f"conv{stage}_{conv}", f"relu{stage}_{conv}"]
        names.append(f"pool{stage}")
    return names


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of VGG-16's convolutions by name, in order: ``conv1_1.weight``, ``conv1_1.bias``, ..."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for name in layer_names():
        if name.startswith("conv"):
            width = STAGES[int(name[4]) - 1][0]
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width, channels, 3, 3), (width,)
            channels = width
    return shapes


@dataclass(frozen=True, eq=False)
class VGGFaceFile:
    """The convolutions that a VGGFace file has."""

    path: Path
    tensors: Mapping[str, Tensor]  # by name: `conv1_1.weight` (64,3,3,3) float32 and so on, as stored
    style: str  # of the table above
    channel_order: str  # rgb or bgr: the order that conv1_1 expects
    input: str | None  # one of INPUTS if the file declares its input, else None
    sha256: str  # of the file

    def convolutions(self, layers: Sequence[str], channel_order: str | None = None) -> dict[str, Tensor]:
        """Return the convolutions that ``layers`` need, for RGB images, in order.

        ``channel_order`` overrides the style's order. A slim file declares its own order, which can't be overridden.
        Raises UserError for such a contradiction, for unknown layers and for a missing tensor.
        """
        check_choice("channel_order", channel_order, (None, *CHANNEL_ORDERS))
        if self.style == "slim" and channel_order not in (None, self.channel_order):
            raise UserError(f"{self.path} is stored in the order {self.channel_order}. Remove `channel_order`.")
        wanted = needed_tensors(layers)
        for name in wanted:
            if name not in self.tensors:
                raise UserError(f"{self.path}: {name} is missing, the layers {', '.join(layers)} need it.")
        found = {name: self.tensors[name] for name in wanted}
        if (channel_order or self.channel_order) == "bgr":
            found["conv1_1.weight"] = found["conv1_1.weight"].flip(1)
        return found


def needed_tensors(layers: Sequence[str]) -> list[str]:
    """Return the names of the tensors up to the last of ``layers``. Raises UserError for unknown layers or none."""
    names = layer_names()
    if not layers:
        raise UserError("layers: expected at least one of VGG-16's layers, got none.")
    for layer in layers:
        check_choice("layers", layer, names)
    last = max(names.index(layer) for layer in layers)
    return [name for name in tensor_shapes() if names.index(name.split(".")[0]) <= last]


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names and float32 values, in the given order. Equal weights give equal hashes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def read_vggface(path: Path) -> VGGFaceFile:
    """Read a VGGFace file of any style in the table above. Nothing in the file is executed.

    Raises UserError, in one line with the file and the reason, if the file is damaged or holds another network:
    ImageNet's VGG-16, VGG-16-BN or VGG-19, or one of VGGFace2.
    """
    contents = read_contents(path)
    naming = _naming_of(path, contents)
    found = {}
    for key, value in contents.tensors.items():
        if naming.classifier.fullmatch(key):
            _check_classifier(path, value)
        elif match := naming.convolution.fullmatch(key):
            found[f"{_layer_name(path, key, match[1])}.{match[2]}"] = value
    if "conv1_1.weight" not in found:
        raise UserError(f"{path} is not a VGGFace file: conv1_1 is missing, expected (64, 3, 3, 3).")
    shapes = tensor_shapes()
    tensors = {name: _checked(path, name, found[name], shapes[name]) for name in shapes if name in found}
    style, order, declared = _declared(path, contents, naming)
    return VGGFaceFile(path, tensors, style, order, declared, sha256_of(path))


def _naming_of(path: Path, contents: Contents) -> Naming:
    for key in contents.tensors:
        if OTHER_NETWORK.match(key):
            raise UserError(
                f"{path} is not a VGGFace file: {key} belongs to a network with batch normalisation or residual blocks "
                "(VGG-16-BN, or VGGFace2's ResNet and SENet). The paper's is VGG-16 of the first VGG Face."
            )
    for naming in NAMINGS:
        if any(naming.convolution.fullmatch(key) for key in contents.tensors):
            return naming
    first = next(iter(contents.tensors), None)
    found = "it has no tensors of that name" if first is None else f"its first tensor is {first!r}"
    raise UserError(f"{path} is not a VGGFace file: none of VGG-16's convolutions found, {found}.")


def _layer_name(path: Path, key: str, label: str) -> str:
    """Return the layer's name for a number in torchvision's ``features`` or for ``1_1``: both 0 and 1_1 are conv1_1."""
    names = dict(enumerate(layer_names()))
    name = f"conv{label}" if "_" in label else names.get(int(label), "")
    if name not in names.values() or not name.startswith("conv"):
        raise UserError(
            f"{path} is not a VGGFace file: {key} is no convolution of VGG-16 (VGG-19 and VGG-16-BN have others)."
        )
    return name


def _check_classifier(path: Path, tensor: Tensor) -> None:
    num_outputs = tensor.shape[0] if tensor.ndim else 0
    if num_outputs != NUM_CLASSES:
        raise UserError(
            f"{path} is not a VGGFace file: its classifier has {num_outputs} outputs, VGGFace's has {NUM_CLASSES} "
            "(1000 are ImageNet's, 8631 VGGFace2's)."
        )


def _checked(path: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return ``tensor`` as float32 after checking its shape and values."""
    if tuple(tensor.shape) != shape:
        label = "conv1_1" if name == "conv1_1.weight" else name
        what = f"{path} is not a VGGFace file" if label == "conv1_1" else str(path)
        raise UserError(f"{what}: {label} has shape {tuple(tensor.shape)}, expected {shape}.")
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise UserError(f"{path}: {name} holds no plain floating point numbers ({tensor.dtype}, {tensor.layout}).")
    tensor = tensor.detach().float().contiguous()
    if not torch.isfinite(tensor).all():
        raise UserError(f"{path}: {name} holds values that are not finite. The file is damaged; get it again.")
    return tensor


def _declared(path: Path, contents: Contents, naming: Naming) -> tuple[str, str, str | None]:
    """Return the file's style, channel order and declared input."""
    declared = contents.metadata.get("input")
    if contents.format in CHANNEL_ORDER:  # formats that are styles of their own
        style = contents.format
    elif contents.format == "safetensors" and declared is not None:
        style = "slim"
    elif naming.style == "torchvision" and contents.wrapped:
        style = "torchvision-state-dict"
    else:
        style = naming.style
    order = contents.metadata.get("channel_order", CHANNEL_ORDER[style])
    check_choice(f"{path}: its declared input", declared, (None, *INPUTS))
    check_choice(f"{path}: its declared channel_order", order, CHANNEL_ORDERS)
    return style, order, declared
