"""The loop of ``basicsr train``: BasicSR's builders, loaders and loggers, without the defects of BasicSR's own loop.

The loop makes exactly ``total_iter`` iterations. An epoch is all whole batches of the data set. Everything is built
before any file of an earlier run is touched. The last validation has the number of the last iteration. A resumed run
continues with the next batch and the next random numbers of the earlier run.
"""

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.utils import AvgTimer, get_root_logger, set_random_seed
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError, check_border
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.options.completing import RunOptions
from dfpg_plugin.options.keys import warn_of_idle_keys
from dfpg_plugin.options.schema import NonFinite
from dfpg_plugin.runs.building import build_loaders, explained, keep_out_of_the_random_stream, validate
from dfpg_plugin.runs.checkpoints import LATEST, save_checkpoint
from dfpg_plugin.runs.curves import message_logger, open_curves
from dfpg_plugin.runs.distribution import stop_group, telling_lost_processes
from dfpg_plugin.runs.metric_trials import try_metrics
from dfpg_plugin.runs.output import lock_run, prepare_output, run_log
from dfpg_plugin.runs.randomness import restore_random_state
from dfpg_plugin.seeding import keeping_random_numbers
from dfpg_plugin.training.guards import Guard
from dfpg_plugin.training.resume import load_resume_state, resume, set_aside_later
from dfpg_plugin.training.signals import Requests, StoppedBySignalError, WorkerSignals, listening, worker_signals
from dfpg_plugin.training.stream import EpochSampler, SeededDataset
from dfpg_plugin.training.summary import summarise


@dataclass(frozen=True)
class Run:
    """The parts of a training, built from its options."""

    options: RunOptions
    model: BaseModel
    sampler: EpochSampler
    loader: DataLoader
    val_loaders: list[DataLoader]

    def validate(self, current_iter: int, tb_logger: object) -> None:
        """Validate on every validation set."""
        validate(self.options.plain, self.model, self.val_loaders, current_iter, tb_logger)


def train(options: RunOptions, dry_run: bool = False) -> None:
    """Train as the options say, up to ``total_iter``.

    ``dry_run``: build everything and train one step, and write no file and no folder. Raises UserError,
    FloatingPointError, StoppedBySignalError after a signal, and LostProcessError if another process has ended.
    """
    with run_log() as open_log, worker_signals() as signals:
        warn_of_idle_keys(options.plain, options.file)
        options, state = load_resume_state(options)
        set_random_seed(options.plain["manual_seed"] + options.rank)
        run = build(options, state, signals)
        torch.backends.cudnn.benchmark = True  # after the build: a search for the build's trial images takes seconds
        if dry_run:
            try_step(run)
            return
        with lock_run(options), telling_lost_processes(), listening() as requests:
            prepare_output(options, open_log, new=state is None)
            tb_logger = open_curves(options.plain)
            if state is not None:
                set_aside_later(options, run.model, state["iter"])
                restore_random_state(state.get("random"), options.rank, options.world_size)
            try:
                iterate(run, 0 if state is None else state["iter"], requests, tb_logger)
            finally:
                if tb_logger:
                    tb_logger.close()


def build(options: RunOptions, state: dict | None, signals: WorkerSignals) -> Run:
    """Build the data sets and the model, try the metrics, and load ``state``, if any. Raises UserError."""
    opt = options.plain
    sampler, loader = build_train_loader(options, signals)
    val_loaders = build_loaders(opt, "val")
    try_metrics(opt)
    with explained(f"{opt['model_type']} can't be built with these options"):
        model = build_model(opt)
    if state is not None:
        with explained(f"{opt['path']['resume_state']} does not fit these options"):
            resume(model, state)
    if options.sections.val is not None:
        try_validation(model, val_loaders)
    return Run(options, model, sampler, loader, val_loaders)


def try_validation(model: BaseModel, loaders: Sequence[DataLoader]) -> None:
    """Restore the first image of each validation set. Errors of the first validation thus show before the training.

    A model of another package may validate in its own way. For such a model, only the image's size is checked.
    Raises UserError.
    """
    metrics = (model.opt["val"].get("metrics") or {}).values()
    for loader in loaders:
        with keeping_random_numbers(model.device):
            data = next(iter(loader))
            image = data.get("gt")
            if isinstance(model, MendedModel):
                model.feed_data(data)
                model.test()
                image = model.output
        if isinstance(image, torch.Tensor):
            for metric in metrics:
                check_border(metric, *image.shape[-2:])


def try_step(run: Run) -> None:
    """Train one step, and log its time and its losses."""
    model, logger = run.model, get_root_logger()
    run.sampler.set_position(0, 0)
    data = next(iter(batches(run)))
    started = time.time()
    model.update_learning_rate(1, warmup_iter=run.options.train.warmup_iter)
    model.feed_data(data)
    Guard(NonFinite()).step(model, data, 1, settle=True)
    losses = ", ".join(f"{name}: {value:.4e}" for name, value in model.get_current_log().items())
    logger.info(f"Dry run: the options, the files and one step of {time.time() - started:.1f} s are in order. {losses}")


