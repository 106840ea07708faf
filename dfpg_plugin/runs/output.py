"""A run's folder and log file."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

import torch
from basicsr.utils import get_env_info, get_root_logger, get_time_str, make_exp_dirs, mkdir_and_rename
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.options import dict2str

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import whole_file, write_errors_explained
from dfpg_plugin.options.completing import RunOptions
from dfpg_plugin.options.curves import has_curves
from dfpg_plugin.options.reading import Options
from dfpg_plugin.runs.checkpoints import finish_killed_save
from dfpg_plugin.runs.lock import locked

LOG_FORMAT = "%(asctime)s %(levelname)s: %(message)s"  # BasicSR's
FOLDERS = ("experiments_root", "results_root", "models", "training_states", "log", "visualization")


@contextmanager
def run_log() -> Iterator[Callable[[Path], None]]:
    """Hold back the records of BasicSR's logger, and give a function that opens a log file and releases the records.

    The function is called when the run is built. A mistake in the options then shows as one line, without hundreds of
    lines of log above it. A failed start leaves no file and no folder
    (docs/basicsr_defects.md#a-start-that-fails-puts-the-earlier-run-aside). Each run has a log file of its own
    (docs/basicsr_defects.md#a-second-run-of-a-process-logs-into-the-first-ones-file).
    """
    logger = get_root_logger()
    screens = list(logger.handlers)
    held = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)

    def release_to(handlers: list[logging.Handler]) -> None:
        records, held.buffer = held.buffer, []
        logger.handlers = handlers
        for record in records:
            logger.handle(record)

    def open_file(path: Path) -> None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter(LOG_FORMAT))
        release_to([*screens, file])

    if get_dist_info()[0] == 0:
        logger.setLevel(logging.INFO)
    logger.handlers = [held]
    try:
        yield open_file
    except (UserError, torch.OutOfMemoryError) as error:
        held.buffer.clear()
        _keep_cause(logger, error)
        raise
    except Exception as error:
        _keep_cause(logger, error)
        raise
    finally:
        opened = set(logger.handlers) - set(screens)
        release_to(screens)
        for handler in opened:
            handler.close()


def _keep_cause(logger: logging.Logger, error: Exception) -> None:
    """Write an error's traceback into the log file only. The screen shows one line."""
    record = logger.makeRecord(
        logger.name, logging.ERROR, __file__, 0, "%s", (error,), (type(error), error, error.__traceback__)
    )
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(record)


@contextmanager
def lock_run(options: RunOptions) -> Iterator[None]:
    """Keep other processes out of the run's folder, and finish or remove what a killed process left unfinished there.

    Raises UserError if another process is writing into the folder.
    """
    if options.rank != 0:
        yield
        return
    with locked(options.folder):
        finish_killed_save(options.folder)
        yield


def make_missing_folders(opt: Options) -> None:
    """Make those of the run's folders that are not there. A run that resumes another run's state has none yet."""
    for folder in _folders(opt).values():
        Path(folder).mkdir(parents=True, exist_ok=True)


def _folders(opt: Options) -> dict[str, str]:
    return {key: path for key, path in opt["path"].items() if key in FOLDERS}


def prepare_output(options: RunOptions, open_log: Callable[[Path], None], new: bool) -> None:
    """Make the run's folders if the run is ``new``, copy the YAML into its folder, and open its log.

    As in BasicSR, an earlier run of this name is renamed: ``small`` becomes ``small_archived_20260102_030405``. Raises
    UserError, naming the run's folder, if the folders can't be written.
    """
    if options.rank != 0:
        return
    opt = options.plain
    kind = "train" if opt["is_train"] else "test"
    header = f"# GENERATE TIME: {time.asctime()}\n# CMD:\n# {' '.join(sys.argv)}\n\n"  # as BasicSR does
    if new and opt["is_train"] and has_curves(opt):
        curves = Path(opt["root_path"]) / "tb_logger" / opt["name"]
        with write_errors_explained(curves, "start again"):
            mkdir_and_rename(str(curves))
    with write_errors_explained(options.folder, "start again"):
        if new:
            make_exp_dirs({"is_train": opt["is_train"], "path": _folders(opt)})
        make_missing_folders(opt)
        with whole_file(options.folder / options.file.path.name) as copy:
            copy.write((header + options.file.text).encode())
        open_log(options.folder / f"{kind}_{opt['name']}_{get_time_str()}.log")
    logger = get_root_logger()
    logger.info(get_env_info())
    logger.info(dict2str(opt))
