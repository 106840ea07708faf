"""Optimizers and schedulers of torch, by name."""

from collections.abc import Iterable, Mapping
from inspect import signature
from types import ModuleType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dfpg_plugin.checks import UserError, close_names

NEEDS_A_METRIC = "ReduceLROnPlateau"


def build_optimizer(name: str, params: Iterable, lr: float, options: Mapping[str, Any]) -> Optimizer:
    """Build the optimizer ``name`` of ``torch.optim``, fused if torch can and ``options`` do not say otherwise.

    Raises UserError for a name that ``torch.optim`` does not have.
    """
    kind = _from_torch("optimizer", torch.optim, name)
    # momentum: if the first step of a fused SGD is skipped, its momentum is memory that was never written
    can_be_fused = "fused" in signature(kind).parameters and not options.get("foreach") and not options.get("momentum")
    defaults: dict[str, Any] = {"fused": True} if can_be_fused else {}
    if isinstance(betas := options.get("betas"), list | tuple):  # torch refuses a pair such as [0, 0.99]
        options = {**options, "betas": tuple(map(float, betas))}
    return kind(params, lr=lr, **{**defaults, **options})


def scheduler_class(name: str | None) -> type:
    """Return the class ``name`` of ``torch.optim.lr_scheduler``.

    Raises UserError for another name, and for ReduceLROnPlateau, which needs a metric.
    """
    return _from_torch("scheduler", torch.optim.lr_scheduler, name)


def check_length(scheduler: LRScheduler, total_iter: float | None) -> None:
    """Raise UserError for a schedule, such as OneCycleLR's, that ends before the training. torch would fail there."""
    steps = getattr(scheduler, "total_steps", None)
    if steps is not None and total_iter is not None and steps < total_iter - 1:  # the first iteration makes no step
        raise UserError(
            f"train:scheduler:total_steps: {steps} is below total_iter, {total_iter}. Set it to {total_iter}."
        )


def _from_torch(what: str, module: ModuleType, name: str | None) -> type:
    bases = (Optimizer, LRScheduler)
    known = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, bases) and v not in bases]
    if name not in known or name == NEEDS_A_METRIC:
        raise UserError(f"train: {what} type {name!r} is not in {module.__name__}.{close_names(str(name), known)}")
    return getattr(module, str(name))
