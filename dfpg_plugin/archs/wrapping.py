"""What networks share that have another one inside, under the name ``network``."""

from torch import Tensor, nn

from dfpg_plugin.weight_names import name_as_inside


def take_bare_weights(wrapper: nn.Module) -> None:
    """Let a wrapper load files of the network inside as well, which know nothing of a wrapper."""
    wrapper.register_load_state_dict_pre_hook(_rename)
    wrapper.takes_bare_weights = True  # type: ignore[assignment] # read by dfpg_plugin.weight_names.by_own_names


def _rename(wrapper: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    name_as_inside(wrapper, state, prefix)
