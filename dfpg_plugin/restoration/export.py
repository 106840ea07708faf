"""Export a network. Load the written file again, and compare its results with PyTorch's on real faces."""

import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from dfpg_plugin import __version__
from dfpg_plugin.checks import UserError
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.files import CONTAINERS, load_weights, read_safetensors, save_whole, whole_file
from dfpg_plugin.restoration.network import ATTENTION, HALF, OPTIONS, PRECISION, build
from dfpg_plugin.weight_names import CHANNEL_ATTENTION, EXPORTED_ATTENTION, with_fitting_names

if TYPE_CHECKING:
    import onnx

OPSET = 18
OPSETS = (18, 23)  # the least and the greatest opset that both torch and onnxruntime know
SUFFIXES = (".onnx", ".pt", ".safetensors")  # .pt: TorchScript
CHECKED_SIZES = ((128, 128), (101, 66), (256, 192))  # height and width, px
CHECKED_BATCHES = (1, 3)
TOLERANCE = 1e-4  # the greatest difference from PyTorch that is accepted
LEAST_SIDE = "least_side"  # the metadata's key for the least height and width, px
MOST_LEAST = 256  # px; the search for the least side ends here
ABOUT = "about.json"  # the file with the metadata inside a TorchScript file
LICENCE = "of the data and of the prior that the network was trained with; see its model card"
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Checked:
    """How much an exported network's result differs from PyTorch's, for one size and batch."""

    batch: int
    height: int  # px
    width: int  # px
    largest_difference: float  # of a value, white is 1; NaN if the shapes differ


def export(network: nn.Module, about: dict[str, str], file: Path, opset: int = OPSET) -> list[Checked]:
    """Write ``network``, in eval mode on the CPU, to ``file``; return the differences that the check has found.

    The suffix of ``file`` decides the kind of file (SUFFIXES). The exported network maps RGB (B,3,H,W) in [0,1] to the
    same shape and range. B is any number, and H and W are at least :func:`least_side` px. The file's metadata are
    ``about`` without ``weights``, and more facts such as ``least_side``.

    The file is loaded and compared with ``network`` before it gets its name. Raises UserError if a difference is above
    TOLERANCE, and ``file`` then stays as it was. Raises UserError for an unknown suffix or opset, for a missing
    package, and for a network that can't be exported.
    """
    if file.suffix not in SUFFIXES:
        raise UserError(f"{file}: unknown kind. Use one of {', '.join(SUFFIXES)}.")
    meta = {
        **{key: value for key, value in about.items() if key != "weights"},
        "input": "RGB, B x 3 x H x W, 0 to 1",
        LEAST_SIDE: str(least_side(network)),
        "dfpg_plugin": __version__,
        "licence": LICENCE,
    }
    if file.suffix == ".onnx":
        if not OPSETS[0] <= opset <= OPSETS[1]:
            raise UserError(f"--opset: expected a number from {OPSETS[0]} to {OPSETS[1]}, got {opset}.")
        meta["opset"] = str(opset)
    write, load = {".onnx": (_onnx, _load_onnx), ".pt": (_script, _load_script)}.get(
        file.suffix, (_safetensors, _load_safetensors)
    )
    try:
        content = write(network, meta)
    except UserError:
        raise
    except Exception as error:  # of torch's exporters and onnx's checker, a dozen kinds
        raise UserError(
            f"{file}: {type(network).__name__} can't be exported ({_first_line(error)}). Try another kind of file."
        ) from error
    with whole_file(file) as opened:
        opened.write(content)
        opened.flush()
        try:
            least = int(meta[LEAST_SIDE])
            sizes = [(max(least, height), max(least, width)) for height, width in CHECKED_SIZES]
            checked = compare(network, load(Path(opened.name)), sizes)
        except Exception as error:  # onnxruntime raises errors of its own
            why = _first_line(error)
            raise UserError(f"{file}: the written file can't be run ({why}). The file was not kept.") from error
        largest = np.max([row.largest_difference for row in checked])  # NaN if any difference is NaN
        if not largest <= TOLERANCE:  # true for NaN, too
            raise UserError(
                f"{file}: differs from PyTorch by {largest:.1e}, more than {TOLERANCE}. The file was not kept."
            )
    return checked


@torch.no_grad()
def least_side(network: nn.Module) -> int:
    """Return the side in px of the smallest square image that a network takes.

    Raises UserError if the network takes no square image up to MOST_LEAST px.
    """
    for side in range(1, MOST_LEAST + 1):
        try:
            network(torch.zeros(1, 3, side, side))
        except (AssertionError, IndexError, RuntimeError, ValueError):  # the image is too small for the network
            continue
        return side
    raise UserError(f"network_g: {type(network).__name__} takes no square image up to {MOST_LEAST} px.")


