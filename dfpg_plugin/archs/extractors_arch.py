"""Other networks as the prior than VGGFace: torchvision's, facexlib's ArcFace, timm's. Nothing is ever downloaded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from basicsr.archs.vgg_arch import NAMES
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from dfpg_plugin.archs.frozen import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RANDOM,
    FrozenExtractor,
    fixed_seed,
    load_kept,
    random_origin,
    read_weights,
)
from dfpg_plugin.checks import UserError, check_choice, close_names

ARCFACE_URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth"
ARCFACE_BLOCKS = 24  # residual units of IR-SE50


@ARCH_REGISTRY.register()
class TorchvisionFeatureExtractor(FrozenExtractor):
    """Features of a torchvision classification model at any nodes of its graph.

    The constructor's arguments:

    - ``model``: a name of ``torchvision.models.list_models``.
    - ``layers``: node names of ``torchvision.models.feature_extraction.get_graph_node_names``, such as ``layer1``; for
      VGGs also BasicSR's, such as ``relu1_2``.
    - ``weights``: a file of torchvision's weights, or ``random`` for untrained ones (always the same).
    - ``mean``, ``std``: of RGB in [0,1], ImageNet's by default.
    - ``feature_scale``: one factor per layer, 1 by default.

    Raises UserError for unknown models and layers, for a file that is missing or of another network, and for layers
    that are no maps (B,C,H,W).
    """

    def __init__(
        self,
        *,
        model: str = "vgg19",
        layers: Sequence[str],
        weights: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        feature_scale: Sequence[float] | None = None,
    ) -> None:
        name = type(self).__name__
        check_choice(f"{name} model", model, [m for m in list_models() if "." not in m and "/" not in m])
        with fixed_seed():
            whole = get_model(model, weights=None)
        names = [f"features.{NAMES[model].index(n)}" if n in NAMES.get(model, ()) else n for n in layers]
        net = _graph(name, whole, names, layers, NAMES.get(model, ()))
        origin = random_origin()
        if weights != RANDOM:
            state, origin = read_weights(name, weights, get_model_weights(model).DEFAULT.url)
            load_kept(name, weights, net, state)
        super().__init__(net, layers=layers, mean=mean, std=std, feature_scale=feature_scale, origin=origin)


@ARCH_REGISTRY.register()
class ArcFaceFeatureExtractor(FrozenExtractor):
    """Features of facexlib's ArcFace (IR-SE50), a face recogniser; its convolutions take images of any size.

    The constructor's arguments:

    - ``layers``: ``input_layer.2`` (64 channels, stride 1), ``body.0`` to ``body.2`` (64, 2), to ``body.6`` (128, 4),
      to ``body.20`` (256, 8), to ``body.23`` (512, 16).
    - ``weights``: facexlib's file ``recognition_arcface_ir_se50.pth``, or ``random`` (always the same).
    - ``feature_scale``: one factor per layer, 1 by default.

    It is fed RGB in [-1,1]. Raises UserError for unknown layers, and for a file that is missing or of another network.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] = ("input_layer.2", "body.2", "body.6"),
        weights: str,
        feature_scale: Sequence[float] | None = None,
    ) -> None:
        from facexlib.recognition.arcface_arch import Backbone

        name = type(self).__name__
        for layer in layers:
            check_choice(f"{name} layers", layer, ["input_layer.2", *(f"body.{i}" for i in range(ARCFACE_BLOCKS))])
        with fixed_seed():
            whole = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
        net = _graph(name, whole, list(layers), layers)
        origin = random_origin()
        if weights != RANDOM:
            state, origin = read_weights(name, weights, ARCFACE_URL)
            load_kept(name, weights, net, state)
        half = (0.5, 0.5, 0.5)
        super().__init__(net, layers=layers, mean=half, std=half, feature_scale=feature_scale, origin=origin)


@ARCH_REGISTRY.register()
class TimmFeatureExtractor(FrozenExtractor):
    """Features of a timm model, by timm's ``features_only``; normalised as timm says of the model.

    The constructor's arguments:

    - ``model``: a name of ``timm.list_models``.
    - ``out_indices``: which of its features to return, from 0, the finest.
    - ``weights``: a file of the whole model in timm's layout, .safetensors or .pth, or ``random`` (always the same).
    - ``feature_scale``: one factor per layer, 1 by default.

    Raises UserError where timm is missing, for unknown models and indices, for models without such features or with
    features that are no maps (B,C,H,W), and for a file that is missing or of another model.
    """

    def __init__(
        self,
        *,
        model: str,
        out_indices: Sequence[int],
        weights: str,
        feature_scale: Sequence[float] | None = None,
    ) -> None:
        name = type(self).__name__
        try:
            import timm
        except ImportError as error:
            raise UserError(f"{name}: needs the package timm. Install it: pip install timm.") from error
        check_choice(f"{name} model", model, timm.list_models())
        origin, pretrained = random_origin(), dict[str, Any]()
        with fixed_seed():
            if weights != RANDOM:
                whole: Any = timm.create_model(model)
                url = f"https://huggingface.co/{whole.pretrained_cfg.get('hf_hub_id') or 'timm'}"
                state, origin = read_weights(name, weights, url)
                load_kept(name, weights, whole, state, optional=_classifier(whole.pretrained_cfg, whole.state_dict()))
                pretrained = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": whole.state_dict()}}
            try:
                net: Any = timm.create_model(model, features_only=True, out_indices=tuple(out_indices), **pretrained)
            except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                raise UserError(
                    f"{name} out_indices: no features {list(out_indices)} of {model} ({reason})."
                ) from error
        _keep_values(net)
        mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        layers = [str(i) for i in out_indices]
        super().__init__(net, layers=layers, mean=mean, std=std, feature_scale=feature_scale, origin=origin)
        with torch.no_grad():
            features = self(torch.zeros(1, 3, *[max(64, *net.feature_info.reduction())] * 2))
        if [f.shape[1] for f in features] != net.feature_info.channels():
            raise UserError(f"{name} model: {model} gives its channels last, which is no feature map (B,C,H,W).")


def _graph(
    name: str, whole: nn.Module, nodes: Sequence[str], layers: Sequence[str], others: Sequence[str] = ()
) -> nn.Module:
    """Return the part of a network that computes some nodes. ``others``: names that layers may have besides."""
    _keep_values(whole.eval())
    try:
        _, known = get_graph_node_names(whole)
    except Exception as error:  # torch.fx raises what comes of code that it can't follow
        raise UserError(
            f"{name} model: torch.fx can't follow {type(whole).__name__}, so that it has no nodes."
        ) from error
    if not layers:
        raise UserError(f"{name} layers: expected names, got none.")
    for node, layer in zip(nodes, layers, strict=True):
        if not any(node == k or k.startswith(f"{node}.") for k in known):
            raise UserError(
                f"{name} layers: {type(whole).__name__} has no {layer!r}.{close_names(layer, [*others, *known])}"
            )
    return create_feature_extractor(whole, list(nodes))


def _keep_values(net: nn.Module) -> None:
    """Let no activation write over the feature before it, which may be wanted."""
    module: Any
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False


def _classifier(config: Mapping, names: Iterable[str]) -> list[str]:
    """Return the names of the classifier's weights, which features do without."""
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    return [name for name in names if name.startswith(tuple(f"{head}." for head in heads))]
