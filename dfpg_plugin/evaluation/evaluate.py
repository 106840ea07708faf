"""What ``basicsr test`` runs: plan an evaluation, measure its test sets in several processes, summarise them.

Every image's values are written as they are measured. So an evaluation that was stopped goes on where it was, and
memory does not grow with the number of images.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger, set_random_seed
from torch.multiprocessing import get_context
from torch.utils.data import DataLoader
from tqdm import tqdm

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.image_sources import RESTORED
from dfpg_plugin.evaluation.manifest import describe, goes_on, now
from dfpg_plugin.evaluation.planning import Plan, plan_chunks, plan_evaluation
from dfpg_plugin.evaluation.records import MANIFEST, append_chunk, keep_whole_chunks, set_file
from dfpg_plugin.evaluation.restoring import why_not_single_images
from dfpg_plugin.evaluation.set_metrics import read_set_metrics
from dfpg_plugin.evaluation.summary import summarise
from dfpg_plugin.evaluation.worker import MeasuredChunks
from dfpg_plugin.files import read_json, whole_file
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

MAX_GPU_WORKERS = 4  # of each GPU, whose memory holds the networks of each worker


def evaluate(options: RunOptions, images: str = RESTORED, workers: int | None = None) -> None:
    """Measure every ``test`` and ``val`` set of the options, into ``results/<name>``.

    ``images``: what is measured, :data:`RESTORED` by the network of the options, the sets' own :data:`BLURRED` or
    :data:`SHARP` faces, or a folder of restored ones. ``workers``: processes besides this one; by default one for each
    CPU. An evaluation of the same options that was stopped goes on. Raises UserError.
    """
    opt = options.plain
    set_random_seed(opt["manual_seed"] + options.rank)
    stop_group()  # as in BasicSR, the first process tests alone; the others do not wait for it
    if options.rank != 0:
        return
    with run_log() as open_log:
        warn_of_idle_keys(opt, options.file)
        loaders = build_loaders(opt, "test") + build_loaders(opt, "val")
        set_metrics = read_set_metrics(opt["val"].get("set_metrics") or {}, opt["val"].get("metrics") or {})
        try_metrics(opt)
        plan = plan_evaluation(opt, images, [loader.dataset for loader in loaders], set_metrics)
        restoring = plan.restoring
        if restoring is not None and (why := why_not_single_images(restoring.model, plan.sets[0].dataset)):
            reason = f"{opt['model_type']} measures in its own way (it restores no single image: {why})"
            if plan.set_metrics:
                raise UserError(f"val:set_metrics: {reason}. Remove them.")
            _validate_in_its_own_way(options, open_log, restoring.model, loaders, reason)
            return
        workers = _default_workers(opt) if workers is None else workers
        manifest = describe(options, plan, workers)
        with locked(options.folder):
            measure_sets(options, open_log, plan, manifest, workers)
            summarise(options.folder, plan)


def measure_sets(
    options: RunOptions, open_log: Callable[[Path], None], plan: Plan, manifest: dict, workers: int
) -> None:
    """Measure what is left of an evaluation, in at most ``workers`` processes besides this one, and write it down."""
    folder, val = options.folder, options.sections.val or Val()
    earlier = read_json(folder / MANIFEST) if (folder / MANIFEST).exists() else {"finished": "never"}
    continued = goes_on(earlier, manifest)
    if continued:
        manifest["started"] = earlier["started"]
    prepare_output(options, open_log, new=not continued)
    done = [keep_whole_chunks(set_file(folder, set_plan.name)) for set_plan in plan.sets]
    _write_manifest(folder, manifest)
    chunks = plan_chunks(plan.sets, done, val.batch_size)
    measure_chunks(MeasuredChunks(options.plain, plan.sets, plan.set_metrics, chunks), folder, workers)
    _write_manifest(folder, {**manifest, "finished": now()})


def measure_chunks(chunks: MeasuredChunks, folder: Path, workers: int) -> None:
    """Measure chunks in at most ``workers`` processes besides this one, and append their records to the sets' files."""
    workers = min(workers, len(chunks))  # the start of one takes seconds
    # spawn: forked workers hang in OpenMP, and those of a fork server outlive a killed parent
    context = get_context("spawn") if workers else None
    loader = DataLoader(
        chunks, batch_size=None, num_workers=workers, multiprocessing_context=context,
        worker_init_fn=partial(_start_worker, gpus=_gpus(chunks.opt), plugins=chunks.opt.get("plugins") or ()),
    )  # fmt: skip
    with tqdm(total=sum(len(chunk.indices) for chunk in chunks.chunks), unit="image") as progress:
        for chunk, records in loader:
            append_chunk(set_file(folder, chunks.sets[chunk.set_number].name), chunk.number, records)
            progress.update(len(records))


def _validate_in_its_own_way(
    options: RunOptions, open_log: Callable[[Path], None], model: BaseModel, loaders: list[DataLoader], reason: str
) -> None:
    """Let a model that restores no single image, for example one of videos, measure and log by its own method."""
    opt = options.plain
    prepare_output(options, open_log, new=True)
    get_root_logger().warning(f"{reason}, which no report can read.")
    with explained(f"{opt['model_type']} can't validate these sets"):
        validate(opt, model, loaders, opt["name"], None)


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
