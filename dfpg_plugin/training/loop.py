"""The loop of ``basicsr train``: BasicSR's builders, loaders and loggers, without what its own loop gets wrong.

Exactly ``total_iter`` iterations; an epoch is the whole batches of the data, however they divide; nothing of an earlier
run is touched before everything is built; the last validation is that of the last iteration; a resumed run goes on
where it was, in the data and in every random number.
"""

import datetime
import time
from collections.abc import Iterator, Sequence

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.utils import AvgTimer, get_root_logger, set_random_seed
from basicsr.utils.dist_util import get_dist_info
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError, check_border
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.options.keys import warn_of_idle_keys
from dfpg_plugin.options.non_finite import NonFiniteOptions
from dfpg_plugin.options.reading import Options
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


def train(opt: Options, option_file: str, dry_run: bool = False) -> None:
    """Train what completed and checked options describe, to the end. Raises UserError and FloatingPointError.

    ``dry_run``: build everything and train one step, and leave no file and no folder.
    """
    opt["rank"], opt["world_size"] = get_dist_info()
    set_random_seed(opt["manual_seed"] + opt["rank"])
    with run_log() as open_log, worker_signals() as signals:
        warn_of_idle_keys(opt, option_file)
        state = load_resume_state(opt)
        sampler, loader = build_train_loader(opt, signals)
        val_loaders = build_loaders(opt, "val")
        try_metrics(opt)
        with explained(f"{opt['model_type']} can't be built with these options"):
            model = build_model(opt)
        if state is not None:
            with explained(f"{opt['path']['resume_state']} does not fit these options"):
                resume(model, state)
        if opt.get("val"):
            try_validation(model, val_loaders)
        torch.backends.cudnn.benchmark = True  # now, for a search of its own for one image takes seconds
        if dry_run:
            try_step(opt, model, sampler, loader)
            return
        with lock_run(opt), telling_lost_processes(), listening() as requests:
            prepare_output(opt, option_file, open_log, new=state is None)
            tb_logger = open_curves(opt)
            if state is not None:
                set_aside_later(opt, state["iter"])
                restore_random_state(state.get("random"), opt["rank"], opt["world_size"])
            try:
                first = 0 if state is None else state["iter"]
                run(opt, model, sampler, loader, val_loaders, tb_logger, first, requests)
            finally:
                if tb_logger:
                    tb_logger.close()


def try_validation(model: BaseModel, loaders: Sequence[DataLoader]) -> None:
    """Restore the first image of each validation set, to say now what would fail at the first validation.

    Models of others may validate in their own ways: of theirs only the size of that image is looked at.
    """
    metrics = (model.opt["val"].get("metrics") or {}).values()
    for loader in loaders:
        with keeping_random_numbers(model.device):
            data = next(iter(loader))
            if isinstance(model, MendedModel):
                model.feed_data(data)
                model.test()
        if isinstance(data.get("gt"), torch.Tensor):
            for metric in metrics:
                check_border(metric, *data["gt"].shape[-2:])


def try_step(opt: Options, model: BaseModel, sampler: EpochSampler, loader: DataLoader) -> None:
    """Train one step, and say what it took."""
    logger = get_root_logger()
    sampler.set_position(0, 0)
    data = next(iter(batches(loader, opt)))
    started = time.time()
    model.update_learning_rate(1, warmup_iter=opt["train"].get("warmup_iter", -1))
    model.feed_data(data)
    Guard(NonFiniteOptions()).step(model, data, 1, settle=True)
    losses = ", ".join(f"{name}: {value:.4e}" for name, value in model.get_current_log().items())
    logger.info(f"Dry run: the options, the files and one step of {time.time() - started:.1f} s are in order. {losses}")


