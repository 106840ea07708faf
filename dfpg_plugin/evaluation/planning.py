"""Plan an evaluation: which images of which test sets are measured, and by which metrics.

Nothing is written. Folders are listed; of a verification's photographs the faces are embedded.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from basicsr.data.single_image_dataset import SingleImageDataset
from torch.utils.data import Dataset

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.deblur_test_dataset import FaceDeblurTestDataset
from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.evaluation.image_sources import (
    BLURRED,
    RESTORED,
    SHARP,
    BlurredFaces,
    FaceSource,
    RestoredFolder,
    RestoringModel,
    SharpFaces,
)
from dfpg_plugin.evaluation.records import set_file
from dfpg_plugin.evaluation.set_metrics import Embedding, Partners, SetOptions, VerificationOptions
from dfpg_plugin.files import name_of_image
from dfpg_plugin.options.reading import Options


@dataclass(frozen=True)
class SetPlan:
    """One test set, and how it is measured."""

    name: str
    dataset: Dataset
    gt_root: str  # the folder of all sharp faces; "" if unknown
    files: tuple[str, ...]  # the blurred and the sharp faces' files, as far as they are known
    source: FaceSource
    partners: Mapping[str, Partners]  # by verification metric


@dataclass(frozen=True)
class Plan:
    """An evaluation: its test sets, its metrics, and the model if one restores the images."""

    images: str  # RESTORED, BLURRED, SHARP, or a folder
    sets: tuple[SetPlan, ...]
    set_metrics: Mapping[str, SetOptions]
    restoring: RestoringModel | None


@dataclass(frozen=True)
class Chunk:
    """Images of one set that are restored and measured together."""

    number: int  # in its set
    set_number: int
    indices: tuple[int, ...]


def plan_evaluation(
    opt: Options, images: str, datasets: Sequence[Dataset], set_metrics: Mapping[str, SetOptions]
) -> Plan:
    """Plan the evaluation of data sets. Raises UserError if sets, metrics and images do not fit together."""
    _check_file_names([dataset.opt["name"] for dataset in datasets])  # type: ignore[attr-defined]
    restoring = RestoringModel(opt) if images == RESTORED else None
    sets = tuple(_plan_set(dataset, images, restoring, set_metrics) for dataset in datasets)
    return Plan(images, sets, set_metrics, restoring)


def plan_chunks(sets: Sequence[SetPlan], done: Sequence[set[int]], batch_size: int) -> list[Chunk]:
    """Return the chunks that are left. ``done`` has the numbers of each set's measured chunks.

    The images of a chunk do not depend on where an evaluation was stopped. So the numbers do not depend on that either.
    """
    left = []
    for set_number, (set_plan, finished) in enumerate(zip(sets, done, strict=True)):
        count = len(set_plan.dataset)  # type: ignore[arg-type]
        for number, first in enumerate(range(0, count, batch_size)):
            if number not in finished:
                indices = range(first, min(first + batch_size, count))
                left.append(Chunk(number, set_number, tuple(indices)))
    return left


def _plan_set(
    dataset: Dataset, images: str, restoring: RestoringModel | None, set_metrics: Mapping[str, SetOptions]
) -> SetPlan:
    name: str = dataset.opt["name"]  # type: ignore[attr-defined]
    lq_paths, gt_paths = _paths(dataset)
    lq_names = _names(lq_paths, dataset.opt)  # type: ignore[attr-defined]
    root = os.path.commonpath([os.path.dirname(path) for path in gt_paths]) if gt_paths else ""
    partners: dict[str, Partners] = {}
    embedded: dict[tuple, Embedding] = {}
    for key, options in set_metrics.items():
        if isinstance(options, VerificationOptions):
            if not gt_paths:
                raise UserError(f"val:set_metrics:{key}: the data set {name} does not tell where its sharp faces lie.")
            gt_names = [os.path.relpath(path, root) for path in gt_paths]
            partners[key] = Partners(options, Path(root), gt_names, lq_names, embedded)
    source = restoring or _source(images, name, lq_names)
    return SetPlan(name, dataset, root, (*lq_paths, *gt_paths), source, partners)


def _names(lq_paths: Sequence[str], options: Mapping) -> list[str]:
    """Return the images' names. Raises UserError for two images of one name: one would take the other's place."""
    paths: dict[str, str] = {}
    for path in lq_paths:
        name = name_of_image(path, options)
        if (first := paths.setdefault(name, path)) != path:
            raise UserError(f"{options['name']}: {first} and {path} would both be the image {name}. Rename one.")
    return list(paths)


def _source(images: str, set_name: str, lq_names: Sequence[str]) -> FaceSource:
    if images == BLURRED:
        return BlurredFaces()
    if images == SHARP:
        return SharpFaces()
    return RestoredFolder(images, set_name, lq_names)


def _check_file_names(names: Sequence[str]) -> None:
    """Raise UserError if two sets' records would share a file."""
    files = [set_file(Path(), name) for name in names]
    for name, file in zip(names, files, strict=True):
        if files.count(file) > 1:
            raise UserError(f"datasets: two sets would be written to {file}. Rename {name}.")


def _paths(dataset: Dataset) -> tuple[list[str], list[str]]:
    """Return the paths of a set's blurred faces, and each path of its sharp faces once. Unknown paths are left out."""
    if isinstance(dataset, FaceDeblurTestDataset):
        paths = [str(gt) for _, gt in dataset.paths if gt is not None]
        return [str(lq) for lq, _ in dataset.paths], list(dict.fromkeys(paths))
    if isinstance(dataset, FaceBlurDataset):
        return [], [dataset.source.where(name) for name in dataset.source.names]
    if isinstance(dataset, SingleImageDataset):
        return list(dataset.paths), []
    pairs = getattr(dataset, "paths", [])
    if not all(isinstance(pair, dict) for pair in pairs):
        return [], []
    return [pair["lq_path"] for pair in pairs], list(dict.fromkeys(pair["gt_path"] for pair in pairs))
