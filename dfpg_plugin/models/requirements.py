"""What the parts of a DFPGModel need of one another, and a resumed run of the one before."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature

from torch import Tensor, nn

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.models.priors import ESTIMATES, GENERATOR, RESTORED

MEANS = ("PriorLoss", "PriorPerceptualLoss")  # over the batch, whatever their reduction
PRIOR_IDENTITY = ("weights_sha256", "input", "layers", "feature_scale")  # of its record; the file's name may change


def check_parts(opt: Mapping, net_g: nn.Module, uses_priors: bool) -> None:
    """Refuse losses without the network that they need, and a discriminator that nothing trains.

    ``uses_priors``: whether a loss needs the generator's estimates.
    """
    train, has_d = opt["train"], opt.get("network_d") is not None
    needs_prior = uses_priors or train.get("feature_opt") is not None
    if needs_prior and opt.get("network_prior") is None:
        raise UserError("network_prior: missing, but train.prior_opt, gan_opt or feature_opt needs its features.")
    if (train.get("gan_opt") is not None) != has_d:
        raise UserError("network_d and train.gan_opt: one is there without the other. Add it, or remove both.")
    if has_d and train.get("optim_d") is None:
        raise UserError("train.optim_d: missing, network_d needs an optimizer.")
    source = train.get("estimated_prior", GENERATOR)
    check_choice("train:estimated_prior", source, ESTIMATES)
    if uses_priors and source == GENERATOR and "return_priors" not in signature(net_g.forward).parameters:
        raise UserError(
            f"network_g: {type(net_g).__name__} estimates no prior, but train.prior_opt or gan_opt needs one. Use "
            f"DFPGNet or PriorGuidedNet, or train:estimated_prior: {RESTORED}, the features of the restored face."
        )


def check_accumulation(train: Mapping, parts: int) -> None:
    """Refuse losses that are no means over the batch where it is computed in parts."""
    losses = {key: options for key, options in train.items() if key.endswith("_opt") and isinstance(options, Mapping)}
    for key, options in losses.items():
        is_mean = options.get("reduction", "mean") == "mean" and options.get("criterion") != "fro"
        if parts > 1 and not is_mean and options.get("type") not in MEANS:
            raise UserError(f"train:accumulate: {key} is no mean over the batch. Use reduction: mean, or no parts.")


@contextmanager
def explaining_layouts(net_g: nn.Module) -> Iterator[None]:
    """Say what helps a network that can't work on images whose channels lie innermost in memory."""
    try:
        yield
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
        raise UserError(
            f"network_g: {type(net_g).__name__} relies on the order of its tensors in memory ({error}) Wrap it: type: "
            "AdaptedNet, contiguous: true, network: its options."
        ) from error


def check_restored(restored: object, gt: Tensor, net_g: nn.Module) -> None:
    """Refuse what is no image of the ground truth's size."""
    name = type(net_g).__name__
    if not isinstance(restored, Tensor):
        what = f"{len(restored)} outputs" if isinstance(restored, Sequence) else type(restored).__name__
        raise UserError(f"network_g: {name} returns {what}, not an image. AdaptedNet's output says which is.")
    if restored.shape != gt.shape:
        raise UserError(
            f"network_g: {name} returns images of {tuple(restored.shape[1:])}, the ground truth is "
            f"{tuple(gt.shape[1:])}. Set its options, or AdaptedNet's upscale or multiple."
        )


def check_shapes(estimated: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    """Refuse estimates that can't be compared with the prior, naming what sets their channels."""
    shapes = [[tuple(p.shape[1:]) for p in features] for features in (estimated, target)]
    if estimated and shapes[0] != shapes[1]:
        raise UserError(
            f"network_g: its prior estimates have shapes {shapes[0]}, network_prior's features {shapes[1]}. "
            "Set network_g's prior_channels and prior_strides, or network_prior's layers; and gt_size to a multiple of "
            "all strides."
        )


def check_same_prior(then: Mapping | None, now: Mapping) -> None:
    """Refuse to go on with another prior; states without its record (BasicSR's, older ones) are taken as they are."""
    if then is None:
        return
    if differing := [key for key in PRIOR_IDENTITY if then.get(key) != now.get(key)]:
        raise UserError(
            f"network_prior: another {', '.join(differing)}. This run was started with {_describe(then)}, "
            f"now {_describe(now)}. Use the same, or start a new run with path:pretrain_network_g."
        )


def _describe(record: Mapping) -> str:
    if not record:
        return "no known prior"
    origin = f"{record.get('file')}, {record.get('channel_order')}, {record.get('input')}"
    details = f"layers {record.get('layers')}, feature_scale {record.get('feature_scale')}"
    return f"weights {str(record.get('weights_sha256'))[:12]}... ({origin}, {details})"
