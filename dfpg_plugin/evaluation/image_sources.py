"""Where the images that are measured come from: the network, the test set itself, or a folder of another method's."""

import logging
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
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

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.data.naming import check_stems
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.seeding import seeded

RESTORED, BLURRED, SHARP = "restored", "blurred", "sharp"
MOST_ON_A_CPU = 4  # images in a batch: with more, what is between two layers does not stay in the cache

Image = NDArray[np.uint8]
Sample = dict[str, Tensor | str]


def to_image(tensor: Tensor, options: Mapping) -> Image:
    """Return an RGB tensor (3,H,W) of a data set as the uint8 BGR image (H,W,3) that would be saved.

    It is in [0,1] unless the data set's ``options`` have a ``mean`` and a ``std`` of three numbers each, to which
    BasicSR's normalise.
    """
    normalises = all(isinstance(options.get(key), list) and len(options[key]) == 3 for key in ("mean", "std"))
    for key, undo in (("std", torch.mul), ("mean", torch.add)):
        if normalises:
            tensor = undo(tensor, torch.as_tensor(options[key], dtype=tensor.dtype).view(-1, 1, 1))
    return tensor2img([tensor.clone()])  # clone: it clamps what it is given in place


def restore(model: BaseModel, samples: Sequence[Sample], options: Mapping) -> list[Image]:
    """Return what a model makes of each sample of a data set with these ``options``, in batches of equal sizes.

    A network that draws random numbers, as GFPGAN's does, draws the same ones for the same samples together.
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
    """Return why a model can't be asked for each sample's restored image, as that of a video; None where it can."""
    if _validates_itself(model):
        try:
            restore(model, [dataset[0]], dataset.opt)  # type: ignore[attr-defined]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model of another package may fail in any way on what it is not made for
            return str(error).strip().split("\n")[0] or type(error).__name__
    return None


def _validates_itself(model: BaseModel) -> bool:
    """Tell whether a model's results are not simply what its ``test`` makes, but need its own way to validate."""
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
        self.opt = options  # read by models

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample


@contextmanager
def _saving_into(folder: str, model: BaseModel) -> Iterator[None]:
    """Let a model save what it validates into ``folder``, and neither measure nor log it, one image as it is."""
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


class RestoredFolder:
    """Images that another method, or an earlier run, has restored: found by the blurred file's name.

    A file may have anything after that name and an underscore, as BasicSR's results have.
    """

    def __init__(self, folder: str, set_name: str, names: Sequence[str]) -> None:
        """Look into ``folder/<set name>``, or ``folder`` where that is not there. ``names``: those of the set.

        Raises UserError where there is no image, or two of one name.
        """
        root = check_folder("--images", folder)
        self.root = root / set_name if (root / set_name).is_dir() else root
        found = list_images(self.root)
        files = [file for file in found if "/" not in file]
        if len(files) < len(found):
            get_root_logger().warning(f"--images: {len(found) - len(files)} in folders below {self.root} are not used")
        check_stems(files, "could both be the image of one name")
        self.files = {Path(file).stem: file for file in files}
        self.stems = sorted(self.files)
        self.names = sorted(names)

    def read(self, name: str) -> Image:
        """Return the image of a blurred file's name. Raises UserError, saying what is wrong, where there is none."""
        if name in self.files:
            return read_image(self.root / self.files[name])
        prefix = f"{name}_"
        longer = _starting(self.names, prefix)
        found = [
            stem
            for stem in _starting(self.stems, prefix)
            if not any(stem == other or stem.startswith(f"{other}_") for other in longer)
        ]
        if len(found) != 1:
            raise UserError("missing" if not found else f"several files: {', '.join(found)}")
        return read_image(self.root / self.files[found[0]])


def _starting(names: Sequence[str], prefix: str) -> list[str]:
    """Return those of sorted names that start with ``prefix``."""
    first = bisect_left(names, prefix)
    return list(takewhile(lambda name: name.startswith(prefix), islice(names, first, None)))
