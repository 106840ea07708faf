"""Where a training's estimated prior comes from, and networks that are built to the prior's size."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature

import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.checks import UserError

GENERATOR, RESTORED = "generator", "restored"
ESTIMATES = (GENERATOR, RESTORED)  # `train:estimated_prior`: network_g's own, or the extractor's of the restored image
TRIAL_SIZE = 128  # px
SIZE_KEYS = ("prior_channels", "prior_strides")


def sized_to_prior(opt: Mapping) -> dict:
    """Return ``opt`` with the prior's channels and strides for the networks that take and do not give them.

    They are those of ``network_prior``, which is built without its weights for it. ``opt`` stays as it is.
    """
    sized = dict(opt)
    missing = {key: [name for name in SIZE_KEYS if _lacks(opt[key], name)] for key in _other_networks(opt)}
    if opt.get("network_prior") is None or not any(missing.values()):
        return sized
    sizes = dict(zip(SIZE_KEYS, channels_and_strides(_untrained(opt["network_prior"])), strict=True))
    for key, names in missing.items():
        sized[key] = {**opt[key], **{name: sizes[name] for name in names}}
    return sized


def channels_and_strides(extractor: nn.Module) -> tuple[list[int], list[int]]:
    """Return those of an extractor's features, by a look at a black image. Raises UserError where they are no maps."""
    features = extractor(torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE))
    is_list = isinstance(features, Sequence) and all(isinstance(f, Tensor) and f.dim() == 4 for f in features)
    if not is_list:
        raise UserError(f"network_prior: {type(extractor).__name__} returns no list of feature maps (B,C,H,W).")
    return [f.shape[1] for f in features], [round(TRIAL_SIZE / f.shape[-1]) for f in features]


def _other_networks(opt: Mapping) -> list[str]:
    return [key for key in opt if key.startswith("network_") and key != "network_prior" and opt[key] is not None]


def _parameters(options: Mapping) -> Mapping[str, Parameter]:
    return signature(ARCH_REGISTRY.get(options["type"])).parameters


def _lacks(options: Mapping, name: str) -> bool:
    return name in _parameters(options) and options.get(name) is None


def _untrained(options: Mapping) -> nn.Module:
    weights = {"weights": "random"} if "weights" in _parameters(options) else {}
    return build_network({**options, **weights})
