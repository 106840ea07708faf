"""Build what trainings and tests share, by BasicSR's builders, and say in one line what keeps a component from it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError, where_raised
from dfpg_plugin.options.reading import Options
from dfpg_plugin.runs.metric_trials import check_metrics

REFUSALS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NotImplementedError, OSError),
    *(RuntimeError, TypeError, ValueError),
)  # what components raise for arguments, files and states that they do not accept


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what a component of any package raises while it is built into a UserError of one line."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except REFUSALS as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or "no reason given"
        raise UserError(f"{what}: {where_raised(error)}: {type(error).__name__}: {reason}.") from error


def build_loaders(opt: Options, phase: str) -> list[DataLoader]:
    """Build the loaders of every data set of a phase, ``val`` or ``test``.

    Raises UserError where a metric needs a ground truth that a set does not have.
    """
    loaders = []
    for key, options in sorted(opt["datasets"].items()):
        if key.split("_")[0] == phase:
            # BasicSR's loader has no workers here and refuses persistent ones
            options = {**options, "persistent_workers": False}
            with explained(f"datasets:{key}: {options['type']} can't be built with these options"):
                dataset = build_dataset(options)
            check_metrics(opt, dataset, options["name"])
            get_root_logger().info(f"Number of {phase} images in {options['name']}: {len(dataset)}")
            loader = build_dataloader(dataset, options, opt["num_gpu"], opt["dist"], None, opt["manual_seed"])
            keep_out_of_the_random_stream(loader)
            loaders.append(loader)
    return loaders


def keep_out_of_the_random_stream(loader: DataLoader) -> None:
    """Let a loader draw its workers' seeds elsewhere than from the stream of numbers that networks draw from.

    It draws them whenever an epoch is begun, which a resumed run does once more.
    """
    loader.generator = torch.Generator().manual_seed(0)


def validate(opt: Options, model: BaseModel, loaders: list[DataLoader], current_iter: int, tb_logger: object) -> None:
    """Validate on every validation set, by the model's own method."""
    for loader in loaders:
        model.validation(loader, current_iter, tb_logger, opt["val"]["save_img"])
