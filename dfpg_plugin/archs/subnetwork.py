"""Keep only the part of a network that computes some of its layers, by torch.fx. Every layer keeps its value."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from dfpg_plugin.checks import UserError, close_names


def cut_out(
    name: str, whole: nn.Module, layers: Sequence[str], aliases: Mapping[str, str] | None = None
) -> tuple[nn.Module, list[str]]:
    """Return a network that maps images to a dict of the layers' values, and the layers' keys in this dict.

    ``layers``: nodes of the graph in eval mode, as in torchvision's ``get_graph_node_names``. A module's name, such as
    ``layer1``, means its last node, the module's output. ``aliases``: other names for nodes. Only the weights that the
    layers need are kept. Raises UserError, beginning with ``name``, for unknown layers, and for networks that torch.fx
    can't trace.
    """
    aliases = aliases or {}
    kind = type(whole).__name__
    forbid_inplace(whole)
    try:
        in_training, known = get_graph_node_names(whole.eval(), suppress_diff_warning=True)
    except Exception as error:  # torch.fx raises anything for code that it can't trace
        raise UserError(f"{name} model: torch.fx can't trace {kind}, so that its layers have no names.") from error
    nodes = []
    for layer in layers:
        wanted = aliases.get(layer, layer)
        below = [node for node in known if node == wanted or node.startswith(f"{wanted}.")]
        if not below:
            close = close_names(layer, {*aliases, *_with_prefixes(known)})
            raise UserError(f"{name} layers: {kind} has no {layer!r}.{close or f' It has {_shortened(known)}.'}")
        nodes.append(below[-1])
    # the graph of training is not used: it keeps the input only, which needs no weights
    both: Any = create_feature_extractor(
        whole, train_return_nodes=in_training[:1], eval_return_nodes=sorted({*nodes}), suppress_diff_warning=True
    )
    for node in both.eval_graph.nodes:
        if node.kwargs.get("inplace"):  # a function, such as relu(x, inplace=True)
            node.update_kwarg("inplace", False)
    return fx.GraphModule(both, both.eval_graph), nodes


def forbid_inplace(net: nn.Module) -> None:
    """Make every module write its result to new memory, because the value before the module may be wanted."""
    module: Any
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False


def _with_prefixes(names: Sequence[str]) -> set[str]:
    """Return the names and the modules that they lie in: ``a.b.c`` gives ``a``, ``a.b`` and ``a.b.c``."""
    return {name.rsplit(".", ends)[0] for name in names for ends in range(name.count(".") + 1)}


def _shortened(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} others" if len(names) > most else "")
