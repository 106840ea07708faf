"""Extractors of other priors than VGGFace's: torchvision's, facexlib's ArcFace, timm's. They never download."""

import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from basicsr.archs.vgg_arch import NAMES, insert_bn
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torchvision import models

from dfpg_plugin.archs.frozen_extractor import (
    FrozenExtractor,
    checked_indices,
    checked_layers,
    load_needed,
    read_weights,
)
from dfpg_plugin.archs.subnetwork import cut_out, forbid_inplace
from dfpg_plugin.checks import UserError, check_choice, close_names
from dfpg_plugin.seeding import seeded

ARCFACE_URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth"
ARCFACE_DEPTHS, ARCFACE_MODES = (50, 100, 152), ("ir", "ir_se")
# Google's weights expect RGB in [-1,1]; transform_input makes the model undo ImageNet's mean and std
GOOGLES = {"transform_input": True, "init_weights": True}
MODEL_OPTIONS = {"googlenet": GOOGLES, "inception_v3": GOOGLES}


@ARCH_REGISTRY.register()
class TorchvisionFeatureExtractor(FrozenExtractor):
    """Features of a torchvision classification model at any nodes of its graph.

    The constructor's arguments:

    - ``model``: a name of ``torchvision.models.list_models(module=torchvision.models)``.
    - ``layers``: node names of ``torchvision.models.feature_extraction.get_graph_node_names`` in eval mode. A module's
      name, such as ``layer1``, means the module's output. VGGs also take BasicSR's names, such as ``relu1_2``. No later
      layer changes a layer's value: ``conv1_1`` is the value before its ReLU.
    - ``weights``: a file of torchvision's weights, or ``random`` for untrained weights, always the same.
    - ``mean``, ``std``: of RGB in [0,1]. By default those of torchvision's weights for the model. These are ImageNet's
      for most models, and 0.5 for efficientnet_v2_l.
    - ``feature_scale``: one factor per layer, 1 by default.

    Raises UserError for unknown models and layers, for a file that is missing or holds another network, and for layers
    that are no maps (B,C,H,W).
    """

    def __init__(
        self,
        *,
        model: str = "vgg19",
        layers: Sequence[str],
        weights: str,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        feature_scale: Sequence[float] | None = None,
    ) -> None:
        name = type(self).__name__
        layers = checked_layers(name, layers)
        check_choice(f"{name} model", model, models.list_models(module=models))
        published = models.get_model_weights(model).DEFAULT
        state, origin = read_weights(name, f"torchvision {model}", weights, published.url)
        with seeded(0):
            whole = models.get_model(model, weights=None, **MODEL_OPTIONS.get(model, {}))
        net, nodes = cut_out(name, whole, layers, _vgg_nodes(model))
        if state is not None:
            load_needed(name, weights, net, {_current_name(key): value for key, value in state.items()})
        seen = published.transforms()
        super().__init__(
            net,
            layers=layers,
            keys=nodes,
            mean=seen.mean if mean is None else mean,
            std=seen.std if std is None else std,
            feature_scale=feature_scale,
            origin=origin,
        )


def _current_name(key: str) -> str:
    """Return a weight's name in today's torchvision. Its files of DenseNet have ``norm.1`` instead of ``norm1``."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key)


def _vgg_nodes(model: str) -> dict[str, str]:
    """Return the node of each of BasicSR's layer names of a VGG, ``relu1_2: features.3``; empty for other models."""
    names = NAMES.get(model.removesuffix("_bn"), [])
    return {n: f"features.{i}" for i, n in enumerate(insert_bn(names) if model.endswith("_bn") else names)}


