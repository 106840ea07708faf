"""Where the images that are measured come from: the network, the test set itself, or a folder of another method's."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import tensor2img
from numpy.typing import NDArray
from torch import Tensor

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.data.naming import check_stems

RESTORED, BLURRED, SHARP = "restored", "blurred", "sharp"
MOST_ON_A_CPU = 4  # images in a batch: with more, what is between two layers does not stay in the cache

Image = NDArray[np.uint8]
Sample = dict[str, Tensor | str]


def to_image(tensor: Tensor) -> Image:
    """Return an RGB tensor (3,H,W) in [0,1] as the uint8 BGR image (H,W,3) that would be saved."""
    return tensor2img([tensor.clone()])  # clone: it clamps what it is given in place


def restore(model: BaseModel, samples: Sequence[Sample]) -> list[Image]:
    """Return what a model makes of each sample, in batches of equal sizes."""
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
            restored.update((i, to_image(image)) for i, image in zip(places, batch, strict=True))
    return [restored[i] for i in range(len(samples))]


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
        files = [file for file in list_images(self.root) if "/" not in file]
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
