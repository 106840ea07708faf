"""Let spandrel load DFPGNet. Programs that load networks with spandrel, such as chaiNNer, can then use DFPGNet."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from dfpg_plugin.archs.dfpgnet_arch import MIN_SIZE, DFPGNet
from dfpg_plugin.checks import UserError
from dfpg_plugin.weight_names import EXPORTED_ATTENTION

if TYPE_CHECKING:
    from spandrel import ArchSupport, ImageModelDescriptor

ID = "DFPGNet"
KEYS = (  # a file with these weights is a DFPGNet; every DFPGNet has them, with or without a prior stream
    "encoder.head.weight",
    "encoder.scale2.0.weight",
    "encoder.middle.blocks.0.body.3.attention.1.weight",
    "decoder.up3.weight",
    "decoder.scale1.blocks.0.body.3.attention.1.weight",
    "decoder.tail.weight",
)


def register_in_spandrel(*, ignore_duplicates: bool = False) -> "list[ArchSupport]":
    """Add DFPGNet to spandrel's main registry; return what was added.

    ``spandrel.ModelLoader`` then loads the package's own file, a .safetensors of ``basicsr export`` and a training's
    .pth. The network's options are computed from the shapes of the weights, because spandrel does not pass a file's
    metadata on. Weights in half precision become single precision, and the network computes in single precision only.
    The network maps RGB (B,3,H,W) in [0,1] to the same shape and range. An image is one face.

    ``ignore_duplicates`` is spandrel's option: True makes a second call return an empty list instead of raising
    ``DuplicateArchitectureError``. Raises UserError if spandrel is not installed.
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
            state = {name: value for name, value in state_dict.items() if not name.startswith(EXPORTED_ATTENTION)}
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

    ``prior_strides`` can't be told from the weights. ``prior_strides`` does not change the restored image.
    """
    width, num_in_ch = state["encoder.head.weight"].shape[:2]
    # the channel attention squeezes 4 * width channels to this number
    squeezed = state["encoder.middle.blocks.0.body.3.attention.1.weight"].shape[0]
    options: dict[str, Any] = {
        "num_in_ch": num_in_ch,
        "num_out_ch": state["decoder.tail.weight"].shape[0],
        "num_feat": width,
        "num_block": _count_modules(state, "encoder.middle.blocks"),
        "squeeze_factor": 4 * width // squeezed,
        "prior_stream": any(name.startswith("prior.") for name in state),
    }
    if options["prior_stream"]:
        options["num_prior_block"] = _count_modules(state, "prior.0.blocks.blocks")
        options["prior_channels"] = [_prior_channels(state, i, width * 2**i) for i in range(3)]
        options["feature_transform"] = "prior.0.ssft.scale.0.weight" in state
    return options


def _count_modules(state: dict[str, Tensor], sequence: str) -> int:
    """Return how many modules a sequence has: 5 if weights begin with ``{sequence}.0.`` to ``{sequence}.4.``."""
    prefix = f"{sequence}."
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def _prior_channels(state: dict[str, Tensor], layer: int, width: int) -> int:
    """Return how many channels a layer's estimated prior has. Without a projection there are ``width`` channels."""
    projection = state.get(f"prior.{layer}.project.weight")
    return width if projection is None else projection.shape[0]
