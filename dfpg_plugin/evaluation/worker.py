"""Restore and measure the chunks of a test set: what every process of an evaluation does."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.utils import imwrite
from torch import nn
from torch.utils.data import Dataset

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.naming import parse_blurred_name
from dfpg_plugin.evaluation.image_sources import (
    BLURRED,
    RESTORED,
    SHARP,
    Image,
    RestoredFolder,
    Sample,
    restore,
    to_image,
)
from dfpg_plugin.evaluation.records import PairDistance, Record
from dfpg_plugin.evaluation.set_metrics import Partners, SetOptions, VerificationOptions
from dfpg_plugin.metrics.batches import measure
from dfpg_plugin.metrics.recognisers import load_recogniser
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.options.reading import Options
from dfpg_plugin.speed.acceleration import channels_last
from dfpg_plugin.speed.winograd import with_winograd


@dataclass(frozen=True)
class SetPlan:
    """One test set, and what of it is measured."""

    name: str
    dataset: Dataset
    gt_root: str  # the folder of all ground truths; empty where the set does not tell
    files: tuple[str, ...]  # blurred and sharp ones, where they are known
    partners: Mapping[str, Partners]  # of each verification metric
    folder: RestoredFolder | None  # of the images, where no network makes them


@dataclass(frozen=True)
class Chunk:
    """Images of one set that are restored and measured together."""

    number: int  # in its set
    plan: int  # number of the set
    indices: tuple[int, ...]


class MeasuredChunks(Dataset):
    """The chunks of an evaluation; reading one restores and measures it. Each process builds its own network."""

    def __init__(
        self, opt: Options, images: str, plans: Sequence[SetPlan], set_metrics: Mapping[str, SetOptions]
    ) -> None:
        super().__init__()
        self.opt = opt
        self.images = images
        self.plans = plans
        self.set_metrics = set_metrics
        self.metrics: dict[str, dict] = opt["val"].get("metrics") or {}
        self.chunks: list[Chunk] = []

    def __getstate__(self) -> dict:
        """Travel to another process without the network."""
        return {key: value for key, value in self.__dict__.items() if key != "model"}

    @cached_property
    def model(self) -> BaseModel:
        """The model of the options with its weights, of one process and at most one GPU."""
        opt = {**self.opt, "num_gpu": min(1, self.opt["num_gpu"]), "dist": False}
        model = build_model(opt)
        for name, network in list(vars(model).items()):
            if isinstance(network, nn.Module) and model.device.type == "cpu":
                if opt["val"].get("winograd"):
                    network = with_winograd(network)
                if isinstance(model, MendedModel):  # networks of others may rely on the order of their features
                    # with the channels innermost, convolutions take a third less time
                    network = channels_last(network)
                vars(model)[name] = network
        return model

    def __len__(self) -> int:
        """Return the number of chunks that are left."""
        return len(self.chunks)

    def __getitem__(self, position: int) -> tuple[Chunk, list[Record]]:
        """Measure a chunk. Raises UserError, naming the file, where an image of the test set can't be read."""
        chunk = self.chunks[position]
        plan = self.plans[chunk.plan]
        samples = [plan.dataset[index] for index in chunk.indices]
        options = plan.dataset.opt  # type: ignore[attr-defined]
        blurred = [to_image(sample["lq"], options) for sample in samples]
        sharp = [to_image(sample["gt"], options) if "gt" in sample else None for sample in samples]
        names = [Path(sample["lq_path"]).stem for sample in samples]
        images = self._images(plan, samples, names, blurred, sharp)
        problems = [self._problem(image, gt) for image, gt in zip(images, sharp, strict=True)]
        good = [i for i, problem in enumerate(problems) if problem is None]
        values = self._values([images[i] for i in good], [sharp[i] for i in good])
        records = []
        for i, sample in enumerate(samples):
            gt = _below(str(sample.get("gt_path", "")), plan.gt_root)
            measured = i in good
            found, pairs = self._faces(plan, names[i], gt, images[i]) if measured else ({}, {})
            parsed = parse_blurred_name(names[i])
            records.append(
                Record(
                    index=chunk.indices[i],
                    name=names[i],
                    gt=gt,
                    size=None if parsed is None else parsed.size,
                    pixels=_digest(blurred[i], sharp[i]),
                    values={**values[good.index(i)], **found} if measured else {},
                    pairs=pairs,
                    problem=problems[i],
                    lq_path=str(sample["lq_path"]),
                    gt_path=str(sample.get("gt_path", "")),
                    picture=self._save(plan, names[i], images[i]) if measured else None,
                )
            )
        return chunk, records

    def _images(
        self,
        plan: SetPlan,
        samples: Sequence[Sample],
        names: Sequence[str],
        blurred: Sequence[Image],
        sharp: Sequence[Image | None],
    ) -> list[Image | str]:
        """Return the images to measure, or what is wrong with them."""
        if self.images == RESTORED:
            return list(restore(self.model, samples, plan.dataset.opt))  # type: ignore[attr-defined]
        if self.images == BLURRED:
            return list(blurred)
        if self.images == SHARP:
            return ["no sharp image" if image is None else image for image in sharp]
        return [_read(plan.folder, name) for name in names]

    @staticmethod
    def _problem(image: Image | str, gt: Image | None) -> str | None:
        if isinstance(image, str):
            return image
        if gt is not None and image.shape != gt.shape:
            return f"{image.shape[1]}x{image.shape[0]} px instead of {gt.shape[1]}x{gt.shape[0]} px"
        return None

    def _values(self, images: Sequence, sharp: Sequence) -> list[dict[str, float | None]]:
        has_gt = all(gt is not None for gt in sharp)
        columns = {key: measure(metric, images, sharp if has_gt else None) for key, metric in self.metrics.items()}
        return [{key: column[i] for key, column in columns.items()} for i in range(len(images))]

    def _faces(
        self, plan: SetPlan, name: str, gt: str, image: Image | str
    ) -> tuple[dict[str, float | None], dict[str, list[PairDistance]]]:
        """Return whether a face is found, and its distances to the photographs, for every set metric."""
        values: dict[str, float | None] = {}
        pairs: dict[str, list[PairDistance]] = {}
        seen: dict[tuple, tuple] = {}
        for key, options in self.set_metrics.items():
            which = (options.recogniser, options.weights)
            recogniser = load_recogniser(*which)
            if which not in seen:
                faces = recogniser.find(image)  # type: ignore[arg-type]
                wanted = len(faces) == 1 and any(isinstance(o, VerificationOptions) for o in self.set_metrics.values())
                seen[which] = (faces, recogniser.embed(image, faces[0]) if wanted else None)  # type: ignore[arg-type]
            faces, embedding = seen[which]
            if not isinstance(options, VerificationOptions):
                values[key] = float(bool(faces))
            else:
                pairs[key] = plan.partners[key].distances(name, gt, embedding)
        return values, pairs

    def _save(self, plan: SetPlan, name: str, image: Image | str) -> str | None:
        """Save under the name that BasicSR gives, where ``val.save_img`` asks for it; return the path."""
        if not self.opt["val"]["save_img"]:
            return None
        suffix = self.opt["val"]["suffix"] or self.opt["name"]
        path = Path(self.opt["path"]["visualization"], plan.name, f"{name}_{suffix}.png")
        try:
            imwrite(image, str(path))
        except OSError as error:
            raise UserError(f"{path}: can't be written. Make room or free it, then run the test again.") from error
        return str(path.relative_to(self.opt["path"]["results_root"]))


def _read(folder: RestoredFolder | None, name: str) -> Image | str:
    try:
        return "missing" if folder is None else folder.read(name)
    except UserError as error:
        return str(error)


def _below(path: str, root: str) -> str:
    return os.path.relpath(path, root) if path and root else Path(path).name


def _digest(*images: Image | None) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for image in images:
        if image is not None:
            digest.update(image.tobytes())
    return digest.hexdigest()
