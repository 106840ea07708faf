"""What a model makes of the samples of a test set, as the images that would be saved."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, tensor2img
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import read_image
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.seeding import seeded

MOST_ON_A_CPU = 4  # images in a batch: with more, the features between two layers do not stay in the cache

Image = NDArray[np.uint8]  # BGR (H,W,3)
Sample = dict[str, Tensor | str]  # of a data set: `lq`, `gt`, and their paths


def to_image(tensor: Tensor, options: Mapping) -> Image:
    """Return an RGB tensor (3,H,W) of a data set as the uint8 BGR image (H,W,3) that would be saved.

    The tensor is in [0,1]. If the data set's ``options`` have a ``mean`` and a ``std`` of three numbers each, BasicSR's
    data sets have normalised the tensor by them. Then the normalisation is undone.
    """
    normalises = all(isinstance(options.get(key), list) and len(options[key]) == 3 for key in ("mean", "std"))
    for key, undo in (("std", torch.mul), ("mean", torch.add)):
        if normalises:
            tensor = undo(tensor, torch.as_tensor(options[key], dtype=tensor.dtype).view(-1, 1, 1))
    return tensor2img([tensor.clone()])  # clone: it clamps what it is given in place


def restore(model: BaseModel, samples: Sequence[Sample], options: Mapping) -> list[Image]:
    """Return what a model makes of each sample of a data set with these ``options``.

    Samples of one size share a batch. A network that draws random numbers, as GFPGAN's does, is seeded first: the same
    samples get the same numbers.
    """
    with seeded(0, model.device):
        if _validates_itself(model):
            return [_restore_by_validation(model, sample, options) for sample in samples]
        return _restore_in_batches(model, samples, options)


def _restore_in_batches(model: BaseModel, samples: Sequence[Sample], options: Mapping) -> list[Image]:
    restored: dict[int, Image] = {}
    most = MOST_ON_A_CPU if model.device.type == "cpu" else len(samples)
    for shape in dict.fromkeys(_shape(sample) for sample in samples):
        of_shape = [i for i, sample in enumerate(samples) if _shape(sample) == shape]
        keys = [key for key in ("lq", "gt") if key in samples[of_shape[0]]]
        for first in range(0, len(of_shape), most):
            places = of_shape[first : first + most]
            model.feed_data({key: torch.stack([samples[i][key] for i in places]) for key in keys})  # type: ignore[misc]
            model.test()
            batch = model.get_current_visuals()["result"]
            restored.update((i, to_image(image, options)) for i, image in zip(places, batch, strict=True))
    return [restored[i] for i in range(len(samples))]


def why_not_single_images(model: BaseModel, dataset: Dataset) -> str | None:
    """Return why a model can't restore one sample alone; None if the model can. A model of videos, for example, can't.

    The first sample of the data set is tried.
    """
    if _validates_itself(model):
        try:
            restore(model, [dataset[0]], dataset.opt)  # type: ignore[attr-defined]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model of another package may fail in any way on what it is not made for
            return str(error).strip().split("\n")[0] or type(error).__name__
    return None


def _validates_itself(model: BaseModel) -> bool:
    """Tell whether a model has its own ``validation``, so that its ``test`` alone does not make its results."""
    kind = type(model)
    if not isinstance(model, SRModel) or kind.validation is not BaseModel.validation:
        return True
    return kind.nondist_validation not in (SRModel.nondist_validation, MendedModel.nondist_validation)


def _restore_by_validation(model: BaseModel, sample: Sample, options: Mapping) -> Image:
    """Return the image that a model saves when it validates a set of one sample."""
    with TemporaryDirectory() as folder, _saving_into(folder, model):
        model.validation(DataLoader(_SetOfOne(sample, options)), model.opt["name"], None, save_img=True)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        if len(files) != 1:
            raise UserError(f"{type(model).__name__} saves {len(files)} images of one sample.")
        return read_image(files[0])


class _SetOfOne(Dataset):
    def __init__(self, sample: Sample, options: Mapping) -> None:
        self.sample = sample
        self.opt = options  # models read the data set's options

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample


@contextmanager
def _saving_into(folder: str, model: BaseModel) -> Iterator[None]:
    """Let a model's validation save its images into ``folder``, without measuring them and without a log line."""
    logger = get_root_logger()
    opt, level = model.opt, logger.level
    path, val = {**opt["path"], "visualization": folder}, {**opt["val"], "metrics": None}
    model.opt = {**opt, "path": path, "val": val}
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        model.opt = opt
        logger.setLevel(level)


def _shape(sample: Sample) -> tuple:
    return tuple((key, value.shape) for key, value in sample.items() if isinstance(value, Tensor))
