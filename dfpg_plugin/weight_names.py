"""The names of a file's weights: remove the names of wrappers, such as ``module.``, and say which names do not fit."""

from collections.abc import Iterator, Mapping, Sequence

from basicsr.utils import get_root_logger
from torch import Tensor, nn

from dfpg_plugin.checks import UserError

# attributes that hold a network: in DDP and AveragedModel (module), in Lightning's modules and in other trainings
WRAPPERS = ("module", "model", "net_g", "net_d", "netG", "netD", "generator", "discriminator", "net", "network")
INSERTED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # names that torch adds at any depth
CHANNEL_ATTENTION = "channel_attention."  # the beginning of the names of these weights in a discriminator
EXPORTED_ATTENTION = "network_d."  # the same in a file of `basicsr export`, beside the generator's weights
SHOWN = 3  # names in a message


def load_into(net: nn.Module, state: Mapping[str, Tensor], source: object, strict: bool = True) -> list[str]:
    """Load weights into ``net``, and return the names of the weights that ``net`` did not get.

    ``state``: the weights as :func:`with_fitting_names` returns them. ``source``: the file, for messages. ``strict``:
    all names and shapes have to fit. Otherwise the weights that fit are loaded, and a warning says how many. Raises
    UserError, naming weights of both sides, if not all weights fit, or without ``strict`` if none fits.
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


def of_exported_file(net: nn.Module, state: Mapping[str, Tensor], source: object = None) -> dict[str, Tensor]:
    """Return those weights of a safetensors file that may belong to ``net``.

    A file of ``basicsr export`` holds a generator's weights. The file may hold the channel attention of the
    discriminator as well, named ``network_d.*``. A network with channel attention gets the attention, under the names
    that a training has for it. Any other network gets the rest. ``source``: the file, for a line in the log that says
    what is left out; None: no line.
    """
    attention = {
        CHANNEL_ATTENTION + name.removeprefix(EXPORTED_ATTENTION): value
        for name, value in state.items()
        if name.startswith(EXPORTED_ATTENTION)
    }
    rest = {name: value for name, value in state.items() if not name.startswith(EXPORTED_ATTENTION)}
    found = attention if attention.keys() & net.state_dict().keys() else rest
    if source is not None and attention:
        left_out = [name for name in state if (name in rest) != (found is rest)]
        names = first_names(left_out)
        get_root_logger().info(f"{source}: {len(left_out)} weights of another network are left out: {names}.")
    return found


def with_fitting_names(net: nn.Module, state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Return a file's weights under the names that ``net`` has for them.

    The names of wrappers (:data:`WRAPPERS`, :data:`INSERTED`) are removed if more weights fit then. Wrappers may
    be nested: ``model.net_g.conv.weight`` becomes ``conv.weight``. The log says which names were removed, and which
    weights of other parts, such as ``net_d``, were left out.
    """
    own = net.state_dict()
    best: tuple[int, int] = (-1, -1)
    for removed, candidate in _unwrapped(state):
        names = with_network_prefixes(net, candidate)
        common = names.keys() & own.keys()
        fits = (sum(names[name].shape == own[name].shape for name in common), len(common))
        if fits > best:
            best, prefix, found, inner = fits, removed, names, candidate
    if prefix:
        _log_removed(source, prefix, state, inner)
    return found


def without_wrapper(state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Return weights without the names of wrappers. The log says which names were removed.

    A name of :data:`WRAPPERS` is removed where all weights' names begin with it, a name of :data:`INSERTED` anywhere.
    """
    found, prefix = _without_inserted(state), ""
    while (first := _shared_wrapper(found)) is not None:
        found = {name.removeprefix(f"{first}."): value for name, value in found.items()}
        prefix += f"{first}."
    if prefix or found.keys() != state.keys():
        _log_removed(source, prefix or f"{INSERTED[0]}.", state, found)
    return found


def describe_misfit(net: nn.Module, state: Mapping[str, Tensor], source: object, reason: str = "") -> str:
    """Return a line that says how a file's weights differ from those of a network.

    ``reason``: torch's own message, which is repeated if all names and shapes fit.
    """
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
    """Return weights under the names that ``net`` has for them, if ``net`` holds wrappers such as AdaptedNet.

    A wrapper's network has ``network.`` in its names: ``conv.weight`` becomes ``network.conv.weight``.
    """
    named = dict(state)
    for name, module in net.named_modules():
        if getattr(module, "takes_bare_weights", False):
            add_network_prefix(module, named, f"{name}." if name else "")
    return named


def add_network_prefix(wrapper: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    """Insert ``network.`` after ``prefix`` in the names of ``state``, unless ``state`` has a name of the wrapper's own.

    Changes ``state``. torch passes ``others`` to such a hook of ``load_state_dict``.
    """
    if not any(f"{prefix}{key}" in state for key in wrapper.state_dict()):
        for key in [key for key in state if key.startswith(prefix)]:
            state[f"{prefix}network.{key.removeprefix(prefix)}"] = state.pop(key)


def _unwrapped(state: Mapping[str, Tensor], removed: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (removed names, remaining weights): first all weights, then those in each wrapper, also in nested ones."""
    yield removed, dict(state)
    for wrapper in (*INSERTED, *WRAPPERS):
        prefix = f"{wrapper}."
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if inside:
            yield from _unwrapped(inside, f"{removed}{prefix}")
    plain = _without_inserted(state)
    if plain.keys() != state.keys():
        yield from _unwrapped(plain, removed or f"{INSERTED[0]}.")


def _without_inserted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {".".join(part for part in name.split(".") if part not in INSERTED): v for name, v in state.items()}


def _shared_wrapper(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of the wrapper with which all weights' names begin, or None."""
    for wrapper in WRAPPERS:
        if state and all(name.startswith(f"{wrapper}.") for name in state):
            return wrapper
    return None


def _log_removed(source: object, prefix: str, state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    text = f"{source}: took the wrapper's {prefix!r} off the names of {len(kept)} weights"
    tensors = {id(value) for value in kept.values()}
    if left_out := [name for name, value in state.items() if id(value) not in tensors]:
        text += f", and left out {len(left_out)} of other parts: {first_names(left_out)}"
    get_root_logger().info(f"{text}.")


def first_names(names: Sequence[str]) -> str:
    """Return the first names of a list as text: ``a, b, c, ...``."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
