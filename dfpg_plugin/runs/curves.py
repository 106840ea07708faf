"""TensorBoard and wandb, for which BasicSR asks a run's name: none whose name contains "debug" has them there."""

from pathlib import Path
from typing import TYPE_CHECKING

from basicsr.utils import MessageLogger, init_tb_logger, init_wandb_logger

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.curves import has_curves, wandb_project
from dfpg_plugin.options.reading import Options

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_curves(opt: Options) -> "SummaryWriter | None":
    """Start wandb and TensorBoard where the options ask for them; return TensorBoard's writer or None."""
    if not has_curves(opt):
        return None
    if wandb_project(opt) is not None:
        try:
            init_wandb_logger(opt)
        except Exception as error:  # of its own kinds: no key, no network
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"logger:wandb: can't be started ({reason}). Log in, or remove it.") from error
    return init_tb_logger(log_dir=str(Path(opt["root_path"]) / "tb_logger" / opt["name"]))


def message_logger(opt: Options, first_iter: int, tb_logger: object) -> MessageLogger:
    """Build BasicSR's logger of iterations, which writes for TensorBoard where there is a writer."""
    logger = {**opt["logger"], "use_tb_logger": tb_logger is not None}
    name = opt["name"].replace("debug", "DEBUG")  # it looks for that (utils/logger.py:110) and shows five letters
    return MessageLogger({**opt, "name": name, "logger": logger}, first_iter, tb_logger)
