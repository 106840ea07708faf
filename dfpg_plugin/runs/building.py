"""Build the data sets and loaders of trainings and tests. Say in one line why a component can't be built."""

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

# errors that components raise for arguments, files and states that they do not accept; NotImplementedError, which
# BasicSR's unfinished parts raise, is a RuntimeError
REFUSALS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError),
)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error that a component of any package raises into a UserError of one line, which begins with ``what``.

    ``what``: what failed, such as "SRModel can't be built with these options".
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except REFUSALS as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or "no reason given"
        raise UserError(f"{what}: {where_raised(error)}: {type(error).__name__}: {reason}.") from error


def build_loaders(opt: Options, phase: str) -> list[DataLoader]:
    """Build a loader for every data set of a phase, ``val`` or ``test``.

    Raises UserError if a data set can't be built, or if a metric needs a ground truth that a data set does not have.
    """
    loaders = []
    for key, options in opt["datasets"].items():
        if key.split("_")[0] == phase:
            # BasicSR loads these sets without workers, and torch refuses persistent workers then
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
    """Let a loader draw its workers' seed from a generator of its own, and not from the numbers that networks draw.

    A loader draws a seed at the beginning of an epoch. A resumed run begins its epoch once more than an unbroken run.
    """
    loader.generator = torch.Generator().manual_seed(0)


def validate(opt: Options, model: BaseModel, loaders: list[DataLoader], current_iter: int, tb_logger: object) -> None:
    """Validate on every data set of ``loaders``, by the model's own method."""
    for loader in loaders:
        model.validation(loader, current_iter, tb_logger, opt["val"]["save_img"])
