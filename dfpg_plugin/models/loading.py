"""Load a network's weights. BasicSR's own models use this function too: see :func:`dfpg_plugin.compat.mend_loading`."""

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import nn

from dfpg_plugin.files import CONTAINERS, is_safetensors, load_weights, weights_file
from dfpg_plugin.weight_names import load_into, of_exported_file, with_fitting_names


def load_network(
    model: BaseModel, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
) -> None:
    """Load a network's weights from a file. No code in the file is executed.

    The weights stand under ``param_key``, ``params``, another key of CONTAINERS, or directly in the file. BasicSR
    raises KeyError unless they stand under one of the first two (base_model.py:290-295). The names of known wrappers
    are removed from the weights' names. BasicSR removes only ``module.``.

    Averaged weights that the file lacks are copied from the generator. BasicSR leaves random weights there
    (sr_model.py:46-50). Raises UserError, with the file's name, if the file is missing or damaged or does not fit the
    network. Without ``strict``, a file fits if any of its weights fits.

    The file is a PyTorch file, or a safetensors file of ``basicsr export``. BasicSR reads PyTorch files only.
    """
    file = weights_file(load_path)  # BasicSR's own trainer passes `shipped` on
    state, found = load_weights(file, (param_key, "params", *CONTAINERS))
    bare = model.get_bare_model(net)
    if is_safetensors(file):
        state = of_exported_file(bare, state, file)
    state = with_fitting_names(bare, state, file)
    get_root_logger().info(f"Loading {type(bare).__name__} from {file}, with param key: [{found}].")
    missing = load_into(bare, state, file, strict)
    if not strict:
        model._print_different_keys_loading(bare, state, strict)
    if net is getattr(model, "net_g_ema", None):
        generators = model.get_bare_model(model.net_g).state_dict()
        bare.load_state_dict({key: generators[key] for key in missing}, strict=False)