def compare(network: nn.Module, run: Run, sizes: Sequence[tuple[int, int]] = CHECKED_SIZES) -> list[Checked]:
    """Run ``network`` and ``run`` on real faces of all ``sizes``, in batches of 1 and 3; return the differences."""
    rows = []
    for height, width in sizes:
        for batch in CHECKED_BATCHES:
            faces = _faces(batch, height, width)
            with torch.no_grad():
                got, wanted = run(faces), network(faces)
                difference = float("nan") if got.shape != wanted.shape else (got - wanted).abs().max().item()
            rows.append(Checked(batch, height, width, difference))
    return rows


def _faces(batch: int, height: int, width: int) -> Tensor:
    source = orl_faces("val")
    names = source.names[:batch]
    faces = [cv2.resize(source.read(name), (width, height), interpolation=cv2.INTER_CUBIC) for name in names]
    return torch.from_numpy(np.stack(faces)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200]


def _onnx(network: nn.Module, meta: dict[str, str]) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise UserError(f"export to ONNX needs {package}. Run: pip install {package}")
    import onnx

    names = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.onnx.export(
        network, (torch.rand(2, 3, 128, 96),),
        dynamo=True, opset_version=int(meta["opset"]), input_names=["blurred"],
        output_names=["restored"], dynamic_shapes=(names,), verbose=False,
    )  # fmt: skip
    model = program.model_proto  # type: ignore[union-attr]
    if meta.get(PRECISION) == HALF:
        _halve(model.graph)
    for key, value in meta.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _halve(graph: "onnx.GraphProto") -> None:
    """Store weights in half precision if that changes no value. Add nodes that convert them back to single precision.

    These nodes are the first of the graph, so the network computes in single precision.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or not np.array_equal(half := values.astype(np.float16), values):
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    for i, cast in enumerate(casts):
        graph.node.insert(i, cast)


def _load_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    least = int(session.get_modelmeta().custom_metadata_map[LEAST_SIDE])

    def run(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < least:  # an ONNX file can't refuse small images
            raise UserError(f"{file}: {height}x{width} px is too small, each side needs at least {least} px.")
        return torch.from_numpy(session.run(None, {"blurred": x.numpy()})[0])

    return run


def _script(network: nn.Module, meta: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that a trace makes constant; the check at other sizes finds these
        traced = torch.jit.trace(network, torch.rand(2, 3, 128, 96))
        torch.jit.save(traced, content, _extra_files={ABOUT: json.dumps(meta).encode()})
    return content.getvalue()


def _load_script(file: Path) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torch.export, whose files other programs can't read yet
        return torch.jit.load(str(file))


def _safetensors(network: nn.Module, meta: dict[str, str]) -> bytes:
    kind = torch.float16 if meta.get(PRECISION) == HALF else torch.float32
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    return save({key: value.contiguous() for key, value in state.items()}, meta)


@torch.no_grad()
def round_to_half(network: nn.Module) -> None:
    """Round a network's weights and buffers, in place, to numbers that half precision can hold.

    Raises UserError if a weight is beyond half precision's greatest number, 65,504.
    """
    for name, weight in network.state_dict().items():  # the network's own memory, not a copy
        if weight.is_floating_point():
            weight.copy_(weight.half())
            if not torch.isfinite(weight).all():
                raise UserError(f"--half: {name} has weights beyond 65,504. Export without --half.")


def _load_safetensors(file: Path) -> Run:
    state, about = read_safetensors(file)
    network = build(json.loads(about[OPTIONS]))
    network.load_state_dict(state)
    return network.eval()


def add_attention(file: Path, discriminator: str, options: Mapping) -> None:
    """Add the channel attention of a trained discriminator to the safetensors ``file``, for the demo page.

    ``discriminator`` is the path of a training's .pth. ``options`` are the options that build the discriminator.
    Raises UserError if a file can't be read, or if the discriminator has no channel attention.
    """
    state, about = read_safetensors(file)
    trained = with_fitting_names(build(options), load_weights(discriminator, CONTAINERS)[0], discriminator)
    found = {key: value for key, value in trained.items() if key.startswith(CHANNEL_ATTENTION)}
    if not found:
        raise UserError(f"{discriminator}: holds no channel attention. Export without --discriminator.")
    state.update({EXPORTED_ATTENTION + key.removeprefix(CHANNEL_ATTENTION): value for key, value in found.items()})
    with whole_file(file) as opened:
        opened.write(save(state, {**about, ATTENTION: json.dumps(dict(options))}))


def to_training(network: nn.Module, file: Path) -> None:
    """Write a network's weights as a PyTorch file that a training takes as ``path: pretrain_network_g``."""
    save_whole({"params": network.state_dict()}, file)
