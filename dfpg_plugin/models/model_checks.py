"""Check that the parts of a DFPGModel fit together, and that a resumed run has the same prior as before."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.checks import UserError, where_raised
from dfpg_plugin.models.priors import GENERATOR, RESTORED, estimates_priors, offers_priors

MEANS = ("PriorLoss", "PriorPerceptualLoss")  # losses that are means over the batch, whatever their `reduction`
TRIAL_MULTIPLE = 64  # px; most networks that halve their images take multiples of 64
# entries of a prior's record that stay the same when a run is resumed; the file's name may change
PRIOR_IDENTITY = ("weights_sha256", "input", "layers", "feature_scale")


def check_parts(opt: Mapping, net_g: nn.Module, uses_priors: bool) -> None:
    """Raise UserError for a loss without the network that it needs, and for a discriminator that nothing trains.

    ``uses_priors``: whether ``prior_opt`` or ``gan_opt`` compares an estimated prior. Warn of a generator that
    estimates a prior which no loss compares.
    """
    train, has_d = opt["train"], opt.get("network_d") is not None
    needs_prior = uses_priors or train.get("feature_opt") is not None
    if needs_prior and opt.get("network_prior") is None:
        raise UserError("network_prior: missing, but train.prior_opt, gan_opt or feature_opt needs its features.")
    if (train.get("gan_opt") is not None) != has_d:
        raise UserError("network_d and train.gan_opt: one is there without the other. Add the other, or remove both.")
    if has_d and train.get("optim_d") is None:
        raise UserError("train.optim_d: missing, network_d needs an optimizer.")
    source, name = train.get("estimated_prior"), type(net_g).__name__
    if uses_priors and source != RESTORED and not offers_priors(net_g):
        raise UserError(
            f"network_g: {name} estimates no prior, but train.prior_opt or gan_opt needs one. Use DFPGNet or "
            f"PriorGuidedNet, or train:estimated_prior: {RESTORED}, the features of the restored face."
        )
    if uses_priors and source == RESTORED and estimates_priors(net_g):
        get_root_logger().warning(
            f"train:estimated_prior: {RESTORED}: {name} estimates a prior, but no loss compares that prior with "
            f"network_prior's. The paper's choice is {GENERATOR}."
        )


def check_range(opt: Mapping) -> None:
    """Raise UserError for a data set that normalises its images. Images in a DFPGModel are in [0,1]."""
    for key, options in opt["datasets"].items():
        for name, neutral in (("mean", 0), ("std", 1)):
            values = options.get(name)
            if values is not None and any(value != neutral for value in values):
                raise UserError(
                    f"datasets:{key}:{name}: images are in [0,1] in a DFPGModel. Remove mean and std. If a network "
                    "needs another range, wrap it: type: AdaptedNet, value_range: that range, network: its options."
                )


def check_accumulation(train: Mapping, parts: int) -> None:
    """Raise UserError for a loss that is no mean over the batch, if the batch is computed in several ``parts``."""
    losses = {key: options for key, options in train.items() if key.endswith("_opt") and isinstance(options, Mapping)}
    for key, options in losses.items():
        is_mean = options.get("reduction", "mean") == "mean" and options.get("criterion") != "fro"
        if parts > 1 and not is_mean and options.get("type") not in MEANS:
            raise UserError(
                f"train:accumulate: {key} is no mean over the batch. Use reduction: mean, or remove accumulate."
            )


@contextmanager
def explaining(net_g: nn.Module, images: Tensor) -> Iterator[None]:
    """Turn an error of a network into a UserError that says where the error was raised.

    For two causes the UserError also says what helps: the order of a tensor in memory, and the size of the images. The
    size is the cause if the network takes ``images`` padded to multiples of 64 px. Out-of-memory errors, UserErrors and
    torch's advice on ``find_unused_parameters`` pass as they are.
    """
    try:
        yield
    except Exception as error:  # a network of another package may raise anything
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        if isinstance(error, UserError | torch.OutOfMemoryError) or "find_unused_parameters" in str(error):
            raise
        name = type(net_g).__name__
        if "view size is not compatible" in reason:
            raise UserError(
                f"network_g: {name} relies on the order of its tensors in memory ({reason}). Wrap it: type: "
                "AdaptedNet, contiguous: true, network: its options."
            ) from error
        height, width = images.shape[-2:]
        text = f"network_g: {name} fails on images of {height}x{width} px"
        if (sides := _sides_that_work(net_g, images)) is not None:
            raise UserError(
                f"{text} ({type(error).__name__}: {reason}), not on {sides[0]}x{sides[1]} px. If it takes only "
                "multiples of a size, wrap it: type: AdaptedNet, multiple: that size, network: its options."
            ) from error
        raise UserError(
            f"{text}: {where_raised(error)}: {type(error).__name__}: {reason}. --traceback shows the calls before it."
        ) from error


@torch.no_grad()
def _sides_that_work(net_g: nn.Module, images: Tensor) -> tuple[int, int] | None:
    """Return the images' sides rounded up to multiples of 64 px, if that changes them and the network takes them."""
    height, width = images.shape[-2:]
    down, right = -height % TRIAL_MULTIPLE, -width % TRIAL_MULTIPLE
    if down == right == 0:
        return None
    try:
        net_g(F.pad(images[:1], (0, right, 0, down), mode="replicate"))
    except Exception:  # any error says that the size is not the only cause
        return None
    return height + down, width + right


def check_restored(restored: object, shape: Sequence[int], net_g: nn.Module) -> None:
    """Raise UserError unless ``restored`` is a tensor of this ``shape``, (B,3,H,W)."""
    name = type(net_g).__name__
    if not isinstance(restored, Tensor):
        what = f"{len(restored)} outputs" if isinstance(restored, Sequence) else type(restored).__name__
        raise UserError(f"network_g: {name} returns {what}, not an image. AdaptedNet's output selects one.")
    if restored.shape != tuple(shape):
        raise UserError(
            f"network_g: {name} returns images of {tuple(restored.shape[1:])}, expected {tuple(shape[1:])}. "
            "Set its options, or AdaptedNet's upscale or multiple."
        )


def check_shapes(estimated: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    """Raise UserError if estimates have other shapes than the prior. The error names the options that set shapes."""
    estimated_shapes = [tuple(p.shape[1:]) for p in estimated]
    target_shapes = [tuple(p.shape[1:]) for p in target]
    if estimated and estimated_shapes != target_shapes:
        raise UserError(
            f"network_g: its prior estimates have shapes {estimated_shapes}, network_prior's features {target_shapes}. "
            "Set network_g's prior_channels and prior_strides, or network_prior's layers; and gt_size to a multiple of "
            "all strides."
        )


def check_same_prior(then: Mapping | None, now: Mapping) -> None:
    """Raise UserError if a run was started with another prior than it has now.

    ``then``: the prior's record in the training state. None, as in states of BasicSR and of older versions, passes.
    """
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
