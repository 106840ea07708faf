"""Measure the chunks of a test set: what every process of an evaluation does."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch.utils.data import Dataset

from dfpg_plugin.data.naming import parse_blurred_name
from dfpg_plugin.evaluation.image_sources import Batch
from dfpg_plugin.evaluation.planning import Chunk, SetPlan
from dfpg_plugin.evaluation.records import PairDistance, Record
from dfpg_plugin.evaluation.restoring import Image
from dfpg_plugin.evaluation.set_metrics import SetOptions, VerificationOptions
from dfpg_plugin.metrics.batches import measure
from dfpg_plugin.metrics.recognisers import load_recogniser
from dfpg_plugin.models.validation import write_png
from dfpg_plugin.options.reading import Options


class MeasuredChunks(Dataset):
    """The chunks of an evaluation that are left. Reading a chunk measures its images."""

    def __init__(
        self, opt: Options, sets: Sequence[SetPlan], set_metrics: Mapping[str, SetOptions], chunks: Sequence[Chunk]
    ) -> None:
        super().__init__()
        self.opt = opt
        self.sets = sets
        self.metrics: dict[str, dict] = opt["val"].get("metrics") or {}
        self.set_metrics = set_metrics
        self.chunks = chunks

    def __len__(self) -> int:
        """Return the number of chunks that are left."""
        return len(self.chunks)

    def __getitem__(self, position: int) -> tuple[Chunk, list[Record]]:
        """Measure a chunk. Raises UserError, naming the file, if an image of the test set can't be read."""
        chunk = self.chunks[position]
        set_plan = self.sets[chunk.set_number]
        batch = Batch.read(set_plan.dataset, chunk.indices)
        images = [_of_right_size(*pair) for pair in zip(set_plan.source.images(batch), batch.sharp, strict=True)]
        values = iter(self._values(images, batch.sharp))
        records = []
        for record, image in zip(_unmeasured(set_plan, chunk, batch), images, strict=True):
            if isinstance(image, str):
                records.append(replace(record, problem=image))
                continue
            detections, pairs = self._faces(set_plan, record, image)
            picture = self._save(set_plan, record.name, image)
            records.append(replace(record, values={**next(values), **detections}, pairs=pairs, picture=picture))
        return chunk, records

    def _values(self, images: Sequence[Image | str], sharp: Sequence[Image | None]) -> list[dict[str, float | None]]:
        """Return every metric's value for each image. Text in an image's place is left out."""
        good = [(image, gt) for image, gt in zip(images, sharp, strict=True) if not isinstance(image, str)]
        restored = [image for image, _ in good]
        gts = [gt for _, gt in good if gt is not None]
        has_gt = len(gts) == len(good)
        columns = {key: measure(metric, restored, gts if has_gt else None) for key, metric in self.metrics.items()}
        return [{key: column[i] for key, column in columns.items()} for i in range(len(good))]

    def _faces(
        self, set_plan: SetPlan, record: Record, image: Image
    ) -> tuple[dict[str, float | None], dict[str, list[PairDistance]]]:
        """Return whether a face is found, and its distances to the photographs, for every set metric."""
        values: dict[str, float | None] = {}
        pairs: dict[str, list[PairDistance]] = {}
        seen: dict[tuple, tuple] = {}
        verifies = any(isinstance(options, VerificationOptions) for options in self.set_metrics.values())
        for key, options in self.set_metrics.items():
            which = (options.recogniser, options.weights)
            if which not in seen:
                recogniser = load_recogniser(*which)
                faces = recogniser.find(image)
                is_needed = verifies and len(faces) == 1
                seen[which] = (faces, recogniser.embed(image, faces[0]) if is_needed else None)
            faces, embedding = seen[which]
            if isinstance(options, VerificationOptions):
                pairs[key] = set_plan.partners[key].distances(record.name, record.gt, embedding)
            else:
                values[key] = float(bool(faces))
        return values, pairs

    def _save(self, set_plan: SetPlan, name: str, image: Image) -> str | None:
        """Save under the name that BasicSR gives, if ``val.save_img`` asks for it; return the path."""
        if not self.opt["val"]["save_img"]:
            return None
        suffix = self.opt["val"]["suffix"] or self.opt["name"]
        path = Path(self.opt["path"]["visualization"], set_plan.name, f"{name}_{suffix}.png")
        write_png(path, image)
        return str(path.relative_to(self.opt["path"]["results_root"]))


def _unmeasured(set_plan: SetPlan, chunk: Chunk, batch: Batch) -> list[Record]:
    """Return the records of a chunk's images, without values."""
    records = []
    for i, sample in enumerate(batch.samples):
        parsed = parse_blurred_name(batch.names[i])
        gt_path = str(sample.get("gt_path", ""))
        record = Record(
            index=chunk.indices[i],
            name=batch.names[i],
            gt=_below(gt_path, set_plan.gt_root),
            size=None if parsed is None else parsed.size,
            pixels=_digest(batch.blurred[i], batch.sharp[i]),
            lq_path=str(sample["lq_path"]),
            gt_path=gt_path,
        )
        records.append(record)
    return records


def _of_right_size(image: Image | str, gt: Image | None) -> Image | str:
    """Return the image; or text, if the image has another size than its sharp face."""
    if isinstance(image, str) or gt is None or image.shape == gt.shape:
        return image
    return f"{image.shape[1]}x{image.shape[0]} px instead of {gt.shape[1]}x{gt.shape[0]} px"


def _below(path: str, root: str) -> str:
    if path and root:
        return os.path.relpath(path, root)
    return Path(path).name if os.path.isabs(path) else path  # a key of an LMDB is as unique as it stands


def _digest(*images: Image | None) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for image in images:
        if image is not None:
            digest.update(image.tobytes())
    return digest.hexdigest()