@ARCH_REGISTRY.register()
class ArcFaceFeatureExtractor(FrozenExtractor):
    """Features of facexlib's ArcFace, a face recogniser. The layers before the flattening take images of any size.

    The constructor's arguments:

    - ``layers``: nodes of the graph. A module's name means the module's output. IR-SE50 has, with channels and stride:
      ``input_layer.2`` (64, 1), ``body.0`` to ``body.2`` (64, 2), ``body.3`` to ``body.6`` (128, 4), ``body.7`` to
      ``body.20`` (256, 8), ``body.21`` to ``body.23`` (512, 16). Layers after the flattening, from ``output_layer.2``
      on, are refused.
    - ``weights``: facexlib's file ``recognition_arcface_ir_se50.pth``, or ``random``, always the same.
    - ``num_layers``, ``mode``: select another network of facexlib's ``Backbone``: 50, 100 or 152, ``ir`` or ``ir_se``.
    - ``feature_scale``: one factor per layer, 1 by default.

    The network gets RGB in [-1,1]. Raises UserError for unknown layers, and for a file that is missing or holds another
    network.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] = ("input_layer.2", "body.2", "body.6"),
        weights: str,
        num_layers: int = 50,
        mode: str = "ir_se",
        feature_scale: Sequence[float] | None = None,
    ) -> None:
        from facexlib.recognition.arcface_arch import Backbone  # here: it imports much that others don't need

        name = type(self).__name__
        layers = checked_layers(name, layers)
        check_choice(f"{name} num_layers", num_layers, ARCFACE_DEPTHS)
        check_choice(f"{name} mode", mode, ARCFACE_MODES)
        state, origin = read_weights(name, f"facexlib {mode} {num_layers}", weights, ARCFACE_URL)
        with seeded(0):
            whole = Backbone(num_layers=num_layers, drop_ratio=0.6, mode=mode)
        net, nodes = cut_out(name, whole, layers)
        if state is not None:
            load_needed(name, weights, net, state)
        half = (0.5, 0.5, 0.5)
        super().__init__(
            net, layers=layers, keys=nodes, mean=half, std=half, feature_scale=feature_scale, origin=origin
        )


@ARCH_REGISTRY.register()
class TimmFeatureExtractor(FrozenExtractor):
    """Features of a timm model, by timm's ``features_only``. Images are normalised as timm's configuration says.

    The constructor's arguments:

    - ``model``: a name of ``timm.list_models`` or ``timm.list_pretrained``. A tag, as in ``resnet18.a1_in1k``, selects
      the mean and std of the tagged weights. Without a tag, those of timm's first weights are used.
    - ``out_indices``: which of the model's features to return, in any order. 0 is the finest.
    - ``weights``: a file of the whole model in timm's layout, .safetensors or .pth, or ``random``, always the same.
    - ``feature_scale``: one factor per layer, 1 by default.

    Raises UserError if timm is missing, for unknown models and indices, for models without such features, for features
    that are no maps (B,C,H,W), and for a file that is missing or holds another model.
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
            raise UserError(f"{name}: needs the package timm. Install it: pip install timm") from error
        wanted = checked_indices(name, out_indices)
        config = _timm_config(name, timm, model)
        url = f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else "its weights"
        state, origin = read_weights(name, f"timm {model}", weights, url)
        kept = sorted({*wanted})
        with seeded(0):
            net = _timm_features(name, timm, model, kept)
        forbid_inplace(net)
        if state is not None:
            load_needed(name, weights, net, _by_feature_names(net, state))
        super().__init__(
            net,
            layers=[str(i) for i in wanted],
            keys=[kept.index(i) for i in wanted],  # timm returns the features in the network's order
            mean=net.pretrained_cfg["mean"],
            std=net.pretrained_cfg["std"],
            feature_scale=feature_scale,
            origin=origin,
        )


def _timm_config(name: str, timm: ModuleType, model: object) -> Any:  # noqa: ANN401 timm's own, or None
    """Return timm's entry for a model's weights. Raise UserError for unknown names, and for ``hf-hub:``, a download."""
    if not isinstance(model, str) or not timm.is_model(model):
        raise UserError(f"{name} model: timm has no {model!r}.{close_names(str(model), timm.list_models())}")
    try:
        return timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        known = ", ".join(timm.list_pretrained(f"{model.partition('.')[0]}.*")) or "none of that model"
        raise UserError(f"{name} model: timm has no weights {model!r}. It has {known}.") from error


def _timm_features(name: str, timm: ModuleType, model: str, indices: Sequence[int]) -> Any:  # noqa: ANN401 timm's kinds
    try:
        return timm.create_model(model, pretrained=False, features_only=True, out_indices=tuple(indices))
    except Exception as error:  # each of timm's networks raises another kind of error
        count = len(getattr(timm.create_model(model), "feature_info", ()))
        if 0 < count <= indices[-1]:
            raise UserError(
                f"{name} out_indices: {model} has {count} features, 0 to {count - 1}, not {list(indices)}."
            ) from error
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{name} model: timm gives no features of {model} ({reason}). Name another.") from error


def _by_feature_names(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a whole model's weights under their names in timm's feature network.

    Some feature networks put the model under ``model.`` or ``body.``. Some write ``stages.0`` as ``stages_0``.
    """
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    found = {}
    for key in net.state_dict():
        names = [key.removeprefix(prefix).replace(".", "_") for prefix in ("", "model.", "body.")]
        if known := next((n for n in names if n in flat), None):
            found[key] = flat[known]
    return found
