"""What networks share that have another one inside, under the name ``network``."""

from torch import Tensor, nn


def take_bare_weights(wrapper: nn.Module) -> None:
    """Let a wrapper load files of the network inside as well, which know nothing of a wrapper."""
    wrapper.register_load_state_dict_pre_hook(_name_as_inside)


def _name_as_inside(module: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    inside = f"{prefix}network."
    if not any(f"{prefix}{key}" in state for key in module.state_dict()):
        for key in [key for key in state if key.startswith(prefix)]:
            state[inside + key.removeprefix(prefix)] = state.pop(key)
