"""The loop of ``basicsr train``: BasicSR's builders, loaders and loggers, without what its own loop gets wrong.

Exactly ``total_iter`` iterations; an epoch is the whole batches of the data, however they divide; nothing of an earlier
run is touched before everything is built; the last validation is that of the last iteration.
"""

import datetime
import logging
import sys
import time
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from basicsr.models import build_model
from basicsr.train import init_tb_loggers
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    get_env_info,
    get_root_logger,
    get_time_str,
    make_exp_dirs,
    mkdir_and_rename,
    set_random_seed,
)
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.options import dict2str
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError
from dfpg_plugin.training.options import Options
from dfpg_plugin.training.resume import load_resume_state
from dfpg_plugin.training.stream import EpochSampler, SeededDataset
from dfpg_plugin.training.summary import summarise

LOG_FORMAT = "%(asctime)s %(levelname)s: %(message)s"  # BasicSR's
OUTPUT_FOLDERS = ("experiments_root", "results_root", "models", "training_states", "log", "visualization")


def train(opt: Options, option_file: str) -> None:
    """Train what completed and checked options describe, to the end. Raises UserError and FloatingPointError."""
    opt["rank"], opt["world_size"] = get_dist_info()
    set_random_seed(opt["manual_seed"] + opt["rank"])
    torch.backends.cudnn.benchmark = True
    early_records = start_logging()
    state = load_resume_state(opt)
    sampler, loader = build_train_loader(opt)
    val_loaders = build_loaders(opt, "val")
    model = build_model(opt)
    if state is not None:
        model.resume_training(state)
    prepare_output(opt, option_file, "train", early_records, new=state is None)
    tb_logger = init_tb_loggers(opt)
    run(opt, model, sampler, loader, val_loaders, tb_logger, 0 if state is None else state["iter"])
    if tb_logger:
        tb_logger.close()


def run(
    opt: Options,
    model: object,
    sampler: EpochSampler,
    loader: DataLoader,
    val_loaders: list[DataLoader],
    tb_logger: object,
    current_iter: int,
) -> None:
    """Iterate from ``current_iter`` to ``total_iter``, logging, saving and validating; then save and summarise."""
    logger = get_root_logger()
    total_iter, per_epoch = int(opt["train"]["total_iter"]), len(loader)
    log_freq, save_freq = opt["logger"]["print_freq"], opt["logger"]["save_checkpoint_freq"]
    val_freq = opt["val"]["val_freq"] if opt.get("val") else None
    messages = MessageLogger(opt, current_iter + 1, tb_logger)
    started = time.time()
    logger.info(f"Start training at iteration {current_iter} of {total_iter}, {per_epoch} an epoch.")
    while current_iter < total_iter:
        epoch, done = divmod(current_iter, per_epoch)
        sampler.set_position(epoch, done * loader.batch_size)
        data_timer, iter_timer = AvgTimer(), AvgTimer()
        for data in batches(loader, opt):
            data_timer.record()
            current_iter += 1
            model.update_learning_rate(current_iter, warmup_iter=opt["train"].get("warmup_iter", -1))
            model.feed_data(data)
            model.optimize_parameters(current_iter)
            iter_timer.record()
            if current_iter % log_freq == 0:
                times = {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                rates = {"epoch": epoch, "iter": current_iter, "lrs": model.get_current_learning_rate()}
                messages({**rates, **times, **model.get_current_log()})
            if current_iter % save_freq == 0:
                logger.info("Saving models and training states.")
                model.save(epoch, current_iter)
            if val_freq and current_iter % val_freq == 0:
                validate(opt, model, val_loaders, current_iter, tb_logger)
            if current_iter >= total_iter:
                break
            data_timer.start()
            iter_timer.start()
    logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - started))}")
    model.save(epoch=-1, current_iter=-1)  # BasicSR's way to say `latest`
    if val_freq and current_iter % val_freq != 0:
        validate(opt, model, val_loaders, current_iter, tb_logger)
    if val_freq and opt["rank"] == 0:
        summarise(model, val_loaders, opt)


