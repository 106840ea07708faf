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
    """Build an optimizer of ``torch.optim``, fused where torch has it so and the options do not say otherwise.

    Raises UserError for names that torch does not have.
    """
    kind = _from_torch("optimizer", torch.optim, name)
    # of SGD with momentum, a first step that is left out leaves behind memory that was never written
    can_be = "fused" in signature(kind).parameters and not options.get("foreach") and not options.get("momentum")
    return kind(params, lr=lr, **{**({"fused": True} if can_be else {}), **options})


def scheduler_class(name: str | None) -> type:
    """Return a class of ``torch.optim.lr_scheduler``. Raises UserError for others, and for one that needs a metric."""
    return _from_torch("scheduler", torch.optim.lr_scheduler, name)


def _from_torch(what: str, module: ModuleType, name: str | None) -> type:
    bases = (Optimizer, LRScheduler)
    known = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, bases) and v not in bases]
    if name not in known or name == NEEDS_A_METRIC:
        raise UserError(f"train: {what} type {name!r} is not in {module.__name__}.{close_names(str(name), known)}")
    return getattr(module, str(name))
