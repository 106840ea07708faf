"""Let spandrel load DFPGNet: programs that load their networks by it, as chaiNNer does, can then use its weights."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from dfpg_plugin.archs.dfpgnet_arch import MIN_SIZE, DFPGNet
from dfpg_plugin.checks import UserError
from dfpg_plugin.restoration.network import ATTENTION

if TYPE_CHECKING:
    from spandrel import ArchSupport, ImageModelDescriptor

ID = "DFPGNet"
KEYS = (  # by which a file is known; every DFPGNet has them, with or without a prior stream
    "encoder.head.weight",
    "encoder.scale2.0.weight",
    "encoder.middle.blocks.0.body.3.attention.1.weight",
    "decoder.up3.weight",
    "decoder.scale1.blocks.0.body.3.attention.1.weight",
    "decoder.tail.weight",
)


def register_in_spandrel(*, ignore_duplicates: bool = False) -> "list[ArchSupport]":
    """Add DFPGNet to spandrel's main registry; return what was added. Files then load by ``spandrel.ModelLoader``.

    What loads: a .safetensors of ``basicsr export``, a training's .pth, and the package's own file. The sizes are read
    from the weights, since spandrel does not hand on what a file says of itself. Weights in half precision become
    single precision. The network computes in single precision only. It maps RGB (B,3,H,W) in [0,1] to the same, and an
    image is one face. ``ignore_duplicates`` is spandrel's: a second call returns an empty list instead of raising
    ``DuplicateArchitectureError``. Raises UserError where spandrel is not installed.
    """
    try:
        import spandrel
    except ImportError as error:
        raise UserError(
            "register_in_spandrel: needs the package spandrel. Install it: pip install spandrel."
        ) from error

    class DFPGNetArch(spandrel.Architecture[DFPGNet]):
        def __init__(self) -> None:
            super().__init__(id=ID, detect=spandrel.util.KeyCondition.has_all(*KEYS))

        def load(self, state_dict: dict[str, Tensor]) -> "ImageModelDescriptor[DFPGNet]":
            state = {name: value for name, value in state_dict.items() if not name.startswith(f"{ATTENTION}.")}
            options = options_of_weights(state)
            return spandrel.ImageModelDescriptor(
                DFPGNet(**options),
                state,
                architecture=self,
                purpose="Restoration",
                tags=[f"{options['num_feat']}nf"],
                supports_half=False,  # the last layer computes in single precision, on single-precision features
                supports_bfloat16=False,
                scale=1,
                input_channels=options["num_in_ch"],
                output_channels=options["num_out_ch"],
                size_requirements=spandrel.SizeRequirements(minimum=MIN_SIZE),
            )

    support = spandrel.ArchSupport.from_architecture(DFPGNetArch())
    return spandrel.MAIN_REGISTRY.add(support, ignore_duplicates=ignore_duplicates)


def options_of_weights(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the options of the DFPGNet that has weights of these names and shapes.

    ``prior_strides`` leaves no trace in the weights, and does not change the restored image.
    """
    width, num_in_ch = state["encoder.head.weight"].shape[:2]
    squeezed = state["encoder.middle.blocks.0.body.3.attention.1.weight"].shape[0]  # of 4 * width channels
    options: dict[str, Any] = {
        "num_in_ch": num_in_ch,
        "num_out_ch": state["decoder.tail.weight"].shape[0],
        "num_feat": width,
        "num_block": _length(state, "encoder.middle.blocks"),
        "squeeze_factor": 4 * width // squeezed,
        "prior_stream": any(name.startswith("prior.") for name in state),
    }
    if options["prior_stream"]:
        options["num_prior_block"] = _length(state, "prior.0.blocks.blocks")
        options["prior_channels"] = [_prior_channels(state, i, width * 2**i) for i in range(3)]
        options["feature_transform"] = "prior.0.ssft.scale.0.weight" in state
    return options


def _length(state: dict[str, Tensor], sequence: str) -> int:
    """Return how many modules a sequence has, by the names of the weights."""
    return len({name.removeprefix(f"{sequence}.").split(".")[0] for name in state if name.startswith(f"{sequence}.")})


def _prior_channels(state: dict[str, Tensor], layer: int, width: int) -> int:
    """Return the channels of an estimated prior: of its projection, which is missing where they are the stream's."""
    projection = state.get(f"prior.{layer}.project.weight")
    return width if projection is None else projection.shape[0]
