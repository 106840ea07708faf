"""Check the options, then hand over to BasicSR's own, unmodified ``train_pipeline``."""

import ast
import sys
from collections.abc import Iterator
from copy import deepcopy

import torch
import yaml
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import MODEL_REGISTRY

from dfpg_plugin import compat
from dfpg_plugin.checks import UserError
from dfpg_plugin.options.completing import Arguments, RunOptions, convert_whole_numbers
from dfpg_plugin.options.keys import warn_of_idle_keys
from dfpg_plugin.options.reading import Options, force, read_yaml
from dfpg_plugin.runs.metric_trials import try_metrics
from dfpg_plugin.runs.output import make_missing_folders
from dfpg_plugin.training.resume import find_state

# whole numbers that may be written as floats such as 5e3, because BasicSR takes floats there
COUNTS = ("train:total_iter", "val:val_freq", "logger:print_freq", "logger:save_checkpoint_freq")
NCCL = "nccl"
# keys that BasicSR reads without a default
NEEDED = ("num_gpu", "path", "logger:print_freq", "logger:save_checkpoint_freq", "logger:use_tb_logger")
NEEDED_TO_LOAD = ("batch_size_per_gpu", "num_worker_per_gpu")  # of the training set
ONLY_OURS = ("train:non_finite", "logger:keep_checkpoints", "dist_params:timeout")  # keys that BasicSR's loop ignores


def train_stock(options: RunOptions, args: Arguments) -> None:
    """Run BasicSR's training with the same arguments in the same folder.

    BasicSR reads the YAML and ``--force_yml`` a second time, and would execute code in them. This package's reader has
    already refused code in the YAML. Code in ``--force_yml`` is refused here. Raises UserError for such code, and for
    options that BasicSR's loop would refuse, ignore or misread.
    """
    file = options.file
    if yaml.safe_load(file.text) != file.values:
        raise UserError(f"{file.path}: BasicSR reads numbers like 1e-4 as text. For --stock write 1.0e-4.")
    for entry in args.force_yml:
        _refuse_code(entry)
        _refuse_misread_value(entry)
    given = deepcopy(file.values)
    force(given, args.force_yml)
    _refuse_missing_keys(given)
    _refuse_whole_floats(given)
    _refuse_persistent_workers(options.plain)
    _refuse_misread_options(options.plain, args)
    compat.mend_stock_resume(_load_resume_state)
    if args.local_rank == 0:
        warn_of_idle_keys(options.plain, file)
        try_metrics(options.plain)
    from basicsr.train import train_pipeline

    sys.argv = ["basicsr", "-opt", str(file.path), "--launcher", args.launcher, "--local_rank", str(args.local_rank)]
    sys.argv += [f"--{flag}" for flag in ("auto_resume", "debug") if getattr(args, flag)]
    sys.argv += ["--force_yml", *args.force_yml] if args.force_yml else []
    train_pipeline(options.plain["root_path"])


def _load_resume_state(opt: Options) -> dict | None:
    """Return the training state to resume, or None for a new run.

    Like BasicSR's ``load_resume_state``, write the paths of the state and its networks into ``opt``, BasicSR's options.
    """
    state, paths = find_state(opt)
    opt["path"].update(paths)
    if state is not None:
        make_missing_folders(opt)
    return state


def _refuse_missing_keys(given: Options) -> None:
    """Raise UserError if a key has no value for which BasicSR has no default."""
    for key in _needed_keys(given):
        *sections, name = key.split(":")
        values = given
        for section in sections:
            values = values.get(section) or {}
        if values.get(name) is None:
            raise UserError(f"{key}: has no value, and BasicSR has no default for it. For --stock write one.")


def _needed_keys(given: Options) -> Iterator[str]:
    yield from NEEDED
    yield from (f"datasets:train:{key}" for key in NEEDED_TO_LOAD)
    yield from (f"datasets:{key}:name" for key in given["datasets"])
    if given.get("val") is not None and any(key.split("_")[0] == "val" for key in given["datasets"]):
        yield "val:save_img"
    if MODEL_REGISTRY.get(given["model_type"]).setup_schedulers is BaseModel.setup_schedulers:
        yield "train:scheduler"


def _refuse_whole_floats(given: Options) -> None:
    """Raise UserError for a whole number that is written as a float, such as 2.0, where BasicSR takes no float."""
    if refused := [key for key in convert_whole_numbers(given) if key not in COUNTS]:
        raise UserError(f"{refused[0]}: BasicSR takes no whole number written like 2.0. For --stock write 2.")


def _refuse_persistent_workers(opt: Options) -> None:
    for key, options in opt["datasets"].items():
        if key != "train" and options.get("persistent_workers"):
            raise UserError(
                f"datasets:{key}:persistent_workers: BasicSR validates without workers. For --stock remove it."
            )


def _refuse_misread_options(opt: Options, args: Arguments) -> None:
    """Raise UserError for an option that BasicSR's own loop would ignore or misread with these arguments."""
    for key in ONLY_OURS:
        section, name = key.split(":")
        if (opt.get(section) or {}).get(name) is not None:
            raise UserError(f"{key}: BasicSR's own loop does not read it. For --stock remove it.")
    backend = (opt.get("dist_params") or {}).get("backend", NCCL)
    if args.launcher == "pytorch" and backend != NCCL:
        raise UserError(f"dist_params:backend: BasicSR uses {NCCL} with --launcher pytorch. For --stock remove it.")
    if opt["path"].get("root") is not None and args.auto_resume and torch.cuda.is_available():
        raise UserError(
            "path:root: BasicSR's --auto_resume looks only into the working directory. For --stock start there, and "
            "remove path:root."
        )
    if "debug" in opt["name"] and not args.debug:
        raise UserError("name: BasicSR takes a name with 'debug' for a debugging run. For --stock change the name.")
    if any(entry.partition("=")[0].strip() == "manual_seed" for entry in args.force_yml):
        raise UserError(
            "--force_yml manual_seed: BasicSR draws random numbers before it reads this. For --stock write manual_seed "
            "in the file."
        )


def _refuse_misread_value(entry: str) -> None:
    """Raise UserError for a value that BasicSR does not read as YAML: -1 and null are text to it, none is no value."""
    text = entry.partition("=")[2].strip()
    in_file = "For --stock write it in the file."
    if "=" in text:
        raise UserError(f"--force_yml {entry}: BasicSR takes no value with `=`. {in_file}")
    theirs, ours = compat.read_forced_value(text), read_yaml(text, f"--force_yml {entry}")
    if theirs != ours or type(theirs) is not type(ours):
        raise UserError(f"--force_yml {entry}: BasicSR reads the value as {theirs!r}, not {ours!r}. {in_file}")


def _refuse_code(entry: str) -> None:
    value = entry.partition("=")[2].strip()
    if value.startswith("["):  # BasicSR evaluates such a value as Python
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise UserError(f"--force_yml {entry}: --stock takes only plain lists such as [1, 2].") from error
