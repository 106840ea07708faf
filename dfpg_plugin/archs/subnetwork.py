"""The part of a network that computes some of its layers, cut out by torch.fx; every layer keeps its value."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from dfpg_plugin.checks import UserError, close_names


def part_of(
    name: str, whole: nn.Module, layers: Sequence[str], aliases: Mapping[str, str] | None = None
) -> tuple[nn.Module, list[str]]:
    """Return a network that maps images to a dict of the layers' values, and their keys in it.

    ``layers``: nodes of the graph in eval mode, as torchvision's ``get_graph_node_names`` calls them, or what they
    begin with up to a dot: then the last of those, a module's output. ``aliases``: other names for nodes. Only the
    weights that the layers need are kept. Raises UserError, beginning with ``name``, for layers that there are not,
    and for networks that torch.fx can't follow.
    """
    aliases = aliases or {}
    kind = type(whole).__name__
    keep_values(whole)
    try:
        in_training, known = get_graph_node_names(whole.eval(), suppress_diff_warning=True)
    except Exception as error:  # torch.fx raises whatever comes of code that it can't follow
        raise UserError(f"{name} model: torch.fx can't trace {kind}, so that its layers have no names.") from error
    nodes = []
    for layer in layers:
        wanted = aliases.get(layer, layer)
        below = [node for node in known if node == wanted or node.startswith(f"{wanted}.")]
        if not below:
            close = close_names(layer, {*aliases, *_with_prefixes(known)})
            raise UserError(f"{name} layers: {kind} has no {layer!r}.{close or f' It has {_shortened(known)}.'}")
        nodes.append(below[-1])
    # the graph of training isn't used: of it the input is kept, which needs no weights
    both: Any = create_feature_extractor(
        whole, train_return_nodes=in_training[:1], eval_return_nodes=sorted({*nodes}), suppress_diff_warning=True
    )
    for node in both.eval_graph.nodes:
        if node.kwargs.get("inplace"):  # of functions, such as relu(x, inplace=True)
            node.update_kwarg("inplace", False)
    return fx.GraphModule(both, both.eval_graph), nodes


def keep_values(net: nn.Module) -> None:
    """Let no module write over the value before it, which may be wanted."""
    module: Any
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False


def _with_prefixes(names: Sequence[str]) -> set[str]:
    return {".".join(parts[: i + 1]) for name in names for parts in [name.split(".")] for i in range(len(parts))}


def _shortened(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} others" if len(names) > most else "")
