"""What ``basicsr test`` runs: restore and measure every test set of the options, image by image, in several processes.

Every image's values are written as they are measured, so that an evaluation that was stopped goes on where it was, and
memory does not grow with the number of images.
"""

import json
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import torch
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.utils import get_root_logger, set_random_seed
from torch.multiprocessing import get_context
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.deblur_test_dataset import FaceDeblurTestDataset
from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.evaluation.image_sources import BLURRED, RESTORED, SHARP, RestoredFolder, why_not_single_images
from dfpg_plugin.evaluation.manifest import describe, goes_on, now
from dfpg_plugin.evaluation.records import MANIFEST, append_chunk, keep_whole_chunks, read_chunks, set_file
from dfpg_plugin.evaluation.set_metrics import Partners, SetOptions, VerificationOptions, read_set_metrics
from dfpg_plugin.evaluation.worker import Chunk, MeasuredChunks, SetPlan
from dfpg_plugin.files import read_json, whole_file
from dfpg_plugin.metrics.verification import verify
from dfpg_plugin.options.completing import RunOptions
from dfpg_plugin.options.keys import warn_of_idle_keys
from dfpg_plugin.options.plugins import load_plugins
from dfpg_plugin.options.reading import Options
from dfpg_plugin.options.schema import Val
from dfpg_plugin.runs.building import build_loaders, explained, validate
from dfpg_plugin.runs.distribution import stop_group
from dfpg_plugin.runs.lock import locked
from dfpg_plugin.runs.metric_trials import try_metrics
from dfpg_plugin.runs.output import prepare_output, run_log

MAX_GPU_WORKERS = 4  # of each GPU, whose memory holds the networks of each


def evaluate(options: RunOptions, images: str = RESTORED, workers: int | None = None) -> None:
    """Measure every ``test`` and ``val`` set of the options, into ``results/<name>``.

    ``images``: what is measured, :data:`RESTORED` by the network of the options, the sets' own :data:`BLURRED` or
    :data:`SHARP` faces, or a folder of restored ones. ``workers``: processes besides this one; by default one for each
    CPU. An evaluation of the same options that was stopped goes on. Raises UserError.
    """
    opt, val = options.plain, options.sections.val or Val()
    set_random_seed(opt["manual_seed"] + options.rank)
    stop_group()  # as in BasicSR, the first process tests alone; the others do not wait for it
    if options.rank != 0:
        return
    with run_log() as open_log:
        warn_of_idle_keys(opt, options.file)
        loaders = build_loaders(opt, "test") + build_loaders(opt, "val")
        set_metrics = read_set_metrics(opt["val"].get("set_metrics") or {}, opt["val"].get("metrics") or {})
        try_metrics(opt)
        plans = [plan_set(loader.dataset, images, set_metrics) for loader in loaders]
        check_file_names([plan.name for plan in plans])
        chunks = MeasuredChunks(opt, images, plans, set_metrics)
        with explained(f"{opt['model_type']} can't be built with these options"):
            model = chunks.model if images == RESTORED else None
        if model is not None and (reason := why_not_single_images(model, plans[0].dataset)):
            own_way = f"{opt['model_type']} measures in its own way (it restores no single image: {reason})"
            if set_metrics:
                raise UserError(f"val:set_metrics: {own_way}. Remove them.")
            prepare_output(options, open_log, new=True)
            get_root_logger().warning(f"{own_way}, which no report can read.")
            with explained(f"{opt['model_type']} can't validate these sets"):
                validate(opt, model, loaders, opt["name"], None)
            return
        workers = _default_workers(opt) if workers is None else workers
        manifest = describe(options, images, model, plans, set_metrics, workers)
        folder = options.folder
        with locked(folder):
            earlier = read_json(folder / MANIFEST) if (folder / MANIFEST).exists() else {"finished": "never"}
            continued = goes_on(earlier, manifest)
            prepare_output(options, open_log, new=not continued)
            chunks.chunks = plan_chunks(plans, folder, val.batch_size)
            _write_manifest(folder, {**manifest, "started": earlier["started"]} if continued else manifest)
            measure_chunks(chunks, folder, workers)
            _write_manifest(folder, {**read_json(folder / MANIFEST), "finished": now()})
            log_means(folder, plans, set_metrics)


def plan_set(dataset: Dataset, images: str, set_metrics: Mapping[str, SetOptions]) -> SetPlan:
    """Prepare the measuring of one test set: its ground truths, photographs for verification, folder of images."""
    name: str = dataset.opt["name"]  # type: ignore[attr-defined]
    lq_paths, gt_paths = _paths(dataset)
    lq_names = [Path(path).stem for path in lq_paths]
    root = os.path.commonpath([os.path.dirname(path) for path in gt_paths]) if gt_paths else ""
    partners = {}
    for key, options in set_metrics.items():
        if isinstance(options, VerificationOptions):
            if not gt_paths:
                raise UserError(f"val:set_metrics:{key}: the data set {name} does not tell where its sharp faces lie.")
            gt_names = [os.path.relpath(path, root) for path in gt_paths]
            partners[key] = Partners(options, Path(root), gt_names, lq_names)
    is_folder = images not in (RESTORED, BLURRED, SHARP)
    folder = RestoredFolder(images, name, lq_names) if is_folder else None
    return SetPlan(name, dataset, root, (*lq_paths, *gt_paths), partners, folder)


