"""Curves for TensorBoard and wandb. BasicSR writes none for a run whose name contains "debug"; this module does."""

from pathlib import Path
from typing import TYPE_CHECKING

from basicsr.utils import MessageLogger, init_tb_logger, init_wandb_logger

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.curves import has_curves, wandb_project
from dfpg_plugin.options.reading import Options

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_curves(opt: Options) -> "SummaryWriter | None":
    """Start wandb and TensorBoard if the options ask for them. Return TensorBoard's writer, or None.

    The writer writes to ``tb_logger/<name>``. Raises UserError if wandb can't be started.
    """
    if not has_curves(opt):
        return None
    if wandb_project(opt) is not None:
        try:
            init_wandb_logger(opt)
        except Exception as error:  # wandb has its own kinds of error: no key, no connection
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"logger:wandb: can't be started ({reason}). Log in, or remove it.") from error
    return init_tb_logger(log_dir=str(Path(opt["root_path"]) / "tb_logger" / opt["name"]))


def message_logger(opt: Options, first_iter: int, tb_logger: object) -> MessageLogger:
    """Build BasicSR's logger of iterations. It writes to ``tb_logger`` unless that is None."""
    logger = {**opt["logger"], "use_tb_logger": tb_logger is not None}
    # a name with "debug" would have no curves (utils/logger.py:110); the log shows the name's first five letters
    name = opt["name"].replace("debug", "DEBUG")
    return MessageLogger({**opt, "name": name, "logger": logger}, first_iter, tb_logger)
