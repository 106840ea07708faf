"""Weights of wrappers: networks that hold another network under the name ``network``."""

from torch import nn

from dfpg_plugin.weight_names import add_network_prefix


def take_bare_weights(wrapper: nn.Module) -> None:
    """Let a wrapper also load files of the bare network, whose names lack ``network.``."""
    wrapper.register_load_state_dict_pre_hook(add_network_prefix)
    wrapper.takes_bare_weights = True  # type: ignore[assignment] # read by weight_names.with_network_prefixes
