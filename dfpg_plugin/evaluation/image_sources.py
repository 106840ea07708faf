"""Where the images that are measured come from: the network, the test set itself, or a folder of another method's."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import Protocol

from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import nn
from torch.utils.data import Dataset

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.data.naming import check_stems
from dfpg_plugin.evaluation.restoring import Image, Sample, restore, to_image
from dfpg_plugin.files import name_of_image
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.options.reading import Options
from dfpg_plugin.runs.building import explained
from dfpg_plugin.speed.acceleration import channels_last
from dfpg_plugin.speed.winograd import with_winograd

RESTORED, BLURRED, SHARP = "restored", "blurred", "sharp"  # values of ``--images``; any other value is a folder


@dataclass(frozen=True)
class Batch:
    """Samples of one test set that are measured together."""

    samples: list[Sample]
    options: Mapping  # of the data set
    names: list[str]  # of the blurred faces
    blurred: list[Image]
    sharp: list[Image | None]  # None: the data set has no sharp face

    @classmethod
    def read(cls, dataset: Dataset, indices: Sequence[int]) -> "Batch":
        """Read samples of a data set. Raises UserError, naming the file, if an image can't be read."""
        samples = [dataset[index] for index in indices]
        options = dataset.opt  # type: ignore[attr-defined]
        return cls(
            samples,
            options,
            [name_of_image(sample["lq_path"], options) for sample in samples],
            [to_image(sample["lq"], options) for sample in samples],
            [to_image(sample["gt"], options) if "gt" in sample else None for sample in samples],
        )


class FaceSource(Protocol):
    """Makes, or finds, the images of a test set that are measured."""

    @property
    def files(self) -> Sequence[str]:
        """Return the paths of the files that are read besides the test set's own."""

    def images(self, batch: Batch) -> list[Image | str]:
        """Return the image of each sample. Text in an image's place says why there is no image."""


class BlurredFaces:
    """The test set's own blurred faces."""

    files: Sequence[str] = ()

    def images(self, batch: Batch) -> list[Image | str]:
        """Return the blurred faces."""
        return list(batch.blurred)


class SharpFaces:
    """The test set's own sharp faces."""

    files: Sequence[str] = ()

    def images(self, batch: Batch) -> list[Image | str]:
        """Return the sharp faces."""
        return ["no sharp image" if image is None else image for image in batch.sharp]


class RestoringModel:
    """The model of the options, with its weights. Each process of an evaluation builds a model of its own."""

    files: Sequence[str] = ()

    def __init__(self, opt: Options) -> None:
        self.opt = opt

    def __getstate__(self) -> dict:
        """Travel to another process without the model."""
        return {"opt": self.opt}

    @cached_property
    def model(self) -> BaseModel:
        """The model, of one process and at most one GPU. Raises UserError if the options don't allow to build it."""
        opt = {**self.opt, "num_gpu": min(1, self.opt["num_gpu"]), "dist": False}
        with explained(f"{opt['model_type']} can't be built with these options"):
            model = build_model(opt)
        if model.device.type == "cpu":
            for name, network in list(vars(model).items()):
                if isinstance(network, nn.Module):
                    vars(model)[name] = self._faster_on_a_cpu(network, is_ours=isinstance(model, MendedModel))
        return model

    def _faster_on_a_cpu(self, network: nn.Module, is_ours: bool) -> nn.Module:
        if self.opt["val"].get("winograd"):
            network = with_winograd(network)
        # with the channels innermost, convolutions take a third less time; networks of others may rely on the order
        return channels_last(network) if is_ours else network

    def images(self, batch: Batch) -> list[Image | str]:
        """Return the restored faces."""
        return list(restore(self.model, batch.samples, batch.options))


class RestoredFolder:
    """A folder of images that another method, or an earlier run, has restored.

    An image is found by the name of the blurred face's file. After the name, the image's file may have an underscore
    and any text, as BasicSR's results have: ``12_blur3_mymethod.png`` is the image of ``12_blur3.png``.
    """

    def __init__(self, folder: str, set_name: str, names: Sequence[str]) -> None:
        """Look into ``folder/<set name>``, or into ``folder`` itself if it has no such folder.

        ``names``: those of the set's blurred faces. Raises UserError if there is no image, or two of one name.
        """
        root = check_folder("--images", folder)
        self.root = root / set_name if (root / set_name).is_dir() else root
        found = list_images(self.root)
        names_of_files = [file for file in found if "/" not in file]
        if deeper := len(found) - len(names_of_files):
            get_root_logger().warning(f"--images: {deeper} in folders below {self.root} are not used")
        check_stems(names_of_files, "could both be the image of one name")
        self.by_stem = {Path(file).stem: self.root / file for file in names_of_files}
        self.files = [str(file) for file in self.by_stem.values()]
        self.stems = sorted(self.by_stem)
        self.names = sorted(names)

    def images(self, batch: Batch) -> list[Image | str]:
        """Return the folder's image of each sample."""
        return [self._image_or_reason(name) for name in batch.names]

    def _image_or_reason(self, name: str) -> Image | str:
        try:
            return self.read(name)
        except UserError as error:
            return str(error)

    def read(self, name: str) -> Image:
        """Return the image of a blurred file's stem. Raises UserError, saying why, if there is not exactly one."""
        if name in self.by_stem:
            return read_image(self.by_stem[name])
        prefix = f"{name}_"
        longer = _starting(self.names, prefix)
        found = [
            stem
            for stem in _starting(self.stems, prefix)
            if not any(stem == other or stem.startswith(f"{other}_") for other in longer)
        ]
        if len(found) != 1:
            raise UserError("missing" if not found else f"several files: {', '.join(found)}")
        return read_image(self.by_stem[found[0]])


def _starting(names: Sequence[str], prefix: str) -> list[str]:
    """Return those of sorted names that start with ``prefix``."""
    first = bisect_left(names, prefix)
    return list(takewhile(lambda name: name.startswith(prefix), islice(names, first, None)))