def batches(loader: DataLoader, opt: Options) -> Iterator[dict]:
    """Yield the batches of one epoch, copied ahead to the GPU where ``prefetch_mode: cuda`` asks for it."""
    if opt["datasets"]["train"].get("prefetch_mode") != "cuda":
        yield from loader
        return
    prefetcher = CUDAPrefetcher(loader, opt)
    while (batch := prefetcher.next()) is not None:
        yield batch


def validate(opt: Options, model: object, loaders: list[DataLoader], current_iter: int, tb_logger: object) -> None:
    """Validate on every validation set, by the model's own method."""
    for loader in loaders:
        model.validation(loader, current_iter, tb_logger, opt["val"]["save_img"])


def build_train_loader(opt: Options) -> tuple[EpochSampler, DataLoader]:
    """Build the training set, its sampler and its loader. Raises UserError where it holds less than one batch."""
    options = opt["datasets"]["train"]
    dataset = build_dataset(options)
    ratio = options.get("dataset_enlarge_ratio", 1)
    sampler = EpochSampler(dataset, opt["world_size"], opt["rank"], ratio)
    seeded = SeededDataset(dataset, opt["manual_seed"])
    loader = build_dataloader(seeded, options, opt["num_gpu"], opt["dist"], sampler, opt["manual_seed"])
    if len(loader) == 0:
        raise UserError(
            f"datasets:train: {sampler.num_samples} images an epoch are less than one batch of {loader.batch_size}. "
            "Add images, raise dataset_enlarge_ratio, or lower batch_size_per_gpu."
        )
    return sampler, loader


def build_loaders(opt: Options, phase: str) -> list[DataLoader]:
    """Build the loaders of every data set of a phase, ``val`` or ``test``."""
    loaders = []
    for key, options in sorted(opt["datasets"].items()):
        if key.split("_")[0] == phase:
            # BasicSR's loader has no workers here and refuses persistent ones
            options = {**options, "persistent_workers": False}
            dataset = build_dataset(options)
            get_root_logger().info(f"Number of {phase} images in {options['name']}: {len(dataset)}")
            loaders.append(build_dataloader(dataset, options, opt["num_gpu"], opt["dist"], None, opt["manual_seed"]))
    return loaders


def start_logging() -> MemoryHandler:
    """Let BasicSR's logger print, and keep its records until the log file's folder is there."""
    logger = get_root_logger()
    early_records = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
    if get_dist_info()[0] == 0:
        logger.setLevel(logging.INFO)
        logger.addHandler(early_records)
    return early_records


def prepare_output(opt: Options, option_file: str, what: str, early_records: MemoryHandler, new: bool) -> None:
    """Make the run's folders (an earlier run of the same name is renamed, as in BasicSR), copy the YAML, open the log."""
    if opt["rank"] != 0:
        return
    text = Path(option_file).read_text(encoding="utf-8")  # before a rename can move it
    folders = {key: path for key, path in opt["path"].items() if key in OUTPUT_FOLDERS}
    if new:
        make_exp_dirs({"is_train": opt["is_train"], "path": folders})
        if opt["is_train"] and opt["logger"]["use_tb_logger"] and "debug" not in opt["name"]:
            mkdir_and_rename(str(Path(opt["root_path"]) / "tb_logger" / opt["name"]))
    header = f"# GENERATE TIME: {time.asctime()}\n# CMD:\n# {' '.join(sys.argv)}\n\n"  # as BasicSR does
    Path(folders["log"], Path(option_file).name).write_text(header + text, encoding="utf-8")
    file = logging.FileHandler(Path(folders["log"], f"{what}_{opt['name']}_{get_time_str()}.log"), encoding="utf-8")
    file.setFormatter(logging.Formatter(LOG_FORMAT))
    logger = get_root_logger()
    early_records.setTarget(file)
    early_records.flush()
    logger.removeHandler(early_records)
    logger.addHandler(file)
    logger.info(get_env_info())
    logger.info(dict2str(opt))

