"""The arguments that ``basicsr train`` and ``basicsr test`` share: BasicSR's own."""

import argparse

from dfpg_plugin.training.distribution import start_group
from dfpg_plugin.training.option_checks import check_options
from dfpg_plugin.training.option_kinds import convert_whole_numbers
from dfpg_plugin.training.options import Arguments, Options, complete, force, key_lines, output_root, read_option_file
from dfpg_plugin.training.plugins import load_plugins


def from_1(text: str) -> int:
    """Read a whole number from 1, for argparse."""
    return _whole(text, 1)


def from_0(text: str) -> int:
    """Read a whole number from 0, for argparse."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text}")
    return int(text)


def add_basicsr_arguments(parser: argparse.ArgumentParser) -> None:
    """Add BasicSR's flags, under BasicSR's names."""
    parser.add_argument("-opt", "--opt", required=True, metavar="YAML", help="the option file")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest state of the run, if any")
    parser.add_argument("--debug", action="store_true", help="log every iteration, save every 8, show tracebacks")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch")
    text = "options that replace those of the YAML"
    parser.add_argument("--force_yml", nargs="+", action="extend", default=[], metavar="KEY:SUBKEY=VALUE", help=text)


def to_arguments(args: argparse.Namespace) -> Arguments:
    """Return what :func:`add_basicsr_arguments` parsed."""
    return Arguments(args.opt, args.launcher, args.auto_resume, args.debug, args.local_rank, tuple(args.force_yml))


def read_options(args: Arguments, is_train: bool, join_group: bool = True, needs_network: bool = True) -> Options:
    """Read, complete and check the options; join the processes' group.

    Outputs go below ``path:root``, by default the working directory.

    Without ``needs_network`` it does not matter whether the trained weights are there.
    """
    opt = read_option_file(args.opt)
    force(opt, args.force_yml)
    convert_whole_numbers(opt)
    if not needs_network and isinstance(opt.get("path"), dict):
        opt["path"] = {key: v for key, v in opt["path"].items() if not key.startswith("pretrain_network_")}
    plugins = load_plugins(opt.get("plugins") or [])
    complete(opt, args, output_root(opt).resolve(), is_train)
    check_options(opt, plugins, needs_network, key_lines(args.opt))
    if join_group:
        start_group(args, opt.get("dist_params"), opt["num_gpu"])
    return opt