def check_file_names(names: Sequence[str]) -> None:
    """Raise UserError where two sets' records would share a file."""
    files = [set_file(Path(), name) for name in names]
    for name, file in zip(names, files, strict=True):
        if files.count(file) > 1:
            raise UserError(f"datasets: two sets would be written to {file}. Rename {name}.")


def plan_chunks(plans: Sequence[SetPlan], folder: Path, batch_size: int) -> list[Chunk]:
    """Return the chunks that are not measured yet; what a kill left behind of others is removed from the files.

    The images of a chunk do not depend on where an evaluation was stopped, so that its numbers do not either.
    """
    left = []
    for number, plan in enumerate(plans):
        done = keep_whole_chunks(set_file(folder, plan.name))
        count = len(plan.dataset)  # type: ignore[arg-type]
        for i, first in enumerate(range(0, count, batch_size)):
            if i not in done:
                left.append(Chunk(i, number, tuple(range(first, min(first + batch_size, count)))))
    return left


def measure_chunks(chunks: MeasuredChunks, folder: Path, workers: int) -> None:
    """Measure what is left, in at most ``workers`` processes besides this one, and write it down."""
    workers = min(workers, len(chunks.chunks))  # the start of one takes seconds
    # spawn: forked workers hang in OpenMP, and those of a fork server outlive a killed parent
    context = get_context("spawn") if workers else None
    loader = DataLoader(
        chunks, batch_size=None, num_workers=workers, multiprocessing_context=context,
        worker_init_fn=partial(_start_worker, gpus=_gpus(chunks.opt), plugins=chunks.opt.get("plugins") or ()),
    )  # fmt: skip
    with tqdm(total=sum(len(chunk.indices) for chunk in chunks.chunks), unit="image") as progress:
        for chunk, records in loader:
            append_chunk(set_file(folder, chunks.plans[chunk.plan].name), chunk.number, records)
            progress.update(len(records))


def log_means(folder: Path, plans: Sequence[SetPlan], set_metrics: Mapping[str, SetOptions]) -> None:
    """Log every metric's mean, as BasicSR does, and how many images have no value; and each verification."""
    for plan in plans:
        sums: defaultdict[str, float] = defaultdict(float)
        counts: Counter[str] = Counter()
        without: Counter[str] = Counter()
        problems = []
        pairs: defaultdict[str, list[tuple[int, float, bool]]] = defaultdict(list)
        for _, records in read_chunks(set_file(folder, plan.name)):
            for record in records:
                for key, value in record.values.items():
                    sums[key] += 0.0 if value is None else value
                    (without if value is None else counts)[key] += 1
                for key, rows in record.pairs.items():
                    pairs[key] += [(place, d, same) for _, d, same, place in rows if d is not None]
                if record.problem is not None:
                    problems.append(f"{record.name}: {record.problem}")
        lines = [f"Validation {plan.name}"]
        for key in sums:
            mean = sums[key] / counts[key] if counts[key] else math.nan
            lines.append(f"\t # {key}: {mean:.4f}" + (f"\t({without[key]} images have none)" if without[key] else ""))
        lines += [f"\t # {key}: {_verified(rows, set_metrics[key])}" for key, rows in pairs.items()]
        if problems:
            lines.append(f"\t not measured: {len(problems)}, the first {problems[0]}")
        get_root_logger().info("\n".join(lines))


def _verified(pairs: list[tuple[int, float, bool]], options: SetOptions) -> str:
    if not isinstance(options, VerificationOptions):
        raise TypeError("Only a verification has pairs.")
    in_order = sorted(pairs, key=lambda pair: pair[0])
    distances, same = [d for _, d, _ in in_order], [is_same for _, _, is_same in in_order]
    try:
        result = verify(distances, same, legacy_order=options.legacy_order, seed=options.seed)
    except UserError as error:
        return str(error)
    return f"{result.accuracy:.4f} ({len(pairs)} pairs)"


def _paths(dataset: Dataset) -> tuple[list[str], list[str]]:
    """Return the paths of a set's blurred faces and the distinct ones of its sharp ones; nothing where unknown."""
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


def _default_workers(opt: Options) -> int:
    count = len(os.sched_getaffinity(0))
    return min(count, MAX_GPU_WORKERS * _gpus(opt)) if opt["num_gpu"] else count


def _gpus(opt: Options) -> int:
    return min(opt["num_gpu"], torch.cuda.device_count())


def _start_worker(worker: int, gpus: int, plugins: Sequence[str] = ()) -> None:
    load_plugins(plugins)
    if gpus:
        torch.cuda.set_device(worker % gpus)
    get_root_logger(log_level=logging.WARNING)  # the first process has said everything
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _write_manifest(folder: Path, manifest: Mapping) -> None:
    with whole_file(folder / MANIFEST) as file:
        file.write(f"{json.dumps(manifest, indent=1)}\n".encode())