def iterate(run: Run, current_iter: int, requests: Requests, tb_logger: object) -> None:
    """Train from ``current_iter`` to ``total_iter``, and log, validate and save meanwhile. Then save and summarise.

    Raises StoppedBySignalError if a signal has asked for it. The iteration is then finished, and a checkpoint is saved.
    """
    logger, model, train = get_root_logger(), run.model, run.options.train
    often, val = run.options.sections.logger, run.options.sections.val
    per_epoch, val_freq = len(run.loader), None if val is None else val.val_freq
    guard = Guard(train.non_finite)
    messages = message_logger(run.options.plain, current_iter + 1, tb_logger)
    started = time.time()
    logger.info(f"Start training at iteration {current_iter} of {train.total_iter}, {per_epoch} an epoch.")
    while current_iter < train.total_iter:
        epoch, done = divmod(current_iter, per_epoch)
        run.sampler.set_position(epoch, done * run.loader.batch_size)  # type: ignore[operator]
        data_timer, iter_timer = AvgTimer(), AvgTimer()
        for data in batches(run):
            data_timer.record()
            current_iter += 1
            is_logged = current_iter % often.print_freq == 0
            model.update_learning_rate(current_iter, warmup_iter=train.warmup_iter)
            model.feed_data(data)
            trained = guard.step(model, data, current_iter, settle=is_logged)
            iter_timer.record()
            if trained and is_logged:
                times = {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                rates = {"epoch": epoch, "iter": current_iter, "lrs": model.get_current_learning_rate()}
                messages({**rates, **times, **model.get_current_log()})
            requests.tell()
            if val_freq and current_iter % val_freq == 0:
                run.validate(current_iter, tb_logger)
            requests.agree()
            requests.tell()
            if current_iter % often.save_checkpoint_freq == 0 or requests.save or requests.stop:
                guard.settle(model, current_iter)
                logger.info(f"Saving the networks and the training state of iteration {current_iter}.")
                save_checkpoint(model, epoch, current_iter, often.keep_checkpoints)
                requests.save = 0
            if requests.stop:
                raise StoppedBySignalError(requests.stop, current_iter)
            if current_iter >= train.total_iter:
                break
            data_timer.start()
            iter_timer.start()
    guard.settle(model, current_iter)
    logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - started))}")
    save_checkpoint(model, LATEST, LATEST)
    if val_freq and current_iter % val_freq != 0:
        run.validate(current_iter, tb_logger)
    stop_group()  # before the summary: the other processes need not wait for it
    if val_freq and run.options.rank == 0 and isinstance(model, MendedModel):
        summarise(model, run.val_loaders, run.options)


def batches(run: Run) -> Iterator[dict]:
    """Yield the remaining batches of the sampler's epoch. ``prefetch_mode: cuda``: copy each batch to the GPU ahead."""
    if run.options.sections.datasets["train"].prefetch_mode != "cuda":
        yield from run.loader
        return
    prefetcher = CUDAPrefetcher(run.loader, run.options.plain)
    while (batch := prefetcher.next()) is not None:
        for value in batch.values():
            # the batch is copied in another CUDA stream, which may reuse the memory only after this stream's work
            if isinstance(value, torch.Tensor):
                value.record_stream(torch.cuda.current_stream())
        yield batch


def build_train_loader(options: RunOptions, signals: WorkerSignals) -> tuple[EpochSampler, DataLoader]:
    """Return the sampler and the loader of the training set. Raises UserError if the set is less than one batch."""
    opt, section = options.plain, options.sections.datasets["train"]
    dataset_opt = opt["datasets"]["train"]
    with explained(f"datasets:train: {section.type} can't be built with these options"):
        dataset = build_dataset(dataset_opt)
    sampler = EpochSampler(dataset, options.world_size, options.rank, section.dataset_enlarge_ratio)
    seeded = SeededDataset(dataset, opt["manual_seed"])
    with explained("datasets:train: torch's DataLoader can't be built with these options"):
        loader = build_dataloader(seeded, dataset_opt, opt["num_gpu"], opt["dist"], sampler, opt["manual_seed"])
    loader.worker_init_fn = signals.start_worker
    keep_out_of_the_random_stream(loader)
    sampler.batch_size = loader.batch_size  # several GPUs in one process share a batch of batch_size_per_gpu for each
    if len(loader) == 0:
        raise UserError(
            f"datasets:train: {sampler.num_samples} images an epoch are less than one batch of {loader.batch_size}. "
            "Add images, raise dataset_enlarge_ratio, or lower batch_size_per_gpu."
        )
    return sampler, loader
