"""The names of a file's weights: remove what a wrapper has put before them, and say which names do not fit."""

from collections.abc import Iterator, Mapping, Sequence

from basicsr.utils import get_root_logger
from torch import Tensor, nn

from dfpg_plugin.checks import UserError

# attributes that hold a network: in DDP and AveragedModel (module), in Lightning's modules and in other trainings
WRAPPERS = ("module", "model", "net_g", "net_d", "netG", "netD", "generator", "discriminator", "net", "network")
INSERTED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # by torch, at any depth
SHOWN = 3  # names in a message


def load_into(net: nn.Module, state: Mapping[str, Tensor], source: object, strict: bool = True) -> list[str]:
    """Load weights that :func:`with_fitting_names` has named. Return the names of the weights that the file lacks.

    ``source``: the file, for messages. Without ``strict``, the weights that fit by name and shape are loaded, and a
    warning says how many. Raises UserError, naming both sides, if weights do not fit, or if none fits at all.
    """
    if not strict:
        own = net.state_dict()
        fitting = {name: v for name, v in state.items() if name in own and own[name].shape == v.shape}
        if own and not fitting:
            raise UserError(describe_misfit(net, state, source))
        if fitting.keys() != own.keys() or fitting.keys() != state.keys():
            text = f"{source}: {len(fitting)} of {type(net).__name__}'s {len(own)} weights are loaded"
            get_root_logger().warning(f"{text}, and {len(state) - len(fitting)} of the file's are not.")
        state = fitting
    try:
        return list(net.load_state_dict(dict(state), strict=strict).missing_keys)
    except RuntimeError as error:
        raise UserError(describe_misfit(net, state, source, str(error))) from error


def with_fitting_names(net: nn.Module, state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Return a file's weights by the names under which ``net`` loads them.

    The names of known wrappers, :data:`WRAPPERS` and :data:`INSERTED`, are removed where more weights fit without them.
    Wrappers may be nested. The log says in one line what was removed, and which weights of other parts are left out.
    """
    own = net.state_dict()
    best: tuple[int, int] = (-1, -1)
    for taken, candidate in _unwrapped(state):
        names = with_network_prefixes(net, candidate)
        common = names.keys() & own.keys()
        fits = (sum(names[name].shape == own[name].shape for name in common), len(common))
        if fits > best:
            best, prefix, found, inner = fits, taken, names, candidate
    if prefix:
        _log_removed(source, prefix, state, inner)
    return found


def without_wrapper(state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Return weights without the names of known wrappers that stand before every name. The log says so."""
    found, prefix = _without_inserted(state), ""
    while (first := _shared_wrapper(found)) is not None:
        found = {name.removeprefix(f"{first}."): value for name, value in found.items()}
        prefix += f"{first}."
    if prefix or found.keys() != state.keys():
        _log_removed(source, prefix or f"{INSERTED[0]}.", state, found)
    return found


def describe_misfit(net: nn.Module, state: Mapping[str, Tensor], source: object, reason: str = "") -> str:
    """Return one line on how a file's weights differ from a network's. ``reason``: torch's, if names and shapes fit."""
    own = net.state_dict()
    missing, others = [name for name in own if name not in state], [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    parts = []
    if missing:
        shown = first_names(missing)
        parts.append(f"{len(own) - len(missing)} of the network's {len(own)} weights are in it, not {shown}")
    if others:
        parts.append(f"it has {len(others)} others: {first_names(others)}")
    if shapes:
        pair = f"{list(state[shapes[0]].shape)} in the file, {list(own[shapes[0]].shape)} in the network"
        parts.append(f"{len(shapes)} have another shape: {shapes[0]}, {pair}")
    text = "; ".join(parts) or " ".join(reason.split())[:300]
    return f"{source} does not fit {type(net).__name__}: {text}. Name a file of this network, or set its options."


def with_network_prefixes(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with ``network.`` in their names wherever a wrapper in ``net`` has it and the file does not."""
    named = dict(state)
    for name, module in net.named_modules():
        if getattr(module, "takes_bare_weights", False):
            add_network_prefix(module, named, f"{name}." if name else "")
    return named


def add_network_prefix(wrapper: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    """Put ``network.`` behind ``prefix`` in the names of ``state``, unless one of them is the wrapper's own name."""
    if not any(f"{prefix}{key}" in state for key in wrapper.state_dict()):
        for key in [key for key in state if key.startswith(prefix)]:
            state[f"{prefix}network.{key.removeprefix(prefix)}"] = state.pop(key)


def _unwrapped(state: Mapping[str, Tensor], taken: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the removed prefix and the remaining weights: first without any removal, then for every nesting."""
    yield taken, dict(state)
    for wrapper in (*INSERTED, *WRAPPERS):
        prefix = f"{wrapper}."
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if inside:
            yield from _unwrapped(inside, f"{taken}{prefix}")
    plain = _without_inserted(state)
    if plain.keys() != state.keys():
        yield from _unwrapped(plain, taken or f"{INSERTED[0]}.")


def _without_inserted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {".".join(part for part in name.split(".") if part not in INSERTED): v for name, v in state.items()}


def _shared_wrapper(state: Mapping[str, Tensor]) -> str | None:
    """Return the known wrapper whose name stands before every name, if there is one."""
    firsts = {name.partition(".")[0] if "." in name else "" for name in state}
    return firsts.pop() if len(firsts) == 1 and firsts <= {*WRAPPERS} else None


def _log_removed(source: object, prefix: str, state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    text = f"{source}: took the wrapper's {prefix!r} off the names of {len(kept)} weights"
    tensors = {id(value) for value in kept.values()}
    if left_out := [name for name, value in state.items() if id(value) not in tensors]:
        text += f", and left out {len(left_out)} of other parts: {first_names(left_out)}"
    get_root_logger().info(f"{text}.")


def first_names(names: Sequence[str]) -> str:
    """Return the first names of a list as text: ``a, b, c, ...``."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
