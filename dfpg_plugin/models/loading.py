"""How models load the weights of a network; BasicSR's own models too, by :func:`dfpg_plugin.compat.mend_loading`."""

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import nn

from dfpg_plugin.files import CONTAINERS, load_weights
from dfpg_plugin.weight_names import load_into, with_fitting_names


def load_network(
    model: BaseModel, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
) -> None:
    """Load weights under ``param_key``, ``params``, another of CONTAINERS or bare; nothing is executed.

    BasicSR raises KeyError for the others (base_model.py:290-295), and takes off no wrapper but ``module.``. What a
    file lacks of the averaged weights starts as the generator's; BasicSR leaves other random ones there
    (sr_model.py:42-51). Raises UserError, naming the file, where it is missing, damaged or does not fit, and without
    ``strict`` where nothing in it does.
    """
    state, found = load_weights(load_path, (param_key, "params", *CONTAINERS))
    bare = model.get_bare_model(net)
    state = with_fitting_names(bare, state, load_path)
    get_root_logger().info(f"Loading {type(bare).__name__} from {load_path}, with param key: [{found}].")
    missing = load_into(bare, state, load_path, strict)
    if not strict:
        model._print_different_keys_loading(bare, state, strict)
    if net is getattr(model, "net_g_ema", None):
        generators = model.get_bare_model(model.net_g).state_dict()
        bare.load_state_dict({key: generators[key] for key in missing}, strict=False)
