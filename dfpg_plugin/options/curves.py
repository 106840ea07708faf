"""Whether a training writes curves for TensorBoard and wandb, and whether it can."""

import importlib

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.reading import Options


def has_curves(opt: Options) -> bool:
    """Tell whether a training writes curves for TensorBoard. With ``--debug`` no training does."""
    return bool(opt["logger"]["use_tb_logger"]) and not opt["debug"]


def check_curves(opt: Options) -> None:
    """Raise UserError if the options ask for TensorBoard or wandb, and it can't be used."""
    if wandb_project(opt) is not None and not opt["logger"]["use_tb_logger"]:
        raise UserError("logger:wandb: wandb gets the curves of TensorBoard. Set use_tb_logger: true, or remove wandb.")
    if not has_curves(opt):
        return
    _check_import("logger:use_tb_logger", "tensorboard", "torch.utils.tensorboard", "SummaryWriter")
    if wandb_project(opt) is not None:
        _check_import("logger:wandb", "wandb", "wandb", "init")


def wandb_project(opt: Options) -> object:
    """Return the name of the project on wandb, or None if nothing is sent to wandb."""
    wandb = opt["logger"].get("wandb")
    return wandb.get("project") if isinstance(wandb, dict) else None


def _check_import(key: str, package: str, module: str, name: str) -> None:
    try:
        # the name tells the package from the folder `wandb` that wandb leaves where it ran: Python imports that, too
        found = hasattr(importlib.import_module(module), name)
    except ImportError:
        found = False
    if not found:
        raise UserError(f"{key}: {package} is not installed. Run `pip install {package}`, or turn it off.")