def run(
    opt: Options,
    model: BaseModel,
    sampler: EpochSampler,
    loader: DataLoader,
    val_loaders: list[DataLoader],
    tb_logger: object,
    current_iter: int,
    requests: Requests,
) -> None:
    """Iterate from ``current_iter`` to ``total_iter``, logging, validating and saving; then save and summarise.

    Raises StoppedBySignalError, after the iteration and a checkpoint, where that is asked for.
    """
    logger = get_root_logger()
    total_iter, per_epoch = int(opt["train"]["total_iter"]), len(loader)
    log_freq, save_freq = opt["logger"]["print_freq"], opt["logger"]["save_checkpoint_freq"]
    val_freq = opt["val"]["val_freq"] if opt.get("val") else None
    guard = Guard(NonFiniteOptions.read(opt["train"].get("non_finite")))
    messages = message_logger(opt, current_iter + 1, tb_logger)
    started = time.time()
    logger.info(f"Start training at iteration {current_iter} of {total_iter}, {per_epoch} an epoch.")
    while current_iter < total_iter:
        epoch, done = divmod(current_iter, per_epoch)
        sampler.set_position(epoch, done * loader.batch_size)  # type: ignore[operator]
        data_timer, iter_timer = AvgTimer(), AvgTimer()
        for data in batches(loader, opt):
            data_timer.record()
            current_iter += 1
            model.update_learning_rate(current_iter, warmup_iter=opt["train"].get("warmup_iter", -1))
            model.feed_data(data)
            trained = guard.step(model, data, current_iter, settle=current_iter % log_freq == 0)
            iter_timer.record()
            if trained and current_iter % log_freq == 0:
                times = {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                rates = {"epoch": epoch, "iter": current_iter, "lrs": model.get_current_learning_rate()}
                messages({**rates, **times, **model.get_current_log()})
            requests.tell()
            if val_freq and current_iter % val_freq == 0:
                validate(opt, model, val_loaders, current_iter, tb_logger)
            requests.agree()
            requests.tell()
            if current_iter % save_freq == 0 or requests.save or requests.stop:
                guard.settle(model, current_iter)
                logger.info(f"Saving the networks and the training state of iteration {current_iter}.")
                save_checkpoint(model, epoch, current_iter, opt["logger"].get("keep_checkpoints"))
                requests.save = 0
            if requests.stop:
                raise StoppedBySignalError(requests.stop, current_iter)
            if current_iter >= total_iter:
                break
            data_timer.start()
            iter_timer.start()
    guard.settle(model, current_iter)
    logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - started))}")
    save_checkpoint(model, LATEST, LATEST)
    if val_freq and current_iter % val_freq != 0:
        validate(opt, model, val_loaders, current_iter, tb_logger)
    stop_group()  # the others do not wait for the summary
    if val_freq and opt["rank"] == 0 and isinstance(model, MendedModel):
        summarise(model, val_loaders, opt)


def batches(loader: DataLoader, opt: Options) -> Iterator[dict]:
    """Yield the batches of one epoch, copied ahead to the GPU where ``prefetch_mode: cuda`` asks for it."""
    if opt["datasets"]["train"].get("prefetch_mode") != "cuda":
        yield from loader
        return
    prefetcher = CUDAPrefetcher(loader, opt)
    while (batch := prefetcher.next()) is not None:
        for value in batch.values():
            # copied in another stream, which may not write over it before it is read
            if isinstance(value, torch.Tensor):
                value.record_stream(torch.cuda.current_stream())
        yield batch


def build_train_loader(opt: Options, signals: WorkerSignals) -> tuple[EpochSampler, DataLoader]:
    """Build the training set, its sampler and its loader. Raises UserError where it holds less than one batch."""
    options = opt["datasets"]["train"]
    with explained(f"datasets:train: {options['type']} can't be built with these options"):
        dataset = build_dataset(options)
    ratio = options.get("dataset_enlarge_ratio", 1)
    sampler = EpochSampler(dataset, opt["world_size"], opt["rank"], ratio)
    seeded = SeededDataset(dataset, opt["manual_seed"])
    with explained("datasets:train: torch's DataLoader can't be built with these options"):
        loader = build_dataloader(seeded, options, opt["num_gpu"], opt["dist"], sampler, opt["manual_seed"])
    loader.worker_init_fn = signals.start_worker
    keep_out_of_the_random_stream(loader)
    sampler.batch_size = loader.batch_size  # several GPUs in one process share a larger one
    if len(loader) == 0:
        raise UserError(
            f"datasets:train: {sampler.num_samples} images an epoch are less than one batch of {loader.batch_size}. "
            "Add images, raise dataset_enlarge_ratio, or lower batch_size_per_gpu."
        )
    return sampler, loader
