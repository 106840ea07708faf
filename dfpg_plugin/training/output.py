"""A run's folder and log file."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from basicsr.utils import get_env_info, get_root_logger, get_time_str, make_exp_dirs, mkdir_and_rename
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.options import dict2str

from dfpg_plugin.training.options import Options

LOG_FORMAT = "%(asctime)s %(levelname)s: %(message)s"  # BasicSR's
FOLDERS = ("experiments_root", "results_root", "models", "training_states", "log", "visualization")


@contextmanager
def run_log() -> Iterator[Callable[[Path], None]]:
    """Let BasicSR's logger print, and give a function that opens the log file; earlier records are written to it, too.

    The file's folder is only made when everything is built, so that a failed start leaves no trace (defects 40 and 72).
    """
    logger = get_root_logger()
    handlers: list[logging.Handler] = []
    early_records = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)

    def add(handler: logging.Handler) -> None:
        handlers.append(handler)
        logger.addHandler(handler)

    def open_file(path: Path) -> None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter(LOG_FORMAT))
        early_records.setTarget(file)
        early_records.close()  # flushes
        logger.removeHandler(early_records)
        add(file)

    if get_dist_info()[0] == 0:
        logger.setLevel(logging.INFO)
        add(early_records)
    try:
        yield open_file
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def prepare_output(opt: Options, option_file: str, open_log: Callable[[Path], None], new: bool) -> None:
    """Make the run's folders, renaming an earlier run of that name as BasicSR does; copy the YAML; open the log."""
    if opt["rank"] != 0:
        return
    text = Path(option_file).read_text(encoding="utf-8")  # before a rename can move it
    folders = {key: path for key, path in opt["path"].items() if key in FOLDERS}
    if new:
        make_exp_dirs({"is_train": opt["is_train"], "path": folders.copy()})
        if opt["is_train"] and opt["logger"]["use_tb_logger"] and "debug" not in opt["name"]:
            mkdir_and_rename(str(Path(opt["root_path"]) / "tb_logger" / opt["name"]))
    folder = Path(folders["log"])
    header = f"# GENERATE TIME: {time.asctime()}\n# CMD:\n# {' '.join(sys.argv)}\n\n"  # as BasicSR does
    (folder / Path(option_file).name).write_text(header + text, encoding="utf-8")
    open_log(folder / f"{'train' if opt['is_train'] else 'test'}_{opt['name']}_{get_time_str()}.log")
    logger = get_root_logger()
    logger.info(get_env_info())
    logger.info(dict2str(opt))
