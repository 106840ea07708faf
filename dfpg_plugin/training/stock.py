"""Hand over to BasicSR's own ``train_pipeline``, unmodified, after a check of the options."""

import ast
import sys
from pathlib import Path

import yaml

from dfpg_plugin import compat
from dfpg_plugin.checks import UserError
from dfpg_plugin.options.keys import warn_of_idle_keys
from dfpg_plugin.options.reading import Arguments, Options, force, read_option_file
from dfpg_plugin.options.schema import COUNTS, convert_whole_numbers
from dfpg_plugin.runs.metric_trials import try_metrics
from dfpg_plugin.training.resume import load_resume_state


def train_stock(opt: Options, args: Arguments) -> None:
    """Run BasicSR's training with the same arguments in the same folder.

    BasicSR reads the YAML and ``--force_yml`` again, by ways that would execute what stands in them: they have been
    read safely before, and what remains dangerous is refused with UserError.
    """
    file = Path(args.opt).expanduser()
    if yaml.safe_load(file.read_text(encoding="utf-8")) != read_option_file(args.opt):
        raise UserError(f"{file}: BasicSR reads numbers like 1e-4 as text. For --stock write 1.0e-4.")
    for entry in args.force_yml:
        _refuse_code(entry)
    _refuse_fractions(args)
    _refuse_persistent_workers(opt)
    compat.mend_stock_resume(load_resume_state)
    if args.local_rank == 0:
        warn_of_idle_keys(opt, args.opt)
        try_metrics(opt)
    from basicsr.train import train_pipeline

    sys.argv = ["basicsr", "-opt", str(file), "--launcher", args.launcher, "--local_rank", str(args.local_rank)]
    sys.argv += [f"--{flag}" for flag in ("auto_resume", "debug") if getattr(args, flag)]
    sys.argv += ["--force_yml", *args.force_yml] if args.force_yml else []
    train_pipeline(opt["root_path"])


def _refuse_fractions(args: Arguments) -> None:
    opt = read_option_file(args.opt)
    force(opt, args.force_yml)
    if refused := [key for key in convert_whole_numbers(opt) if key not in COUNTS]:
        raise UserError(f"{refused[0]}: BasicSR takes no whole number written like 2.0. For --stock write 2.")


def _refuse_persistent_workers(opt: Options) -> None:
    for key, options in opt["datasets"].items():
        if key != "train" and options.get("persistent_workers"):
            raise UserError(
                f"datasets:{key}:persistent_workers: BasicSR validates without workers. For --stock remove it."
            )


def _refuse_code(entry: str) -> None:
    value = entry.partition("=")[2].strip()
    if value.startswith("["):  # BasicSR evaluates it
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise UserError(f"--force_yml {entry}: --stock takes only plain lists such as [1, 2].") from error
