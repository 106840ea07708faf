"""Find out which networks estimate a prior, and give networks the prior's channels and strides."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature

import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from dfpg_plugin.checks import UserError, check_feature_maps
from dfpg_plugin.seeding import keeping_random_numbers

GENERATOR, RESTORED = "generator", "restored"  # `train:estimated_prior`: network_g's, or the restored face's features
TRIAL_SIZE = 128  # px, the sides of the image that shows an extractor's channels and strides
SIZE_KEYS = ("prior_channels", "prior_strides")


def sized_to_prior(opt: Mapping, networks: Sequence[str] = ("network_g", "network_d")) -> dict:
    """Return a copy of ``opt`` in which networks have ``prior_channels`` and ``prior_strides``.

    A network of ``networks`` gets these values if it takes them and ``opt`` does not give them. The values are those of
    ``network_prior``, which is built to measure them. This package's extractors are built without their weight files.
    A generator is left alone if the training does not compare its estimates. ``opt`` and the random numbers stay as
    they are. Raises UserError if ``network_prior`` can't be built.
    """
    sized = dict(opt)
    if opt.get("network_prior") is None:
        return sized
    compared = [key for key in _compared_networks(opt) if key in networks]
    missing = {key: [name for name in SIZE_KEYS if _lacks(opt[key], name)] for key in compared}
    if not any(missing.values()):
        return sized
    sizes = dict(zip(SIZE_KEYS, channels_and_strides(_untrained(opt["network_prior"])), strict=True))
    for key, names in missing.items():
        sized[key] = {**opt[key], **{name: sizes[name] for name in names}}
    return sized


def offers_priors(net_g: nn.Module) -> bool:
    """Tell whether a generator has ``forward(x, return_priors=True)``."""
    return "return_priors" in signature(net_g.forward).parameters


def estimates_priors(net_g: nn.Module) -> bool:
    """Tell whether a generator will return priors. A DFPGNet without a prior stream has None as its ``prior``."""
    return offers_priors(net_g) and getattr(net_g, "prior", ()) is not None


@torch.no_grad()
def channels_and_strides(extractor: nn.Module) -> tuple[list[int], list[int]]:
    """Return the channels and the strides of an extractor's features, such as ([64, 128, 256], [1, 2, 4]).

    The extractor is put into eval mode and tried on a black image. Raises UserError unless the features are maps.
    """
    features = extractor.eval()(torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE))
    check_feature_maps(type(extractor).__name__, features)
    return [f.shape[1] for f in features], [round(TRIAL_SIZE / f.shape[-1]) for f in features]


def _compared_networks(opt: Mapping) -> list[str]:
    """Return the keys of the networks that the options may compare with the prior: D, and G if its estimates count.

    G's estimates count without a section ``train``, or if ``train`` has a loss on them.
    """
    train = opt.get("train")
    has_loss = train is None or any(train.get(key) is not None for key in ("prior_opt", "gan_opt"))
    source = (train or {}).get("estimated_prior") or GENERATOR
    networks = ["network_g", "network_d"] if has_loss and source == GENERATOR else ["network_d"]
    return [key for key in networks if isinstance(opt.get(key), Mapping)]


def _component(options: Mapping) -> Callable | None:
    try:
        return ARCH_REGISTRY.get(options.get("type"))
    except KeyError:  # an unknown type is reported where the network is built
        return None


def _parameters(options: Mapping) -> Mapping[str, Parameter]:
    component = _component(options)
    return {} if component is None else signature(component).parameters


def _lacks(options: Mapping, name: str) -> bool:
    return name in _parameters(options) and options.get(name) is None


def is_ours(component: object) -> bool:
    """Tell whether a class or a network belongs to this package."""
    return getattr(component, "__module__", "").partition(".")[0] == __name__.partition(".")[0]


def _untrained(options: Mapping) -> nn.Module:
    if is_ours(_component(options)) and "weights" in _parameters(options):
        options = {**options, "weights": "random"}
    try:
        with keeping_random_numbers():
            return build_network(dict(options))
    except (ArithmeticError, AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"network_prior: {options.get('type')} can't be built: {error}.") from error
