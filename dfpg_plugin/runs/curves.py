"""TensorBoard and wandb, for which BasicSR asks a run's name: none whose name contains "debug" has them there."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from basicsr.utils import MessageLogger, init_tb_logger, init_wandb_logger

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.reading import Options

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def has_curves(opt: Options) -> bool:
    """Tell whether a training writes for TensorBoard; with ``--debug`` none does."""
    return bool(opt["logger"]["use_tb_logger"]) and not opt["debug"]


def open_curves(opt: Options) -> "SummaryWriter | None":
    """Start wandb and TensorBoard where the options ask for them; return TensorBoard's writer or None."""
    if not has_curves(opt):
        return None
    if _wandb_project(opt) is not None:
        try:
            init_wandb_logger(opt)
        except Exception as error:  # of its own kinds: no key, no network
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"logger:wandb: can't be started ({reason}). Log in, or remove it.") from error
    return init_tb_logger(log_dir=str(Path(opt["root_path"]) / "tb_logger" / opt["name"]))


def check_curves(opt: Options) -> None:
    """Raise UserError where TensorBoard or wandb is asked for and can't be used."""
    if _wandb_project(opt) is not None and not opt["logger"]["use_tb_logger"]:
        raise UserError("logger:wandb: is sent what TensorBoard gets. Set use_tb_logger: true, or remove wandb.")
    if not has_curves(opt):
        return
    _check_import("logger:use_tb_logger", "tensorboard", "torch.utils.tensorboard", "SummaryWriter")
    if _wandb_project(opt) is not None:
        _check_import("logger:wandb", "wandb", "wandb", "init")


def _wandb_project(opt: Options) -> object:
    wandb = opt["logger"].get("wandb")
    return wandb.get("project") if isinstance(wandb, dict) else None


def _check_import(key: str, package: str, module: str, name: str) -> None:
    try:
        found = hasattr(importlib.import_module(module), name)  # wandb leaves a folder of its name where it ran
    except ImportError:
        found = False
    if not found:
        raise UserError(f"{key}: {package} is not installed. Run `pip install {package}`, or turn it off.")


def message_logger(opt: Options, first_iter: int, tb_logger: object) -> MessageLogger:
    """Build BasicSR's logger of iterations, which writes for TensorBoard where there is a writer."""
    logger = {**opt["logger"], "use_tb_logger": tb_logger is not None}
    name = opt["name"].replace("debug", "DEBUG")  # it looks for that (utils/logger.py:109) and shows five letters
    return MessageLogger({**opt, "name": name, "logger": logger}, first_iter, tb_logger)
